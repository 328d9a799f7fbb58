# information_schema and system: what exists, as tables (SEMANTICS §6).

CREATE NAMESPACE shop;
CREATE TABLE shop.t (id BIGINT, "Part No" TEXT NOT NULL DEFAULT 'x', price DECIMAL(9,2), at TIMESTAMPTZ, PRIMARY KEY (id, "Part No"));
CREATE USER TABLE u (id UUID PRIMARY KEY, e EMBEDDING(3));
CREATE VIEW v AS SELECT id, price * 2 AS twice FROM shop.t;
CREATE TABLE hidden_key AS SELECT 1 AS a;

-- pause

SELECT table_catalog, table_schema, table_name, table_type, is_insertable_into FROM information_schema.tables WHERE table_schema NOT IN ('information_schema', 'system') ORDER BY 2, 3;
---- table_catalog, table_schema, table_name, table_type, is_insertable_into
flightkalam | main | hidden_key | BASE TABLE | YES
flightkalam | main | u | BASE TABLE | YES
flightkalam | main | v | VIEW | NO
flightkalam | shop | t | BASE TABLE | YES

SELECT column_name, ordinal_position, column_default, is_nullable, data_type, numeric_precision, numeric_scale FROM information_schema.columns WHERE table_name = 't' ORDER BY 2;
---- column_name, ordinal_position, column_default, is_nullable, data_type, numeric_precision, numeric_scale
id | 1 | NULL | NO | BIGINT | 64 | 0
Part No | 2 | 'x' | NO | TEXT | NULL | NULL
price | 3 | NULL | YES | DECIMAL(9,2) | 9 | 2
at | 4 | NULL | YES | TIMESTAMPTZ | NULL | NULL

SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'hidden_key';
----
a | INT

SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'v' ORDER BY ordinal_position;
----
id | BIGINT
twice | DECIMAL(18,2)

SELECT schema_name FROM information_schema.schemata ORDER BY 1;
----
main
shop

SELECT namespace, table_name, table_type, access_level FROM system.tables WHERE namespace IN ('main', 'shop') ORDER BY 1, 2;
---- namespace, table_name, table_type, access_level
main | hidden_key | SHARED | PRIVATE
main | u | USER | NULL
main | v | VIEW | NULL
shop | t | SHARED | PRIVATE

SELECT namespace FROM system.namespaces WHERE namespace IN ('main', 'shop') ORDER BY 1;
----
main
shop

SELECT c.table_name, c.column_name FROM system.columns c JOIN system.tables t USING (namespace, table_name) WHERE t.table_type = 'USER' ORDER BY 1, 2;
----
u | e
u | id

# system is read-only, and joins with tables.
INSERT INTO system.tables SELECT * FROM system.tables;
---- error 42809 system table
DROP TABLE system.tables;
---- error 42P01 system.tables
CREATE TABLE system.mine (id BIGINT PRIMARY KEY);
---- error 3F000
CREATE TABLE information_schema.mine (id BIGINT PRIMARY KEY);
---- error 3F000
ALTER TABLE system.tables ADD COLUMN x INT;
---- error 42809 system table
DROP NAMESPACE system;
---- error 42939 reserved
SELECT * FROM pg_catalog.pg_tables;
---- error 42P01
SELECT * FROM duckdb_tables();
---- error 0A000 duckdb_tables
SELECT * FROM sqlite_master;
---- error 42P01
SELECT * FROM pg_tables;
---- error 42P01

# Jobs leave a record.
INSERT INTO shop.t VALUES (1, 'a', 2.5, NULL), (2, 'b', 3.5, NULL);
FLUSH TABLE shop.t WAIT;
---- job_id, table, status, result
? | shop.t | completed | ?

SELECT DISTINCT kind, status, error FROM system.jobs WHERE kind = 'flush';
---- kind, status, error
flush | completed | NULL

SELECT starts_with(job_id, 'FL-') AS a, json_valid(parameters) AS b, created_at <= finished_at AS c FROM system.jobs ORDER BY created_at DESC LIMIT 1;
----
true | true | true

# A flush with nothing to do is a job, too.
FLUSH TABLE shop.t WAIT;
----
? | shop.t | completed | ?

FLUSH ALL TABLES IN NAMESPACE shop WAIT;
----
? | NULL | completed | ?

STORAGE FLUSH TABLE shop.t WAIT;
----
? | shop.t | completed | ?

STORAGE FLUSH ALL IN shop WAIT;
----
? | NULL | completed | ?

FLUSH TABLE nope;
---- error 42P01 nope

FLUSH TABLE v;
---- error 42809 view

CHECK TABLE shop.t;
---- table, scope, batches, versions, visible_rows, problem
shop.t | shared | ? | 2 | 2 | NULL

SELECT id, "part no", price FROM shop.t ORDER BY id;
---- id, Part No, price
1 | a | 2.50
2 | b | 3.50

SHOW timezone;
---- timezone
UTC

SET TimeZone = 'Nowhere/City';
---- error 22023 Nowhere/City
SET statement_timeout = '5s';
SHOW statement_timeout;
----
5000ms

SET memory_limit = '1GB';
---- error 0A000 memory_limit
SET threads TO 4;
---- error 0A000 threads
SHOW memory_limit;
---- error 0A000
RESET ALL;
SHOW statement_timeout;
----
0
