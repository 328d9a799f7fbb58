# INSERT in all its forms (SEMANTICS §1, §2).

CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT DEFAULT 'nobody', v INT, w DOUBLE DEFAULT 1.5);

INSERT INTO t VALUES (1, 'a', 10, 0.5);
---- count 1
INSERT INTO t VALUES (2, 'b', 20, 0.25), (3, DEFAULT, NULL, DEFAULT), (4, NULL, 5 + 5, NULL);
---- count 3
INSERT INTO t (v, id) VALUES (50, 5);
---- count 1
INSERT INTO t (id, name) SELECT id + 100, upper(name) FROM t WHERE id <= 2;
---- count 2
INSERT INTO t SELECT 200, 'sub', 1, 2.0 WHERE false;
---- count 0
INSERT INTO t BY NAME SELECT 'by name' AS name, 300 AS id;
---- count 1
INSERT INTO t BY NAME (SELECT 301 AS ID, 3 AS V);
---- count 1
WITH x AS (SELECT max(id) AS top FROM t) INSERT INTO t (id, v) SELECT top + 1, 7 FROM x;
---- count 1
INSERT INTO t (id) FROM range(400, 403);
---- count 3

-- pause

SELECT * FROM t ORDER BY id;
---- id, name, v, w
1 | a | 10 | 0.5
2 | b | 20 | 0.25
3 | nobody | NULL | 1.5
4 | NULL | 10 | NULL
5 | nobody | 50 | 1.5
101 | A | NULL | 1.5
102 | B | NULL | 1.5
300 | by name | NULL | 1.5
301 | nobody | 3 | 1.5
302 | nobody | 7 | 1.5
400 | nobody | NULL | 1.5
401 | nobody | NULL | 1.5
402 | nobody | NULL | 1.5

# A key that is there is refused, whether it is hot or cold, and the whole statement writes nothing.
INSERT INTO t (id) VALUES (1);
---- error 23505 duplicate key in table "main.t": (id) = (1)
INSERT INTO t (id) VALUES (900), (901), (402);
---- error 23505 (id) = (402)
INSERT INTO t (id) VALUES (900), (900);
---- error 23505 (id) = (900)
INSERT INTO t (id) SELECT id FROM t;
---- error 23505
SELECT count(*) AS n, max(id) AS top FROM t;
---- n, top
13 | 402

# OR IGNORE, ON CONFLICT DO NOTHING and OR REPLACE.
INSERT OR IGNORE INTO t (id, name) VALUES (1, 'ignored'), (10, 'new'), (10, 'twice');
---- count 1
INSERT INTO t (id, name) VALUES (1, 'ignored'), (11, 'new') ON CONFLICT DO NOTHING;
---- count 1
INSERT INTO t (id, name) VALUES (2, 'ignored') ON CONFLICT (id) DO NOTHING;
---- count 0
INSERT INTO t (id, name) VALUES (2, 'x') ON CONFLICT (name) DO NOTHING;
---- error 42P10
INSERT OR REPLACE INTO t (id, name) VALUES (1, 'replaced'), (12, 'fresh');
---- count 2
-- pause
SELECT * FROM t WHERE id IN (1, 2, 10, 11, 12) ORDER BY id;
----
1 | replaced | NULL | 1.5
2 | b | 20 | 0.25
10 | new | NULL | 1.5
11 | new | NULL | 1.5
12 | fresh | NULL | 1.5

INSERT OR REPLACE INTO t VALUES (1, 'third', 1, 1.0);
INSERT OR REPLACE INTO t VALUES (1, 'fourth', 2, 2.0);
SELECT * FROM t WHERE id = 1;
----
1 | fourth | 2 | 2.0

SELECT count(*) AS n FROM t WHERE name IN ('a', 'replaced', 'third');
----
0

