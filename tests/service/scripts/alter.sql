# ALTER TABLE: columns have stable ids, so old files stay readable and old values do not come back (T-31, T-32, T-33).

CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT NOT NULL, v INT, w REAL, d DATE, n DECIMAL(5,2));
INSERT INTO t VALUES (1, 'one', 10, 0.5, '2020-01-01', 1.25), (2, 'two', NULL, 1.5, NULL, NULL);
---- count 2

-- pause

# After RENAME old rows show their values under the new name, and the old name is gone.
ALTER TABLE t RENAME COLUMN name TO title;
---- count 0

SELECT id, title FROM t ORDER BY id;
---- id, title
1 | one
2 | two

SELECT name FROM t;
---- error 42703 name

INSERT INTO t (id, name) VALUES (3, 'three');
---- error 42703 name

INSERT INTO t (id, title, v) VALUES (3, 'three', 30);

-- pause

SELECT id, title FROM t WHERE title >= 'three' ORDER BY id;
----
2 | two
3 | three

# Another column may take the old name; it has nothing to do with the first.
ALTER TABLE t ADD COLUMN name INT;
SELECT id, title, name FROM t ORDER BY id;
----
1 | one | NULL
2 | two | NULL
3 | three | NULL

# DROP and ADD of one name does not bring the old values back.
ALTER TABLE t DROP COLUMN v;
SELECT v FROM t;
---- error 42703 v

ALTER TABLE t ADD COLUMN v INT;
-- pause
SELECT id, v FROM t ORDER BY id;
----
1 | NULL
2 | NULL
3 | NULL

SELECT count(*) AS n FROM t WHERE v IS NULL;
----
3

SELECT count(*) AS n FROM t WHERE v > 0;
----
0

# ADD … DEFAULT shows the default on old rows; a default that changes later changes no old row.
ALTER TABLE t ADD COLUMN extra INT NOT NULL DEFAULT 40 + 2;
INSERT INTO t (id, title) VALUES (4, 'four');
ALTER TABLE t ALTER COLUMN extra SET DEFAULT 7;
INSERT INTO t (id, title) VALUES (5, 'five');
-- pause
SELECT id, extra FROM t ORDER BY id;
----
1 | 42
2 | 42
3 | 42
4 | 42
5 | 7

SELECT id FROM t WHERE extra = 42 ORDER BY id;
----
1
2
3
4

ALTER TABLE t ALTER COLUMN extra DROP DEFAULT;
INSERT INTO t (id, title) VALUES (6, 'six');
---- error 23502 extra

ALTER TABLE t ADD COLUMN extra TEXT;
---- error 42701 extra

ALTER TABLE t ADD COLUMN IF NOT EXISTS EXTRA TEXT;
---- count 0

ALTER TABLE t ADD COLUMN must INT NOT NULL;
---- error 23502 must

ALTER TABLE t ADD COLUMN _hidden INT;
---- error 42939 _hidden

ALTER TABLE t ADD COLUMN k INT PRIMARY KEY;
---- error 42601 primary key

# Widening keeps every value; everything else is refused.
ALTER TABLE t ALTER COLUMN v SET DATA TYPE BIGINT;
ALTER TABLE t ALTER COLUMN w TYPE DOUBLE;
ALTER TABLE t ALTER d SET DATA TYPE TIMESTAMP;
ALTER TABLE t ALTER COLUMN n SET DATA TYPE DECIMAL(12,4);
INSERT INTO t (id, title, v, w, d, n, extra) VALUES (7, 'seven', 5000000000, 0.1, '2021-05-05 10:00:00', 12345678.1234, 1);
-- pause
SELECT id, v, w, d, n FROM t WHERE id IN (1, 2, 7) ORDER BY id;
---- id, v, w, d, n
1 | NULL | 0.5 | 2020-01-01 00:00:00 | 1.2500
2 | NULL | 1.5 | NULL | NULL
7 | 5000000000 | 0.1 | 2021-05-05 10:00:00 | 12345678.1234

SELECT id FROM t WHERE d >= TIMESTAMP '2020-01-01 00:00:00' ORDER BY id;
----
1
7

SELECT id FROM t WHERE w = 0.5 OR n = 12345678.1234 ORDER BY id;
----
1
7

ALTER TABLE t ALTER COLUMN v SET DATA TYPE INT;
---- error 0A000 wider
ALTER TABLE t ALTER COLUMN title SET DATA TYPE INT;
---- error 0A000 wider
ALTER TABLE t ALTER COLUMN id SET DATA TYPE TEXT;
---- error 0A000

# NOT NULL is checked against every row.
ALTER TABLE t ALTER COLUMN v SET NOT NULL;
---- error 23502 v
ALTER TABLE t ALTER COLUMN w SET NOT NULL;
---- error 23502 w
ALTER TABLE t ALTER COLUMN title DROP NOT NULL;
INSERT INTO t (id, title, extra) VALUES (8, NULL, 1);
ALTER TABLE t ALTER COLUMN title SET NOT NULL;
---- error 23502 title
ALTER TABLE t ALTER COLUMN id DROP NOT NULL;
---- error 42P16 primary key

