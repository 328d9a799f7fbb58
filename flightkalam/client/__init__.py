"""For programs that use the service: a connection with what plain ADBC lacks, and a dialect for SQLAlchemy.

    connection  flightkalam.connect(): an ADBC connection that can act for a user, upsert, delete and watch
    dialect     flightkalam:// for SQLAlchemy, Superset and pandas.to_sql

Speaks Flight SQL through ADBC and nothing else, so it also works where only pyarrow and the ADBC driver are installed.

Does not belong here: anything of the server.
"""

from flightkalam.client.connection import Changes, Connection, connect

__all__ = ["Changes", "Connection", "connect"]
