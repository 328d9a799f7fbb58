# Table options, DESCRIBE and SHOW (SEMANTICS §1).

CREATE TABLE a (id BIGINT PRIMARY KEY) WITH (FLUSH_POLICI='rows:5');
---- error 22023 did you mean FLUSH_POLICY?
CREATE TABLE a (id BIGINT PRIMARY KEY) WITH (FLUSH_POLICY='often');
---- error 22023 FLUSH_POLICY
CREATE TABLE a (id BIGINT PRIMARY KEY) WITH (COMPACTION='auto', COMPACTION='manual');
---- error 42601 given twice
CREATE USER TABLE a (id BIGINT PRIMARY KEY) WITH (TYPE='SHARED');
---- error 22023 disagrees
CREATE USER TABLE a (id BIGINT PRIMARY KEY) WITH (ACCESS_LEVEL='PUBLIC');
---- error 22023 ACCESS_LEVEL
CREATE TABLE a (id BIGINT PRIMARY KEY) WITH (ACCESS_LEVEL='EVERYBODY');
---- error 22023 PUBLIC
CREATE TABLE a (id BIGINT PRIMARY KEY) WITH (TTL_SECONDS=10);
---- error 22023 TTL_SECONDS
CREATE STREAM TABLE a (id BIGINT PRIMARY KEY);
---- error 22023 TTL_SECONDS
CREATE TABLE a (id BIGINT PRIMARY KEY) WITH (BLOOM_FILTER_COLUMNS='nope');
---- error 42703 nope
CREATE TABLE a (id BIGINT PRIMARY KEY) WITH (BLOOM_FILTER_FPP=2);
---- error 22023 BLOOM_FILTER_FPP
CREATE TABLE a (id BIGINT PRIMARY KEY, d DOUBLE) WITH (BLOOM_FILTER_COLUMNS='d');
---- error 22023 DOUBLE
CREATE TABLE a (id BIGINT PRIMARY KEY, x TEXT) WITH (ROW_RETENTION='30d BY x');
---- error 22023 ROW_RETENTION
SHOW TABLES;
----

CREATE TABLE a (
    id BIGINT, part TEXT, ts TIMESTAMPTZ NOT NULL DEFAULT now(), x DECIMAL(9,3) DEFAULT 1.5, e EMBEDDING(4), j JSON,
    l INT[], s STRUCT(a INT, b TEXT), PRIMARY KEY (part, id), CONSTRAINT positive CHECK (x > 0)
) WITH (FLUSH_POLICY='rows:500,interval:60', DELETED_RETENTION_HOURS=24, ROW_RETENTION='30d BY ts',
        BLOOM_FILTER_COLUMNS='id,part', BLOOM_FILTER_FPP=0.001, COMPACTION='manual', ACCESS_LEVEL='PUBLIC');
CREATE USER TABLE b (id BIGINT PRIMARY KEY);
CREATE TABLE c (id BIGINT PRIMARY KEY) WITH (TYPE='USER');
CREATE STREAM TABLE d (id BIGINT PRIMARY KEY) WITH (TTL_SECONDS=10);

-- pause

DESCRIBE a;
---- column_name, column_type, null, key, default, comment
id | BIGINT | NO | PRI | NULL | NULL
part | TEXT | NO | PRI | NULL | NULL
ts | TIMESTAMPTZ | NO | NULL | now() | NULL
x | DECIMAL(9,3) | YES | NULL | 1.5 | NULL
e | EMBEDDING(4) | YES | NULL | NULL | NULL
j | JSON | YES | NULL | NULL | NULL
l | INT[] | YES | NULL | NULL | NULL
s | STRUCT("a" INT, "b" TEXT) | YES | NULL | NULL | NULL

DESCRIBE TABLE b;
----
id | BIGINT | NO | PRI | NULL | NULL

DESCRIBE SELECT id, part, 1 AS one, x / 2 AS half FROM a;
---- column_name, column_type, null, key, default, comment
id | BIGINT | YES | NULL | NULL | NULL
part | TEXT | YES | NULL | NULL | NULL
one | INT | YES | NULL | NULL | NULL
half | DOUBLE | YES | NULL | NULL | NULL

DESCRIBE nope;
---- error 42P01 nope

SHOW TABLES;
---- namespace, table_name, table_type, access_level, created_at, comment
main | a | SHARED | PUBLIC | ? | NULL
main | b | USER | NULL | ? | NULL
main | c | USER | NULL | ? | NULL
main | d | STREAM | NULL | ? | NULL

SHOW TABLES IN nowhere;
---- error 3F000 nowhere

COMMENT ON TABLE a IS 'all of it';
COMMENT ON COLUMN a.x IS 'it''s more than 0';
COMMENT ON NAMESPACE main IS 'home';

-- pause

SELECT namespace, table_name, table_type, access_level, comment FROM system.tables WHERE namespace = 'main' ORDER BY 2;
---- namespace, table_name, table_type, access_level, comment
main | a | SHARED | PUBLIC | all of it
main | b | USER | NULL | NULL
main | c | USER | NULL | NULL
main | d | STREAM | NULL | NULL

SHOW NAMESPACES;
----
main | 4 | home

SHOW COLUMNS FROM a;
----
id | BIGINT | NO | PRI | NULL | NULL
part | TEXT | NO | PRI | NULL | NULL
ts | TIMESTAMPTZ | NO | NULL | now() | NULL
x | DECIMAL(9,3) | YES | NULL | 1.5 | it's more than 0
e | EMBEDDING(4) | YES | NULL | NULL | NULL
j | JSON | YES | NULL | NULL | NULL
l | INT[] | YES | NULL | NULL | NULL
s | STRUCT("a" INT, "b" TEXT) | YES | NULL | NULL | NULL

ALTER TABLE a SET OPTIONS (FLUSH_POLICY='interval:5', COMPACTION='auto');
ALTER TABLE a SET OPTIONS (TYPE='USER');
---- error 0A000 TYPE
ALTER TABLE a SET OPTIONS (WRONG='x');
---- error 22023 WRONG
ALTER TABLE d SET OPTIONS (FLUSH_POLICY='rows:5');
---- error 22023 STREAM

SHOW CREATE TABLE b;
---- table_name, statement
main.b | CREATE USER TABLE main.b (\n    id BIGINT,\n    PRIMARY KEY (id)\n)

SHOW CREATE TABLE d;
----
main.d | CREATE STREAM TABLE main.d (\n    id BIGINT,\n    PRIMARY KEY (id)\n) WITH (TTL_SECONDS = 10)

SHOW CREATE TABLE nope;
---- error 42P01 nope

FLUSH TABLE d;
---- error 42809 STREAM

# What SHOW CREATE TABLE says makes the same table again.
CREATE TABLE quoted ("Order" BIGINT, "a ""b""" TEXT DEFAULT 'it''s -- no comment', CHECK ("Order" > 0 -- positive
), PRIMARY KEY ("Order"));
SHOW CREATE TABLE quoted;
----
main.quoted | ?

INSERT INTO quoted ("order") VALUES (1);
SELECT * FROM quoted;
---- Order, a "b"
1 | it's -- no comment
