# Savepoints: a moment of a transaction to come back to.

CREATE TABLE t (id BIGINT PRIMARY KEY, v INT);
INSERT INTO t VALUES (1, 10), (2, 20);
BEGIN;
INSERT INTO t VALUES (3, 30);
---- count 1
SAVEPOINT a;
---- count 0
UPDATE t SET v = 0;
---- count 3
INSERT INTO t VALUES (4, 40);
---- count 1
ROLLBACK TO SAVEPOINT A;
---- count 0
SELECT * FROM t ORDER BY id;
----
1 | 10
2 | 20
3 | 30

# Going back keeps the savepoint; a statement that fails leaves it alone too.
DELETE FROM t WHERE id = 3;
---- count 1
INSERT INTO t VALUES (1, 1);
---- error 23505
ROLLBACK TO a;
SELECT count(*) AS n FROM t;
----
3

# A name that is taken hides the older one until it is released.
DELETE FROM t WHERE id = 1;
SAVEPOINT a;
DELETE FROM t WHERE id = 2;
ROLLBACK TO a;
SELECT id FROM t ORDER BY id;
----
2
3

RELEASE a;
---- count 0
ROLLBACK TO a;
SELECT id FROM t ORDER BY id;
----
1
2
3

# Those after it go with it.
SAVEPOINT b;
RELEASE SAVEPOINT a;
ROLLBACK TO b;
---- error 3B001
RELEASE nobody;
---- error 3B001 "nobody"
COMMIT;
---- count 0
SELECT * FROM t ORDER BY id;
----
1 | 10
2 | 20
3 | 30

# They end with their transaction; going back to before the first write leaves nothing to commit.
BEGIN;
SAVEPOINT a;
DELETE FROM t;
---- count 3
ROLLBACK TO a;
CREATE TABLE after_all (id BIGINT PRIMARY KEY);
---- count 0
COMMIT;
SELECT count(*) AS n FROM t;
----
3

BEGIN;
ROLLBACK TO a;
---- error 3B001
SAVEPOINT s AS USER 'x';
---- error 0A000 AS USER
ROLLBACK;
