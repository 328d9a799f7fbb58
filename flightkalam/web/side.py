"""The side port through the life of the service: there before it is, until after it has gone."""

from __future__ import annotations

from collections.abc import Callable

from flightkalam.config_running import HttpConfig
from flightkalam.telemetry import Sample
from flightkalam.web.health import DRAINING, SERVING, Health
from flightkalam.web.server import SidePort


class Side:
    """:ivar port: None unless it is asked for.

    :raises ConfigError: the address cannot be had.
    """

    def __init__(self, http: HttpConfig) -> None:
        self.health = Health()
        self._samples: Callable[[], list[Sample]] = list
        self.port = SidePort(http.host, http.port, self.health, lambda: self._samples()) if http.enabled else None

    def serves(self, problem: Callable[[], str | None], samples: Callable[[], list[Sample]]) -> None:
        """Calls are welcome from now on, as long as there is no problem."""
        self.health.problem = problem
        self._samples = samples
        self.health.state = SERVING

    def drains(self) -> None:
        self.health.state = DRAINING

    def close(self) -> None:
        if self.port is not None:
            self.port.close()
