# INSERT … ON CONFLICT, OR REPLACE, OR IGNORE, BY NAME on rows hot and cold (SEMANTICS §2, T-24).

CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT DEFAULT 'nobody', n INT CHECK (n >= 0), note TEXT);
INSERT INTO t VALUES (1, 'a', 1, 'x'), (2, 'b', 2, 'y');
-- pause

# excluded is the row that was to be inserted; a bare name, or the table's, means the row that is there.
INSERT INTO t (id, name, n) VALUES (1, 'A', 10), (3, 'C', 30) ON CONFLICT (id) DO UPDATE SET name = excluded.name || name, n = t.n + excluded.n;
---- count 2
INSERT INTO t AS x (id, n) VALUES (2, 5) ON CONFLICT (id) DO UPDATE SET n = x.n * excluded.n;
---- count 1
SELECT * FROM t ORDER BY id;
----
1 | Aa | 11 | x
2 | b | 10 | y
3 | C | 30 | NULL

# What the new row does not say is its default, in excluded too.
INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = excluded.name, note = coalesce(excluded.note, 'was null');
---- count 1
INSERT INTO t (id, n) VALUES (1, 11) ON CONFLICT (id) DO UPDATE SET n = excluded.n;
---- count 0
INSERT INTO t (id, n) VALUES (1, 100), (2, 100), (4, 100) ON CONFLICT (id) DO UPDATE SET n = excluded.n WHERE t.n < 11;
---- count 2
INSERT INTO t (id, n) SELECT i, i FROM range(1, 7) r(i) ON CONFLICT (id) DO UPDATE SET note = DEFAULT, n = (SELECT max(o.n) FROM t AS o) + excluded.n;
---- count 6
-- pause
SELECT * FROM t ORDER BY id;
----
1 | nobody | 101 | NULL
2 | b | 102 | NULL
3 | C | 103 | NULL
4 | nobody | 104 | NULL
5 | nobody | 5 | NULL
6 | nobody | 6 | NULL

INSERT INTO t (id, n) VALUES (1, 1) ON CONFLICT DO UPDATE SET n = excluded.n;
---- count 1
INSERT INTO t (id, n) VALUES (1, 2), (9, 9) ON CONFLICT DO NOTHING;
---- count 1
INSERT INTO t (id, n) VALUES (1, 3) ON CONFLICT (id) DO NOTHING;
---- count 0

# A key that was deleted is inserted, not updated.
DELETE FROM t WHERE id IN (5, 6, 9);
---- count 3
INSERT INTO t (id, n) VALUES (5, 50) ON CONFLICT (id) DO UPDATE SET n = -1;
---- count 1
INSERT OR REPLACE INTO t (id, n) VALUES (6, 60);
---- count 1
INSERT INTO t (id, n) VALUES (9, 90) ON CONFLICT DO NOTHING;
---- count 1
-- pause
SELECT id, name, n FROM t WHERE id >= 5 ORDER BY id;
----
5 | nobody | 50
6 | nobody | 60
9 | nobody | 90

# OR REPLACE sets the whole row.
UPDATE t SET note = 'kept?' WHERE id = 6;
INSERT OR REPLACE INTO t BY NAME SELECT 61 AS n, 6 AS id;
---- count 1
INSERT OR IGNORE INTO t BY NAME SELECT 62 AS n, 6 AS id UNION ALL SELECT 70, 7;
---- count 1
SELECT * FROM t WHERE id IN (6, 7) ORDER BY id;
----
6 | nobody | 61 | NULL
7 | nobody | 70 | NULL

# Refusals write nothing.
INSERT INTO t (id, n) VALUES (20, 1), (20, 2) ON CONFLICT (id) DO UPDATE SET n = excluded.n;
---- error 21000 twice
INSERT INTO t (id, n) VALUES (20, 1), (1, 2) ON CONFLICT (name) DO UPDATE SET n = excluded.n;
---- error 42P10 primary key
INSERT INTO t (id, n) VALUES (20, 1), (1, 2) ON CONFLICT (id) DO UPDATE SET id = excluded.id + 1;
---- error 0A000 primary key
INSERT INTO t (id, n) VALUES (20, 1), (1, 2) ON CONFLICT (id) DO UPDATE SET n = -5;
---- error 23514 n >= 0
INSERT INTO t (id, n) VALUES (20, 1), (1, -2) ON CONFLICT (id) DO UPDATE SET n = excluded.n;
---- error 23514 n >= 0
INSERT INTO t (id, n) VALUES (NULL, 1) ON CONFLICT (id) DO UPDATE SET n = excluded.n;
---- error 23502 id
INSERT INTO t (id, n) VALUES (20, 1) ON CONFLICT (id) DO UPDATE SET nope = 1;
---- error 42703 nope
INSERT INTO t (id, n) VALUES (20, 1) ON CONFLICT (id) DO UPDATE SET n = excluded.nope;
---- error 42000 nope
INSERT INTO t (id, n) VALUES (20, 1) ON CONFLICT (id) DO UPDATE SET _seq = 1;
---- error 428C9 _seq
SELECT count(*) AS n FROM t WHERE id = 20;
----
0

# Composite keys.
CREATE TABLE pair (a TEXT, b INT, v INT, PRIMARY KEY (a, b));
INSERT INTO pair VALUES ('x', 1, 1), ('x', 2, 2);
-- pause
INSERT INTO pair VALUES ('x', 1, 10), ('y', 1, 10), ('x', 3, 10) ON CONFLICT (b, a) DO UPDATE SET v = pair.v + excluded.v;
---- count 3
INSERT INTO pair VALUES ('x', 1, 0) ON CONFLICT (a) DO NOTHING;
---- error 42P10 (a, b)
INSERT OR REPLACE INTO pair VALUES ('x', 2, 20), ('x', 2, 21);
---- count 1
-- pause
SELECT * FROM pair ORDER BY a, b;
----
x | 1 | 11
x | 2 | 21
x | 3 | 10
y | 1 | 10
