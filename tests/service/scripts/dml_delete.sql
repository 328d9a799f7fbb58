# DELETE and TRUNCATE (SEMANTICS §2): a delete appends a tombstone, and a deleted key may come again.

CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, v INT NOT NULL);
INSERT INTO t SELECT i, 'n' || i, i * 10 FROM range(1, 11) r(i);
---- count 10
-- pause

DELETE FROM t WHERE id = 3;
---- count 1
DELETE FROM t WHERE id = 3;
---- count 0
DELETE FROM t WHERE v >= 90;
---- count 2
DELETE FROM t WHERE v >= 90;
---- count 0
DELETE FROM t WHERE NULL;
---- count 0
DELETE FROM t WHERE name = 'n3' OR id = 3 OR v = 30;
---- count 0
-- pause
SELECT id FROM t ORDER BY id;
----
1
2
4
5
6
7
8

# A key that was deleted may come again, and the tombstone does not hide it (T-17).
INSERT INTO t VALUES (3, 'again', 1);
---- count 1
INSERT INTO t VALUES (3, 'twice', 1);
---- error 23505 (id) = (3)
-- pause
SELECT * FROM t WHERE id = 3;
----
3 | again | 1

DELETE FROM t WHERE name = 'again';
---- count 1
INSERT OR IGNORE INTO t VALUES (3, 'third', 3);
---- count 1
UPDATE t SET v = 33 WHERE id = 3;
---- count 1
-- pause
SELECT * FROM t WHERE id = 3;
----
3 | third | 33

# DELETE … USING, aliases, subqueries, WITH.  A row that is found twice is deleted once.
CREATE TABLE gone (n INT PRIMARY KEY, id BIGINT);
INSERT INTO gone VALUES (1, 1), (2, 2), (3, 1), (4, 77);
DELETE FROM t USING gone WHERE gone.id = t.id;
---- count 2
DELETE FROM t AS x USING gone g, range(2) r(i) WHERE g.n = x.id AND x.v > r.i;
---- count 2
DELETE FROM t WHERE id IN (SELECT max(id) FROM t);
---- count 1
WITH low AS (SELECT min(id) AS id FROM t) DELETE FROM main.t WHERE main.t.id = (SELECT id FROM low);
---- count 1
-- pause
SELECT id, v FROM t ORDER BY id;
----
6 | 60
7 | 70

# What asks for deleted keys sees them, and still deletes and updates living rows only.
DELETE FROM t WHERE _deleted;
---- count 0
UPDATE t SET v = 0 WHERE _deleted OR id = 6;
---- count 1
UPDATE t SET name = 'risen' WHERE _deleted IS NOT NULL AND id = 3;
---- count 0
DELETE FROM t USING gone WHERE t._deleted AND gone.id = t.id;
---- count 0
DELETE FROM t WHERE "_DELETED" = false AND id = 6;
---- count 1
-- pause
SELECT id, v FROM t ORDER BY id;
----
7 | 70

# Errors change nothing.
DELETE FROM t WHERE nope = 1;
---- error 42703 nope
DELETE FROM nope;
---- error 42P01 nope
DELETE FROM t WHERE id = 'x';
---- error 22P02
DELETE FROM t WHERE 1 / (id - 7) > error('boom');
---- error 22023 boom
DELETE FROM t USING read_csv('/etc/passwd') AS x;
---- error 0A000 read_csv
CREATE VIEW w AS SELECT * FROM t;
DELETE FROM w;
---- error 42809 view
TRUNCATE w;
---- error 42809 view
DELETE FROM system.jobs;
---- error 42809 system table
TRUNCATE TABLE information_schema.columns;
---- error 42809 system table
SELECT count(*) AS n FROM t;
----
1

# TRUNCATE deletes everything that the statement may see, and counts it.
INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2);
TRUNCATE t;
---- count 3
TRUNCATE TABLE t;
---- count 0
SELECT count(*) AS n, sum(v) AS s FROM t;
----
0 | NULL

-- pause
INSERT INTO t VALUES (7, 'new', 7), (1, 'new', 1);
---- count 2
DELETE FROM t;
---- count 2
INSERT INTO t VALUES (7, 'newer', 8);
-- pause
SELECT * FROM t;
----
7 | newer | 8

# Everyone's own rows of a USER table.
CREATE USER TABLE notes (id INT PRIMARY KEY, text TEXT);
INSERT INTO notes VALUES (1, 'root'), (2, 'root');
-- session ann user
INSERT INTO notes VALUES (1, 'ann'), (2, 'ann'), (3, 'ann');
DELETE FROM notes WHERE id = 2;
---- count 1
UPDATE notes SET text = 'mine' WHERE id = 1;
---- count 1
-- session bob user
TRUNCATE notes;
---- count 0
DELETE FROM notes;
---- count 0
UPDATE notes SET text = 'bob';
---- count 0
-- session root system
SELECT * FROM notes ORDER BY id;
----
1 | root
2 | root

TRUNCATE notes;
---- count 2
-- session ann user
-- pause
-- session ann user
SELECT * FROM notes ORDER BY id;
----
1 | mine
3 | ann

DELETE FROM main.t;
---- error 42P01
UPDATE main.t SET v = 1;
---- error 42P01
