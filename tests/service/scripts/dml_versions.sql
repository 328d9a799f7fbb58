# `_seq` and `_deleted`: the newest version of a key is what is seen (SEMANTICS §2, T-17, T-19, T-20).

CREATE TABLE t (id BIGINT PRIMARY KEY, status TEXT, v INT);
CREATE TABLE mark (n INT PRIMARY KEY, seq BIGINT);
INSERT INTO t VALUES (1, 'new', 10), (2, 'new', 20), (3, 'new', 30), (4, 'new', 40);
INSERT INTO mark SELECT 1, max(_seq) FROM t;
-- pause
UPDATE t SET status = 'paid' WHERE id IN (2, 3);
---- count 2
DELETE FROM t WHERE id = 4;
---- count 1
INSERT INTO t VALUES (5, 'new', 50);
INSERT INTO mark SELECT 2, max(_seq) FROM t;
-- pause

# Never in *, named only by name, ordered as the commits were.
SELECT * FROM t ORDER BY id;
---- id, status, v
1 | new | 10
2 | paid | 20
3 | paid | 30
5 | new | 50

SELECT id, _seq > 0 AS s, _deleted FROM t ORDER BY _seq;
---- id, s, _deleted
1 | true | false
2 | true | false
3 | true | false
5 | true | false

SELECT count(*) AS n FROM (SELECT _seq, lag(_seq) OVER (ORDER BY id) AS before FROM t) WHERE before >= _seq;
----
0

# A filter that asks for the superseded value finds nothing (T-19).
SELECT id FROM t WHERE status = 'new' ORDER BY id;
----
1
5

SELECT count(*) AS n, sum(v) AS s, max(v) AS m FROM t WHERE status = 'new';
----
2 | 60 | 50

SELECT count(*) AS n, max(id) AS top FROM t;
----
4 | 5

SELECT id FROM t ORDER BY v DESC LIMIT 2;
----
5
3

# The change feed: the latest version of each key that changed since, deletions too if `_deleted` is selected.
SELECT id, status, v, _deleted FROM t WHERE _seq > (SELECT seq FROM mark WHERE n = 1) ORDER BY id;
---- id, status, v, _deleted
2 | paid | 20 | false
3 | paid | 30 | false
4 | NULL | NULL | true
5 | new | 50 | false

SELECT id, status FROM t WHERE _seq > (SELECT seq FROM mark WHERE n = 1) ORDER BY id;
----
2 | paid
3 | paid
5 | new

SELECT id FROM t WHERE _seq > (SELECT seq FROM mark WHERE n = 2);
----

# An upper bound never brings back what has been superseded.
SELECT id, status FROM t WHERE _seq <= (SELECT seq FROM mark WHERE n = 1) ORDER BY id;
----
1 | new

SELECT id FROM t WHERE _seq <= (SELECT seq FROM mark WHERE n = 1) AND status = 'new' AND id > 1;
----

# Tombstones are shown where the statement filters on `_deleted`, with NULL in all but the key.
SELECT id, status, v, _deleted FROM t WHERE _deleted;
----
4 | NULL | NULL | true

SELECT id, _deleted FROM t WHERE _deleted = true OR id = 1 ORDER BY id;
----
1 | false
4 | true

SELECT id, _deleted FROM t WHERE id = 4;
----

SELECT count(*) AS n FROM t WHERE NOT _deleted;
----
4

# Another reference to the same table is another question.
SELECT a.id, b.id AS other FROM t AS a LEFT JOIN t AS b ON a.id = b.id WHERE a._deleted;
----
4 | NULL

# A re-inserted key has no tombstone any more; one deleted twice has one.
INSERT INTO t VALUES (4, 'back', 44);
-- pause
SELECT id, status, _deleted FROM t WHERE _seq > (SELECT seq FROM mark WHERE n = 2) ORDER BY id;
----
4 | back | false

SELECT id FROM t WHERE _deleted;
----

DELETE FROM t WHERE id = 4;
UPDATE t SET id = 6 WHERE id = 5;
-- pause
SELECT id, status, _deleted FROM t WHERE _seq > (SELECT seq FROM mark WHERE n = 2) ORDER BY id;
----
4 | NULL | true
5 | NULL | true
6 | new | false

# Nobody writes them.
INSERT INTO t (id, _seq) VALUES (9, 1);
---- error 42703 _seq
INSERT INTO t (id, _deleted) VALUES (9, false);
---- error 42703 _deleted
UPDATE t SET _seq = 1;
---- error 428C9 _seq
UPDATE t SET _deleted = true WHERE id = 1;
---- error 428C9 _deleted
INSERT INTO t BY NAME SELECT 9 AS id, 5 AS _seq;
---- error 42703 _seq
SELECT count(*) AS n FROM t;
----
4
