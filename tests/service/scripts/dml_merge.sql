# MERGE INTO (SEMANTICS §2): each row takes the first WHEN that holds for it.

CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT NOT NULL DEFAULT 'nobody', v INT CHECK (v < 1000));
CREATE TABLE src (id BIGINT PRIMARY KEY, name TEXT, v INT, gone BOOLEAN);
INSERT INTO t VALUES (1, 'a', 10), (2, 'b', 20), (3, 'c', 30), (4, 'd', 40);
INSERT INTO src VALUES (2, 'B', 200, false), (3, 'C', 300, true), (4, 'd', 40, false), (5, 'E', 500, false), (6, 'F', 600, true);
-- pause

MERGE INTO t USING src AS s ON t.id = s.id
WHEN MATCHED AND s.gone THEN DELETE
WHEN MATCHED THEN UPDATE SET name = s.name, v = t.v + s.v - t.v
WHEN NOT MATCHED AND NOT s.gone THEN INSERT (id, name, v) VALUES (s.id, s.name, s.v);
---- count 3
SELECT * FROM t ORDER BY id;
----
1 | a | 10
2 | B | 200
4 | d | 40
5 | E | 500

-- pause
# Again: what is as it should be changes nothing.
MERGE INTO t USING src AS s ON t.id = s.id
WHEN MATCHED AND s.gone THEN DELETE
WHEN MATCHED THEN UPDATE SET name = s.name, v = s.v
WHEN NOT MATCHED AND NOT s.gone THEN INSERT (id, name, v) VALUES (s.id, s.name, s.v);
---- count 0

# Rows without source, DO NOTHING, and conditions that are NULL.
MERGE INTO t AS target USING (SELECT id, v FROM src WHERE id = 2) AS s USING (id)
WHEN MATCHED AND s.v > 1000 THEN DELETE
WHEN MATCHED AND NULL THEN DELETE
WHEN MATCHED THEN DO NOTHING
WHEN NOT MATCHED BY SOURCE AND target.id = 5 THEN DELETE
WHEN NOT MATCHED BY SOURCE THEN UPDATE SET v = target.v + 1;
---- count 3
-- pause
SELECT * FROM t ORDER BY id;
----
1 | a | 11
2 | B | 200
4 | d | 41

# Whole rows, by position and by name; columns that are not named take their default.
MERGE INTO t USING (VALUES (1, 'one', 1), (9, 'nine', 9)) AS s(id, name, v) ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *;
---- count 2
MERGE INTO t USING (SELECT 2 AS v, 'two' AS name, 2 AS id) AS s USING (id) WHEN MATCHED THEN UPDATE BY NAME WHEN NOT MATCHED THEN INSERT BY NAME;
---- count 1
MERGE INTO t USING (SELECT 10 AS id) AS s USING (id) WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id);
---- count 1
WITH q AS (SELECT 11 AS id, 11 AS v) MERGE INTO t USING q ON q.id = t.id WHEN NOT MATCHED THEN INSERT (v, id, name) VALUES (q.v, q.id, DEFAULT);
---- count 1
-- pause
SELECT * FROM t ORDER BY id;
----
1 | one | 1
2 | two | 2
4 | d | 41
9 | nine | 9
10 | nobody | NULL
11 | nobody | 11

# A row that is hit twice is refused, whatever the two would do; likewise one key inserted twice (T-23, T-24).
MERGE INTO t USING (SELECT unnest([1, 1]) AS id, unnest([5, 6]) AS v) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v;
---- error 21000
MERGE INTO t USING (SELECT unnest([1, 1]) AS id, unnest([1, 6]) AS v) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v;
---- error 21000
MERGE INTO t USING (SELECT unnest([1, 1]) AS id, unnest([5, 6]) AS v) AS s ON t.id = s.id WHEN MATCHED AND s.v = 5 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v;
---- error 21000
MERGE INTO t USING (SELECT unnest([1, 1]) AS id) AS s ON t.id = s.id WHEN MATCHED THEN DELETE;
---- error 21000
MERGE INTO t USING (SELECT unnest([70, 70]) AS id) AS s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id);
---- error 23505 (id) = (70)
MERGE INTO t USING (SELECT 1 AS id) AS s ON t.id = s.id + 100 WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id);
---- error 23505 (id) = (1)

# Errors write nothing.
MERGE INTO t USING src AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 5000 WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name);
---- error 23514 v < 1000
MERGE INTO t USING src AS s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, NULL);
---- error 23502 name
MERGE INTO t USING src AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET id = 5;
---- error 0A000 primary key
MERGE INTO t USING src AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET _seq = 5;
---- error 428C9 _seq
MERGE INTO t USING src AS s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, _deleted) VALUES (s.id, true);
---- error 42703 _deleted
MERGE INTO t USING src AS s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id);
---- error 42601 values
MERGE INTO t USING src AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET nope = 5;
---- error 42703 nope
MERGE INTO t USING read_csv('/etc/passwd') AS s ON true WHEN MATCHED THEN DELETE;
---- error 0A000 read_csv
MERGE INTO t USING nope AS s ON t.id = s.id WHEN MATCHED THEN DELETE;
---- error 42P01 nope
CREATE VIEW w AS SELECT * FROM t;
MERGE INTO w USING src AS s ON w.id = s.id WHEN MATCHED THEN DELETE;
---- error 42809 view
SELECT count(*) AS n, sum(v) AS s FROM t;
----
6 | 64

# Deleted keys are not matched, even where the statement asks for them; and they may come again (T-17).
DELETE FROM t WHERE id IN (1, 2);
MERGE INTO t USING (SELECT 1 AS id) AS s ON t.id = s.id AND t._deleted WHEN MATCHED THEN UPDATE SET v = 77;
---- count 0
MERGE INTO t USING (SELECT 1 AS id) AS s ON t.id = s.id AND t._deleted IS NOT NULL WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, 78);
---- count 1
MERGE INTO t USING (SELECT 2 AS id) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 1 WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, 79);
---- count 1
MERGE INTO t USING (SELECT 4 AS id) AS s ON false WHEN NOT MATCHED BY SOURCE AND t._deleted THEN UPDATE SET v = 1;
---- count 0
-- pause
SELECT id, name, v FROM t WHERE id <= 4 ORDER BY id;
----
1 | nobody | 78
2 | nobody | 79
4 | d | 41
