"""Text -> typed statement; pure.

    text --lexer--> tokens --parser--> Statement        (dml, ddl and admin each read their own kinds)

A statement holds *slices* of the client's own text and never a re-written form of it: what the engine runs is what the
client wrote, save for the places that a caller splices on purpose (`text.splice`).  Plain queries are not understood
here at all; they pass through with our own clauses blanked out, so that every position stays true.

Does not belong here: the catalog, users and rights, the engine, the meaning of a type or an option.
"""

from flightkalam.sql.parser import MAX_SQL_CHARS, parse, split
from flightkalam.sql.reading import Reading, read

__all__ = ["MAX_SQL_CHARS", "Reading", "parse", "read", "split"]
