# UPDATE (SEMANTICS §2): nothing is updated in place, and only rows that change count.

CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT NOT NULL DEFAULT 'nobody', v INT CHECK (v < 1000), s TEXT);
INSERT INTO t (id, name, v) VALUES (1, 'a', 10), (2, 'b', 20), (3, 'c', NULL), (4, 'd', 40);
---- count 4

UPDATE t SET v = v + 1 WHERE id <= 3;
---- count 2
SELECT id, v FROM t ORDER BY id;
----
1 | 11
2 | 21
3 | NULL
4 | 40

-- pause

# What stays as it is has no new version and is not counted.
UPDATE t SET v = v;
---- count 0
UPDATE t SET v = 11, name = 'a' WHERE id = 1;
---- count 0
UPDATE t SET v = 40 WHERE id >= 3;
---- count 1
UPDATE t SET v = 1 WHERE id = 99;
---- count 0
UPDATE t SET v = 1 WHERE false;
---- count 0
UPDATE t SET v = 1 WHERE NULL;
---- count 0

# Expressions see the row as it was; DEFAULT, lists, aliases, subqueries and WITH.
UPDATE t SET v = id, name = name || v WHERE id = 1;
---- count 1
UPDATE t SET name = DEFAULT, v = DEFAULT WHERE id = 4;
---- count 1
UPDATE t SET (s, v) = ('list', 7) WHERE id = 2;
---- count 1
UPDATE t AS x SET s = x.name WHERE x.id = 3;
---- count 1
UPDATE main.t SET s = (SELECT max(o.name) FROM t AS o WHERE o.id < t.id) WHERE main.t.id = 4;
---- count 1
WITH top AS (SELECT max(id) AS id FROM t) UPDATE t SET v = 100 WHERE id = (SELECT id FROM top);
---- count 1
-- pause
SELECT * FROM t ORDER BY id;
---- id, name, v, s
1 | a11 | 1 | NULL
2 | b | 7 | list
3 | c | 40 | c
4 | nobody | 100 | c

# UPDATE … FROM.
CREATE TABLE src (id BIGINT, k INT, v INT, PRIMARY KEY (id, k));
INSERT INTO src VALUES (1, 1, 500), (2, 1, 501), (9, 1, 502);
UPDATE t SET v = src.v, s = 'from' FROM src WHERE src.id = t.id AND src.k = 1;
---- count 2
UPDATE t AS x SET v = q.v + 1 FROM (SELECT id, max(v) AS v FROM src GROUP BY id) AS q JOIN range(3) r(i) ON r.i = q.id WHERE q.id = x.id;
---- count 2
SELECT id, v, s FROM t ORDER BY id;
----
1 | 501 | from
2 | 502 | from
3 | 40 | c
4 | 100 | c

# A row that two source rows match is refused, also when one of them would change nothing (T-23).
INSERT INTO src VALUES (1, 2, 501);
UPDATE t SET v = src.v FROM src WHERE src.id = t.id;
---- error 21000 matched by more than one source row
INSERT INTO src VALUES (1, 3, 500);
UPDATE t SET v = src.v FROM src WHERE src.id = t.id AND src.k > 1;
---- error 21000 matched by more than one source row
-- pause

# What a new row may not be, an updated one may not either; the whole statement writes nothing.
UPDATE t SET name = NULL WHERE id = 2;
---- error 23502 name
UPDATE t SET name = CASE WHEN id = 4 THEN NULL ELSE 'all' END;
---- error 23502 name
UPDATE t SET v = v * 10;
---- error 23514 v < 1000
UPDATE t SET v = 5000000000 WHERE id = 1;
---- error 22003
UPDATE t SET v = 'many' WHERE id = 1;
---- error 22P02 many
UPDATE t SET nope = 1;
---- error 42703 nope
UPDATE t SET v = nope;
---- error 42703 nope
UPDATE t SET v = 1, V = 2;
---- error 42601 twice
UPDATE nope SET v = 1;
---- error 42P01 nope
UPDATE t SET v = count(*);
---- error 42000
UPDATE t SET v = 1 WHERE id IN (SELECT id FROM read_csv('/etc/passwd'));
---- error 0A000 read_csv
UPDATE t SET v = 1 FROM read_csv('/etc/passwd') AS x;
---- error 0A000 read_csv
SELECT id, name, v FROM t ORDER BY id;
----
1 | a11 | 501
2 | b | 502
3 | c | 40
4 | nobody | 100

# Views and system tables are not written to.
CREATE VIEW few AS SELECT * FROM t WHERE id < 3;
UPDATE few SET v = 1;
---- error 42809 view
UPDATE system.tables SET name = 'x';
---- error 42809 system table
UPDATE information_schema.tables SET table_name = 'x';
---- error 42809 system table

# A key that is assigned to: a delete and an insert in one statement (T-23).
UPDATE t SET id = id + 1;
---- count 4
SELECT id, name FROM t ORDER BY id;
----
2 | a11
3 | b
4 | c
5 | nobody

UPDATE t SET id = CASE id WHEN 2 THEN 5 WHEN 5 THEN 2 ELSE id END;
---- count 2
-- pause
SELECT id, name FROM t ORDER BY id;
----
2 | nobody
3 | b
4 | c
5 | a11

UPDATE t SET id = 3 WHERE id = 2;
---- error 23505 (id) = (3)
UPDATE t SET id = 50 WHERE id > 3;
---- error 23505 (id) = (50)
UPDATE t SET id = NULL WHERE id = 2;
---- error 23502 id
UPDATE t SET id = id WHERE id = 2;
---- count 0
UPDATE t SET id = 1 WHERE id = 2;
---- count 1
UPDATE t SET id = 2 WHERE id = 1;
---- count 1
-- pause
SELECT id, name FROM t ORDER BY id;
----
2 | nobody
3 | b
4 | c
5 | a11

# Part of a composite key.
UPDATE src SET k = k + 1 WHERE id = 1;
---- count 3
UPDATE src SET k = 2 WHERE id = 1 AND k = 3;
---- error 23505 (id, k) = (1, 2)
UPDATE src SET id = 2, v = 0 WHERE id = 1 AND k > 2;
---- count 2
-- pause
SELECT * FROM src ORDER BY id, k;
----
1 | 2 | 500
2 | 1 | 501
2 | 3 | 0
2 | 4 | 0
9 | 1 | 502

# Text that looks like SQL, comments, quoting and odd names.
CREATE TABLE "od d" ("a""b" INT PRIMARY KEY, "where" TEXT, "set" TEXT);
INSERT INTO "od d" VALUES (1, 'x', 'y');
UPDATE "od d" /* SET "where" = 'no' */ SET "where" = 'a; DELETE FROM "od d" WHERE ''1''', "set" = "where" -- the end
WHERE "a""b" = 1 -- and more
;
---- count 1
SELECT * FROM "od d";
---- a"b, where, set
1 | a; DELETE FROM "od d" WHERE '1' | x