ALTER TABLE t DROP COLUMN id;
---- error 2BP01 primary key
ALTER TABLE t DROP COLUMN nope;
---- error 42703 nope
ALTER TABLE t DROP COLUMN IF EXISTS nope;
---- count 0
ALTER TABLE t RENAME COLUMN title TO id;
---- error 42701 id
ALTER TABLE t RENAME COLUMN title TO _t;
---- error 42939 _t
ALTER TABLE nope ADD COLUMN x INT;
---- error 42P01 nope
ALTER TABLE IF EXISTS nope ADD COLUMN x INT;
---- count 0

# A key column can be renamed, and a table too; the files stay where they are.
ALTER TABLE t RENAME COLUMN id TO number;
ALTER TABLE t RENAME TO renamed;
-- pause
SELECT * FROM t;
---- error 42P01 t
SELECT number, title FROM renamed WHERE number = 7;
---- number, title
7 | seven

INSERT INTO renamed (number, title, extra) VALUES (7, 'again', 1);
---- error 23505 (number) = (7)

CREATE TABLE t (id BIGINT PRIMARY KEY);
SELECT count(*) FROM t;
----
0

ALTER TABLE t RENAME TO Renamed;
---- error 42P07 renamed

# A key may widen among whole numbers, and uniqueness holds across it.
CREATE TABLE narrow (k SMALLINT PRIMARY KEY, v TEXT);
INSERT INTO narrow VALUES (1, 'a'), (-32768, 'b'), (32767, 'c');
ALTER TABLE narrow ALTER COLUMN k SET DATA TYPE BIGINT;
-- pause
INSERT INTO narrow VALUES (1, 'again');
---- error 23505 (k) = (1)
INSERT INTO narrow VALUES (3000000000, 'd');
SELECT * FROM narrow ORDER BY k;
----
-32768 | b
1 | a
32767 | c
3000000000 | d

SELECT v FROM narrow WHERE k = -32768;
----
b

# A CHECK follows the column that it names; a column in a CHECK stays.
CREATE TABLE checked (id BIGINT PRIMARY KEY, price INT, CHECK (price > 0));
ALTER TABLE checked RENAME COLUMN price TO cost;
INSERT INTO checked VALUES (1, 0);
---- error 23514 cost > 0
ALTER TABLE checked DROP COLUMN cost;
---- error 2BP01 checked_check

# Several types of column with a default, added to rows that exist.
ALTER TABLE checked ADD COLUMN a TEXT DEFAULT 'x' || 'y';
INSERT INTO checked (id, cost) VALUES (1, 5);
ALTER TABLE checked ADD COLUMN b DECIMAL(6,2) DEFAULT 1.5;
ALTER TABLE checked ADD COLUMN c TIMESTAMPTZ DEFAULT '2020-02-02 12:00:00+02';
ALTER TABLE checked ADD COLUMN d DATE DEFAULT DATE '2020-02-29';
ALTER TABLE checked ADD COLUMN e BOOLEAN DEFAULT true;
ALTER TABLE checked ADD COLUMN f UUID DEFAULT '550E8400-e29b-41d4-a716-446655440000';
ALTER TABLE checked ADD COLUMN g BLOB DEFAULT '\x00\xFF'::BLOB;
ALTER TABLE checked ADD COLUMN h INT[] DEFAULT [1, 2];
ALTER TABLE checked ADD COLUMN i EMBEDDING(2) DEFAULT [0.5, -1];
ALTER TABLE checked ADD COLUMN j INTERVAL DEFAULT INTERVAL 3 DAY;
ALTER TABLE checked ADD COLUMN k JSON DEFAULT '{"a": 1}';
ALTER TABLE checked ADD COLUMN l DOUBLE DEFAULT 'NaN';
ALTER TABLE checked ADD COLUMN m TEXT[] DEFAULT ['a, b', 'it''s', NULL, '', '"q"', 'back\slash', 'NULL', '[x]'];
ALTER TABLE checked ADD COLUMN n STRUCT("odd name" TEXT, y DOUBLE[]) DEFAULT {'odd name': 'a: ''b'', {c}', 'y': [0.1, 'NaN'::DOUBLE]};
ALTER TABLE checked ADD COLUMN o TEXT DEFAULT '';
ALTER TABLE checked ADD COLUMN p REAL DEFAULT 0.1;
-- pause
SELECT * FROM checked;
---- id, cost, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p
1 | 5 | xy | 1.50 | 2020-02-02 10:00:00+00:00 | 2020-02-29 | true | 550e8400-e29b-41d4-a716-446655440000 | x00ff | [1, 2] | [0.5, -1.0] | 0 months 3 days 0 us | {"a": 1} | NaN | [a, b, it's, NULL, '', "q", back\slash, NULL, [x]] | {odd name: a: 'b', {c}, y: [0.1, NaN]} | '' | 0.10000000149011612

SELECT count(*) FROM checked WHERE b = 1.5 AND c = '2020-02-02 10:00:00+00' AND f = '550e8400-e29b-41d4-a716-446655440000';
----
1

SELECT len(m) AS a, m[3] IS NULL AS b, m[7] IS NULL AS c, m[6] AS d, n.y[1] = 0.1 AS e, p = 0.1::REAL AS f FROM checked;
----
8 | true | false | back\slash | true | true

# A struct that old files lack can be asked for one field alone.
ALTER TABLE checked ADD COLUMN q STRUCT(a INT, b STRUCT(c TEXT));
ALTER TABLE checked ADD COLUMN r INTERVAL;
SELECT q.a, q.b.c, r, checked.q.a FROM checked WHERE q.a IS NULL AND r IS NULL;
----
NULL | NULL | NULL | NULL
