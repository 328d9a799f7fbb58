"""Values to draw from come from the model's tests; the cold tier is tested without the rooms above it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