# What does not fit is refused and named.
INSERT INTO t (id, nope) VALUES (800, 1);
---- error 42703 nope
INSERT INTO t (id, id) VALUES (800, 1);
---- error 42701 id
INSERT INTO t (id, _seq) VALUES (800, 1);
---- error 42703
INSERT INTO t (id, name) VALUES (800);
---- error 42601 values
INSERT INTO t VALUES (800, 'a', 1, 1.0, 5);
---- error 42601 values
INSERT INTO t (id, name) SELECT 800;
---- error 42601
INSERT INTO t (id) VALUES ('abc');
---- error 22P02 abc
INSERT INTO t (id) VALUES (NULL);
---- error 23502 id
INSERT INTO t (name) VALUES ('no key');
---- error 23502 id
INSERT INTO t (id, v) VALUES (800, 5000000000);
---- error 22003
INSERT INTO t BY NAME SELECT 800 AS id, 1 AS nope;
---- error 42703 nope
INSERT INTO nope VALUES (1);
---- error 42P01 nope
INSERT INTO system.tables VALUES (1);
---- error 42809 system table
SELECT count(*) AS n FROM t WHERE id >= 800;
----
0

INSERT INTO t (id) SELECT id FROM t AS other WHERE other.id > 100000;
---- count 0

# DEFAULT VALUES, and a statement that reads what it writes into.
CREATE TABLE counted (id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(), x INT DEFAULT 3);
INSERT INTO counted DEFAULT VALUES;
INSERT INTO counted (x) VALUES (4), (5);
INSERT INTO counted (x) SELECT x + 10 FROM counted;
---- count 3
SELECT x FROM counted ORDER BY x;
----
3
4
5
13
14
15

SELECT count(DISTINCT id) AS ids, min(id) > 0 AS positive FROM counted;
----
6 | true

# CREATE TABLE AS, with a key and without.
CREATE TABLE plain AS SELECT id, name, v * 2 AS w2, 1::HUGEINT AS h, 1.5 AS d FROM t WHERE id < 10;
---- count 5
SELECT * FROM plain ORDER BY id;
---- id, name, w2, h, d
1 | fourth | 4 | 1 | 1.5
2 | b | 40 | 1 | 1.5
3 | nobody | NULL | 1 | 1.5
4 | NULL | 20 | 1 | 1.5
5 | nobody | 100 | 1 | 1.5

# Without a key the same rows may stand in a table twice.
INSERT INTO plain SELECT * FROM plain WHERE id = 1;
---- count 1
-- pause
SELECT count(*) AS n FROM plain WHERE id = 1;
----
2

SELECT column_name, column_type FROM (DESCRIBE plain);
---- error 0A000 DESCRIBE

DESCRIBE plain;
----
id | BIGINT | YES | NULL | NULL | NULL
name | TEXT | YES | NULL | NULL | NULL
w2 | INT | YES | NULL | NULL | NULL
h | DECIMAL(38,0) | YES | NULL | NULL | NULL
d | DECIMAL(2,1) | YES | NULL | NULL | NULL

CREATE TABLE keyed (PRIMARY KEY (id)) AS SELECT id, name FROM t WHERE id < 4;
---- count 3
INSERT INTO keyed VALUES (2, 'x');
---- error 23505 (id) = (2)
CREATE TABLE twice (PRIMARY KEY (name)) AS SELECT name FROM t WHERE name = 'new';
---- error 23505 new
SELECT * FROM twice;
---- error 42P01 twice
CREATE TABLE keyed AS SELECT 1 AS x;
---- error 42P07 keyed
CREATE TABLE IF NOT EXISTS keyed AS SELECT 1 AS x;
---- count 0
CREATE TABLE nulls (PRIMARY KEY (v)) AS SELECT v FROM t;
---- error 23502 v
CREATE TABLE empty AS SELECT * FROM t LIMIT 0;
---- count 0
SELECT count(*) FROM empty;
----
0

# Texts that look like more than one statement, comments and odd quoting are only texts.
INSERT INTO t (id, name) VALUES (1000, 'a; DROP TABLE t; --'), (1001, '/* no */ ''quoted'' "x"') -- the end
;
---- count 2
SELECT name FROM t WHERE id >= 1000 ORDER BY id;
----
a; DROP TABLE t; --
/* no */ 'quoted' "x"
