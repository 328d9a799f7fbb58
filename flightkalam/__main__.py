"""`python -m flightkalam`: the same as the `flightkalam` command, where scripts are not on the PATH."""

import sys

from flightkalam.cli import main

sys.exit(main())
