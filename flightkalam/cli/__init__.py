"""The command line: `flightkalam serve | check | restore | ping | sql | shell | load | version`.

    commands    the commands, their options and help; the only place that knows exit codes
    client      a connection that Ctrl-C can interrupt, and the driver's errors as one line of text
    output      results as csv, json, arrow, parquet, or for people
    tables      Arrow as text that fits a terminal
    loading     files as Arrow streams, and into a table
    ping        whether a server answers
    shell       the interactive shell        completion    what it offers on Tab

Client commands speak Flight SQL through ADBC like any other program: what they can do, a user's own code can do.

Does not belong here: SQL's meaning, files of the data directory, rights.
"""

from flightkalam.cli.commands import main

__all__ = ["main"]
