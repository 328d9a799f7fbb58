"""Whether the service is alive, and whether it can take calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STARTING, SERVING, DRAINING = "starting", "serving", "draining"


@dataclass(frozen=True, slots=True)
class Verdict:
    """:param problem: why calls should go elsewhere; None when they are welcome."""

    state: str
    problem: str | None = None


@dataclass
class Health:
    """:param problem: asked while serving: what is wrong, None when nothing is."""

    state: str = STARTING
    problem: Callable[[], str | None] = lambda: None

    def ready(self) -> Verdict:
        if self.state != SERVING:
            return Verdict(self.state, f"the service is {self.state}")
        problem = self.problem()
        return Verdict(SERVING) if problem is None else Verdict("degraded", f"{problem}; queries are answered, writes refused")
