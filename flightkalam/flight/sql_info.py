"""What the server says about itself: the SqlInfo codes, one line each.

Clients ask for single codes (ADBC for 8, flightsql-dbapi for 0, 2, 3 and 504) or for all of them at once (JDBC), and a
missing one is read as "no".  So every published code is here, with the union member that its readers expect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from flightkalam import __version__
from flightkalam.errors import InternalError
from flightkalam.flight.ports import SqlInfoValue

# The members of the value union, by their type codes.
STRING, BOOL, BIGINT, BITMASK, STRINGS, INT_MAP = range(6)

TRANSACTION_SUPPORT = 8
_DEFAULT_ISOLATION = 562
_TRANSACTIONS_SUPPORTED = 563
_ISOLATION_LEVELS = 564
_SAVEPOINTS = 573
_REPEATABLE_READ = 3

_KEYWORDS = [
    *(
        "ANTI",
        "ASOF",
        "ATTACH",
        "COLUMNS",
        "COMPACT",
        "COPY",
        "ERASE",
        "EXCLUDE",
        "EXECUTE",
        "FLUSH",
        "KILL",
        "LATERAL",
    ),
    *(
        "LIMIT",
        "MACRO",
        "NAMESPACE",
        "OFFSET",
        "PIVOT",
        "POSITIONAL",
        "QUALIFY",
        "REPLACE",
        "RETURNING",
        "SAMPLE",
        "SEMI",
    ),
    *("SHARED", "SHOW", "STREAM", "SUMMARIZE", "UNPIVOT", "USE", "USER"),
]
_NUMERIC = [
    *(
        "ABS",
        "ACOS",
        "ASIN",
        "ATAN",
        "ATAN2",
        "CEILING",
        "COS",
        "COT",
        "DEGREES",
        "EXP",
        "FLOOR",
        "LOG",
        "LOG10",
        "MOD",
    ),
    *("PI", "POWER", "RADIANS", "RANDOM", "ROUND", "SIGN", "SIN", "SQRT", "TAN", "TRUNC"),
]
_STRING = [
    *("ASCII", "CHR", "CONCAT", "LEFT", "LENGTH", "LOWER", "LPAD", "LTRIM", "POSITION", "REPEAT", "REPLACE", "REVERSE"),
    *("RIGHT", "RPAD", "RTRIM", "SPLIT_PART", "SUBSTRING", "TRIM", "UPPER"),
]
_SYSTEM = ["COALESCE", "CURRENT_DATABASE", "CURRENT_SCHEMA", "CURRENT_USER", "IFNULL", "NULLIF", "VERSION"]
_DATETIME = [
    *(
        "AGE",
        "CURRENT_DATE",
        "CURRENT_TIMESTAMP",
        "DATE_DIFF",
        "DATE_PART",
        "DATE_TRUNC",
        "DAYNAME",
        "EXTRACT",
        "MAKE_DATE",
    ),
    *("MONTHNAME", "NOW", "STRFTIME", "STRPTIME"),
]

# code: (member of the union, value)
DEFAULTS: dict[int, tuple[int, SqlInfoValue]] = {
    0: (STRING, "FlightKalam"),
    1: (STRING, __version__),
    2: (STRING, pa.__version__),
    3: (BOOL, False),  # read only
    4: (BOOL, True),  # SQL
    5: (BOOL, False),  # Substrait
    6: (STRING, ""),
    7: (STRING, ""),
    TRANSACTION_SUPPORT: (BITMASK, 0),  # 0 none, 1 transactions, 2 also savepoints
    9: (BOOL, True),  # cancel
    10: (BOOL, True),  # bulk ingestion
    11: (BOOL, False),  # ingestion in transactions
    100: (BITMASK, 0),  # milliseconds until an idle prepared statement is closed, 0 = never
    101: (BITMASK, 0),  # the same for a transaction
    500: (BOOL, False),  # DDL: catalogs
    501: (BOOL, True),  # DDL: schemas
    502: (BOOL, True),  # DDL: tables
    503: (BITMASK, 1),  # identifiers match without regard to case
    504: (STRING, '"'),
    505: (BITMASK, 1),
    506: (BOOL, True),  # a table that is listed can be selected
    507: (BITMASK, 3),  # NULL sorts last
    508: (STRINGS, _KEYWORDS),
    509: (STRINGS, _NUMERIC),
    510: (STRINGS, _STRING),
    511: (STRINGS, _SYSTEM),
    512: (STRINGS, _DATETIME),
    513: (STRING, ""),  # patterns have no escape character
    514: (STRING, ""),
    515: (BOOL, True),  # column aliases
    516: (BOOL, True),  # NULL + text is NULL
    517: (INT_MAP, {}),  # CONVERT
    518: (BOOL, True),  # table aliases
    519: (BOOL, False),  # … which must differ from table names
    520: (BOOL, True),  # expressions in ORDER BY
    521: (BOOL, True),  # ORDER BY what is not selected
    522: (BITMASK, 0b11),  # GROUP BY: unrelated, beyond the selection
    523: (BOOL, True),  # LIKE … ESCAPE
    524: (BOOL, True),  # NOT NULL
    525: (BITMASK, 0b111),  # grammar: minimum, core, extended
    526: (BITMASK, 0b011),  # SQL-92: entry, intermediate
    527: (BOOL, False),  # integrity enhancement: no foreign keys
    528: (BITMASK, 0b110),  # outer joins: limited, full
    529: (STRING, "schema"),
    530: (STRING, "procedure"),
    531: (STRING, "catalog"),
    532: (BOOL, True),  # catalog.schema.table
    533: (BITMASK, 0),
    534: (BITMASK, 0),
    535: (BITMASK, 0),  # positioned UPDATE and DELETE
    536: (BOOL, False),  # SELECT FOR UPDATE
    537: (BOOL, False),  # stored procedures
    538: (BITMASK, 0b1111),  # subqueries: comparison, EXISTS, IN, quantified
    539: (BOOL, True),  # correlated subqueries
    540: (BITMASK, 0b11),  # UNION, UNION ALL
    **dict.fromkeys(range(541, 556), (BIGINT, 0)),  # limits of length and number: none
    556: (BOOL, True),  # the row's limit counts blobs
    **dict.fromkeys(range(557, 561), (BIGINT, 0)),
    561: (BIGINT, 128),  # characters of a user name
    _DEFAULT_ISOLATION: (BIGINT, 0),  # an ordinal, but JDBC reads a 64-bit one
    _TRANSACTIONS_SUPPORTED: (BOOL, False),
    _ISOLATION_LEVELS: (BITMASK, 0),
    565: (BOOL, False),  # DDL commits
    566: (BOOL, False),  # DDL is ignored in a transaction
    567: (BITMASK, 0b10),  # result sets: forward only
    568: (BITMASK, 0),
    569: (BITMASK, 0b10),  # … read only
    570: (BITMASK, 0),
    571: (BITMASK, 0),
    572: (BOOL, True),  # batch updates
    _SAVEPOINTS: (BOOL, False),
    574: (BOOL, False),  # named parameters
    575: (BOOL, False),  # locators update copies
    576: (BOOL, False),  # stored functions by CALL
}

_MEMBERS = (
    pa.field("string_value", pa.utf8()),
    pa.field("bool_value", pa.bool_()),
    pa.field("bigint_value", pa.int64()),
    pa.field("int32_bitmask", pa.int32()),
    pa.field("string_list", pa.list_(pa.utf8())),
    pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
)
VALUE = pa.dense_union(_MEMBERS)
SCHEMA = pa.schema([pa.field("info_name", pa.uint32(), nullable=False), pa.field("value", VALUE, nullable=False)])

_PYTHON: tuple[tuple[type, ...], ...] = ((str,), (bool,), (int,), (int,), (list,), (dict,))


def merged(overrides: Mapping[int, SqlInfoValue]) -> dict[int, tuple[int, SqlInfoValue]]:
    """All codes; what follows from transaction support follows, unless it is overridden too."""
    if overrides.get(TRANSACTION_SUPPORT, 0):
        level = {_DEFAULT_ISOLATION: _REPEATABLE_READ, _ISOLATION_LEVELS: 1 << _REPEATABLE_READ}
        overrides = {_TRANSACTIONS_SUPPORTED: True, _SAVEPOINTS: overrides[TRANSACTION_SUPPORT] == 2, **level, **overrides}
    return {**DEFAULTS, **{code: (_member(code, value), value) for code, value in overrides.items()}}


def _member(code: int, value: SqlInfoValue) -> int:
    if code not in DEFAULTS:
        raise InternalError(f"SqlInfo {code} is not a published code")
    member = DEFAULTS[code][0]
    if not isinstance(value, _PYTHON[member]) or (isinstance(value, bool) and member != BOOL):
        raise InternalError(f"SqlInfo {code} must be a {_MEMBERS[member].name}, not {type(value).__name__}")
    return member


def batch(codes: Iterable[int], overrides: Mapping[int, SqlInfoValue]) -> pa.RecordBatch:
    """The rows of the codes, or of all if none is named; a code that nobody has published has no row."""
    known = merged(overrides)
    wanted = sorted({code for code in codes if code in known}) if (codes := tuple(codes)) else sorted(known)
    members: list[list[object]] = [[] for _ in _MEMBERS]
    types: list[int] = []
    offsets: list[int] = []
    for code in wanted:
        member, value = known[code]
        types.append(member)
        offsets.append(len(members[member]))
        members[member].append(list(value.items()) if isinstance(value, dict) else value)
    children = [pa.array(values, field.type) for values, field in zip(members, _MEMBERS, strict=True)]
    union = pa.UnionArray.from_dense(
        pa.array(types, pa.int8()), pa.array(offsets, pa.int32()), children, [f.name for f in _MEMBERS]
    )
    return pa.record_batch([pa.array(wanted, pa.uint32()), union], schema=SCHEMA)
