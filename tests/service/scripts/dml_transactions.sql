# BEGIN, COMMIT and ROLLBACK (SEMANTICS §2): snapshot isolation, own writes visible, the first committer wins.

CREATE TABLE t (id BIGINT PRIMARY KEY, v INT);
CREATE TABLE other (id BIGINT PRIMARY KEY, v INT);
INSERT INTO t VALUES (1, 10), (2, 20), (3, 30);
-- pause

BEGIN;
---- count 0
UPDATE t SET v = v + 1 WHERE id = 1;
---- count 1
INSERT INTO t VALUES (4, 40);
---- count 1
DELETE FROM t WHERE id = 2;
---- count 1
INSERT INTO other SELECT id, v FROM t;
---- count 3
SELECT id, v, _seq IS NULL AS mine FROM t ORDER BY id;
---- id, v, mine
1 | 11 | true
3 | 30 | false
4 | 40 | true

-- session watcher system
SELECT * FROM t ORDER BY id;
----
1 | 10
2 | 20
3 | 30

SELECT count(*) AS n FROM other;
----
0

-- session root system
COMMIT;
---- count 0
-- session watcher system
SELECT * FROM t ORDER BY id;
----
1 | 11
3 | 30
4 | 40

SELECT * FROM other ORDER BY id;
----
1 | 11
3 | 30
4 | 40

-- pause
-- session root system
BEGIN;
DELETE FROM t;
---- count 3
INSERT INTO t VALUES (1, 1);
---- count 1
ROLLBACK;
---- count 0
SELECT count(*) AS n, sum(v) AS s FROM t;
----
3 | 81

# A statement that fails writes nothing; the transaction goes on.
BEGIN;
INSERT INTO t VALUES (5, 50);
INSERT INTO t VALUES (6, 60), (5, 51);
---- error 23505 (id) = (5)
INSERT INTO t VALUES (6, 60), (1, 51);
---- error 23505 (id) = (1)
UPDATE t SET id = 5 WHERE id = 1;
---- error 23505 (id) = (5)
UPDATE t SET id = 3 WHERE id = 5;
---- error 23505 (id) = (3)
UPDATE t SET id = 77;
---- error 23505 (id) = (77)
MERGE INTO t USING (SELECT 5 AS id) AS s ON false WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id);
---- error 23505 (id) = (5)
UPDATE t SET v = nope;
---- error 42703
SELECT id, v FROM t ORDER BY id;
----
1 | 11
3 | 30
4 | 40
5 | 50

COMMIT;
-- pause

# Keys may come and go inside.
BEGIN;
DELETE FROM t WHERE id = 5;
INSERT INTO t VALUES (5, 55);
UPDATE t SET id = id + 1 WHERE id IN (3, 4, 5);
---- count 3
UPDATE t SET v = v * 2 WHERE id = 6;
---- count 1
INSERT INTO t VALUES (9, 9);
DELETE FROM t WHERE id = 9;
---- count 1
DELETE FROM t WHERE id = 9;
---- count 0
INSERT INTO t VALUES (1, 0), (8, 8) ON CONFLICT (id) DO UPDATE SET v = t.v + 100;
---- count 2
INSERT INTO t VALUES (8, 0) ON CONFLICT (id) DO UPDATE SET v = t.v + 100;
---- count 1
INSERT OR IGNORE INTO t VALUES (8, 1), (10, 10);
---- count 1
INSERT OR REPLACE INTO t VALUES (10, 11);
---- count 1
UPDATE t SET v = v;
---- count 0
INSERT INTO t VALUES (20, 20) RETURNING id, _seq;
----
20 | NULL

SELECT id, v FROM t ORDER BY id;
----
1 | 111
4 | 30
5 | 40
6 | 110
8 | 108
10 | 11
20 | 20

SELECT id, _seq IS NULL AS mine FROM t WHERE _deleted AND id IN (3, 9);
----
3 | true

COMMIT;
-- pause
SELECT id, v, _seq > 0 AS numbered FROM t ORDER BY id;
----
1 | 111 | true
4 | 30 | true
5 | 40 | true
6 | 110 | true
8 | 108 | true
10 | 11 | true
20 | 20 | true

# The first committer wins: any newer version of a written key is a conflict, said at COMMIT …
-- session ann system
BEGIN;
UPDATE t SET v = 1 WHERE id = 1;
---- count 1
-- session root system
UPDATE t SET v = 2 WHERE id = 1;
---- count 1
-- session ann system
COMMIT;
---- error 40001 key (1) of table "main.t"
SELECT v FROM t WHERE id = 1;
----
2

# … or at the statement, when it is known by then.
BEGIN;
SELECT count(*) > 0 AS x FROM t;
----
true

-- session root system
DELETE FROM t WHERE id = 4;
---- count 1
-- session ann system
UPDATE t SET v = 1 WHERE id = 4;
---- error 40001 key (4) of table "main.t"
INSERT INTO t VALUES (300, 1);
---- count 1
COMMIT;
SELECT count(*) AS n FROM t WHERE id IN (4, 300);
----
1

# A tombstone is a newer version too, and an insert and delete by others in between as well.
-- session ann system
BEGIN;
INSERT INTO t VALUES (400, 1);
-- session root system
INSERT INTO t VALUES (400, 2);
DELETE FROM t WHERE id = 400;
-- session ann system
COMMIT;
---- error 40001 key (400)
SELECT count(*) AS n FROM t WHERE id = 400;
----
0

# The snapshot is taken by the first statement, not by BEGIN, and then holds.
BEGIN;
-- session root system
INSERT INTO t VALUES (500, 1);
-- session ann system
SELECT count(*) AS n FROM t WHERE id >= 500;
----
1

-- session root system
INSERT INTO t VALUES (501, 1);
UPDATE t SET v = 2 WHERE id = 500;
INSERT INTO other VALUES (500, 1);
-- session ann system
SELECT id, v FROM t WHERE id >= 500;
----
500 | 1

SELECT count(*) AS n FROM other WHERE id = 500;
----
0

# Reads are not validated.
INSERT INTO t SELECT 600, sum(v) FROM t WHERE id >= 500;
---- count 1
COMMIT;
SELECT v FROM t WHERE id = 600;
----
1

# What commits by itself runs in a transaction that has written nothing, and not after a write.
BEGIN;
CREATE TABLE inside (id INT PRIMARY KEY);
DROP TABLE inside;
INSERT INTO t VALUES (700, 1);
CREATE TABLE inside (id INT PRIMARY KEY);
---- error 25001
FLUSH TABLE t WAIT;
---- error 25001
ALTER TABLE t ADD COLUMN w INT;
---- error 25001
SELECT count(*) AS n FROM t WHERE id = 700;
----
1

-- session root system
ALTER TABLE t ADD COLUMN w INT DEFAULT 5;
-- session ann system
SELECT * FROM t WHERE id = 700;
---- id, v
700 | 1

COMMIT;
---- error 40001
SELECT count(*) AS n, max(w) AS w FROM t WHERE id >= 600;
----
1 | 5

# The words.
COMMIT;
---- error 25P01 BEGIN
ROLLBACK;
---- count 0
START TRANSACTION;
BEGIN TRANSACTION;
---- error 25001 already
END;
ABORT;
SAVEPOINT a;
---- error 25P01 BEGIN
ROLLBACK TO a;
---- error 25P01
-- pause
SELECT count(*) AS n FROM t WHERE id > 600;
----
0
