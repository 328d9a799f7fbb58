"""THE SPINE: from a client's words to rows and commits, in one visible order.

    parse ── identity ── resolve ── authorise ── plan ── execute ── audit

`service` is the front door (who are you), `session` keeps what a client has open, `running` runs one statement for one call,
`acts` says in whose name and records it, `execution` is its world,
and `statements` the table of what each kind of statement does: `reads`, `writes`, `ingest` and `ddl` are its rows.
The wire calls in here and knows nothing below.
"""

from flightkalam.session.service import Service
from flightkalam.session.session import Session

__all__ = ["Service", "Session"]
