"""THE SIDE PORT: health and figures over HTTP, for machines that watch the service.  NOT: rows, names, statements.

`health` says whether the service can take calls, `exposition` writes the figures as Prometheus reads them, `server` listens.
"""

from flightkalam.web.health import Health
from flightkalam.web.server import SidePort

__all__ = ["Health", "SidePort"]
