# RETURNING: the rows as they were written, or as they were before they were deleted.

CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT DEFAULT 'nobody', v INT);
INSERT INTO t (id, v) VALUES (1, 10), (2, 20) RETURNING *;
---- id, name, v
1 | nobody | 10
2 | nobody | 20

INSERT INTO t (id, v) SELECT i, i FROM range(3, 6) r(i) RETURNING id + v AS both, upper(name), _seq > 0 AS numbered, _deleted;
---- both, upper("name"), numbered, _deleted
6 | NOBODY | true | false
8 | NOBODY | true | false
10 | NOBODY | true | false

-- pause
UPDATE t SET v = v + 1, name = 'x' WHERE id <= 2 RETURNING id, v, name AS called;
---- id, v, called
1 | 11 | x
2 | 21 | x

# What stays as it is has no new version to return.
UPDATE t SET v = v RETURNING id;
---- id

UPDATE t AS q SET id = id + 10 WHERE q.id = 5 RETURNING q.id, q.v;
----
15 | 5

DELETE FROM t WHERE id = 15 RETURNING *;
---- id, name, v
15 | nobody | 5

DELETE FROM t WHERE id = 15 RETURNING *;
---- id, name, v

-- pause
INSERT INTO t (id, v) VALUES (1, 100), (7, 7) ON CONFLICT (id) DO UPDATE SET v = excluded.v RETURNING id, v, name;
----
7 | 7 | nobody
1 | 100 | x

INSERT INTO t (id) VALUES (1), (8) ON CONFLICT DO NOTHING RETURNING id;
----
8

INSERT OR REPLACE INTO t (id, v) VALUES (8, 80) RETURNING *;
----
8 | nobody | 80

MERGE INTO t USING (SELECT 1 AS id, 1 AS v UNION ALL SELECT 9, 9) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v) RETURNING id, v;
----
9 | 9
1 | 1

# A row that it deletes is shown as it was, as DELETE shows it.
MERGE INTO t USING (SELECT 9 AS id) AS s ON t.id = s.id WHEN MATCHED THEN DELETE RETURNING id, v;
----
9 | 9

INSERT INTO t (id, v) VALUES (9, 9);

# It may ask other tables.
CREATE TABLE seen (n INT PRIMARY KEY);
UPDATE t SET v = 0 WHERE id = 9 RETURNING (SELECT count(*) FROM seen) AS n, v;
----
0 | 0

# An error in RETURNING comes before anything is written.
INSERT INTO t (id) VALUES (50) RETURNING nope;
---- error 42703 nope
DELETE FROM t RETURNING nope;
---- error 42703 nope
INSERT INTO t (id) VALUES (1) RETURNING id;
---- error 23505 (id) = (1)
-- pause
SELECT * FROM t ORDER BY id;
----
1 | x | 1
2 | x | 21
3 | nobody | 3
4 | nobody | 4
7 | nobody | 7
8 | nobody | 80
9 | nobody | 0
