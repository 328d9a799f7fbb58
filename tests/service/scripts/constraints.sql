# NOT NULL, CHECK, defaults and the functions of FlightKalam (SEMANTICS §1).

CREATE TABLE t (
    id BIGINT PRIMARY KEY, qty INT NOT NULL CHECK (qty > 0), price DECIMAL(10,2),
    CONSTRAINT sane CHECK (price IS NULL OR price * qty < 1000), CHECK (length(note) <= 5), note TEXT
);
INSERT INTO t VALUES (1, 1, 10, 'abc'), (2, 5, NULL, NULL);
---- count 2
INSERT INTO t VALUES (3, 0, 1, 'x');
---- error 23514 qty > 0
INSERT INTO t VALUES (3, 1, 1, 'x'), (4, 1, 1, 'too long'), (5, 1, 1, 'y');
---- error 23514 length(note) <= 5
INSERT INTO t VALUES (3, 100, 10, NULL);
---- error 23514 sane
INSERT INTO t (id) VALUES (3);
---- error 23502 qty
INSERT INTO t SELECT id + 10, qty - 1, price, note FROM t;
---- error 23514 qty > 0
INSERT OR REPLACE INTO t VALUES (1, -1, 1, NULL);
---- error 23514
INSERT OR IGNORE INTO t VALUES (9, NULL, 1, NULL);
---- error 23502 qty

-- pause

SELECT * FROM t ORDER BY id;
----
1 | 1 | 10.00 | abc
2 | 5 | NULL | NULL

# NULL passes a CHECK, as in SQL.
INSERT INTO t VALUES (3, 1, NULL, NULL);
---- count 1

CREATE TABLE f (
    id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(), u UUID DEFAULT UUID_V7(), l TEXT DEFAULT ULID(), by_user TEXT DEFAULT CURRENT_USER,
    by_role TEXT DEFAULT CURRENT_ROLE, actor TEXT DEFAULT CURRENT_ACTOR(), made TIMESTAMPTZ DEFAULT NOW(), day DATE DEFAULT CURRENT_DATE,
    n INT DEFAULT 1 + 1, s TEXT DEFAULT 'it''s', r DOUBLE DEFAULT random(), x INT
);
INSERT INTO f (x) SELECT i FROM range(50) r(i);
---- count 50
INSERT INTO f (x) VALUES (50), (51), (52);
---- count 3
INSERT INTO f DEFAULT VALUES;

-- pause

SELECT count(*) AS n, count(DISTINCT id) AS ids, count(DISTINCT u) AS us, count(DISTINCT l) AS ls, count(DISTINCT r) > 50 AS rs FROM f;
---- n, ids, us, ls, rs
54 | 54 | 54 | 54 | true

SELECT DISTINCT by_user, by_role, actor, n, s, abs(epoch(now()) - epoch(made)) < 3600 AS recent FROM f;
----
root | system | root | 2 | it's | true

SELECT min(id) > (epoch_ms(now()::TIMESTAMP) - 1704067200000 - 3600000) << 22 AS young, min(id) > 0 AS positive FROM f;
----
true | true

SELECT DISTINCT length(u::TEXT) AS lu, substr(u::TEXT, 15, 1) AS version, length(l) AS ll FROM f;
----
36 | 7 | 26

# Ids and ULIDs grow with time.
SELECT count(*) AS bad FROM (SELECT id, lag(id) OVER (ORDER BY x) AS before FROM f WHERE x >= 50) WHERE before >= id;
----
0

SELECT current_user AS a, user AS b, session_user AS c, current_role AS d, current_actor() AS e, current_schema() AS f, current_database() AS g;
---- a, b, c, d, e, f, g
root | root | root | system | root | main | flightkalam

SELECT starts_with(version(), 'FlightKalam') AS v;
---- v
true

SELECT snowflake_id() <> snowflake_id() AS a, uuid_v7() <> uuid_v7() AS b, ulid() <> ulid() AS c, length(ulid()) AS n;
----
true | true | true | 26

SELECT count(DISTINCT snowflake_id()) AS n FROM range(10000);
----
10000

# SERIAL, AUTO_INCREMENT and IDENTITY are all the same default.
CREATE TABLE s1 (id SERIAL PRIMARY KEY, x INT);
CREATE TABLE s2 (id BIGINT AUTO_INCREMENT PRIMARY KEY, x INT);
CREATE TABLE s3 (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, x INT);
INSERT INTO s1 (x) VALUES (1), (2);
INSERT INTO s2 (x) VALUES (1), (2);
INSERT INTO s3 (x) VALUES (1), (2);
SELECT (SELECT count(DISTINCT id) FROM s1) + (SELECT count(DISTINCT id) FROM s2) + (SELECT count(DISTINCT id) FROM s3) AS n;
----
6

DESCRIBE s1;
----
id | BIGINT | NO | PRI | SNOWFLAKE_ID() | NULL
x | INT | YES | NULL | NULL | NULL

CREATE TABLE bad (id BIGINT PRIMARY KEY, x TEXT DEFAULT getenv('HOME'));
---- error 0A000 getenv
CREATE TABLE bad (id BIGINT PRIMARY KEY, x INT DEFAULT 'abc');
---- error 22P02 abc
CREATE TABLE bad (id TEXT SERIAL PRIMARY KEY);
---- error 42601

# Times in the session's zone, and the statement's one moment.
SELECT now() = now() AS same, current_timestamp = now() AS too;
----
true | true
