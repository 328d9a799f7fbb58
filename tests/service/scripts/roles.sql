# Who may do what (SEMANTICS §5): the matrix, seen from the outside.  A refusal never tells what exists.

CREATE TABLE open (id BIGINT PRIMARY KEY, v TEXT) WITH (ACCESS_LEVEL='PUBLIC');
CREATE TABLE private (id BIGINT PRIMARY KEY, v TEXT);
CREATE TABLE restricted (id BIGINT PRIMARY KEY, v TEXT) WITH (ACCESS_LEVEL='RESTRICTED');
CREATE TABLE vault (id BIGINT PRIMARY KEY, v TEXT) WITH (ACCESS_LEVEL='DBA');
CREATE NAMESPACE hidden;
CREATE TABLE hidden.t (id BIGINT PRIMARY KEY) WITH (ACCESS_LEVEL='DBA');
INSERT INTO open VALUES (1, 'o');
INSERT INTO private VALUES (1, 'p');
INSERT INTO restricted VALUES (1, 'r');
INSERT INTO vault VALUES (1, 'v');

-- session ann user
SELECT v FROM open;
----
o

INSERT INTO open VALUES (2, 'x');
---- error 42501 write to SHARED tables
SELECT v FROM private;
---- error 42P01 table "private" does not exist
SELECT v FROM restricted;
---- error 42P01 table "restricted" does not exist
SELECT v FROM vault;
---- error 42P01 table "vault" does not exist
SELECT v FROM nothing_at_all;
---- error 42P01 table "nothing_at_all" does not exist
INSERT INTO private VALUES (2, 'x');
---- error 42P01 table "private" does not exist
SELECT (SELECT max(v) FROM private) AS x;
---- error 42P01
WITH a AS (SELECT * FROM open), b AS (SELECT * FROM vault) SELECT * FROM a;
---- error 42P01
DESCRIBE private;
---- error 42P01
SHOW CREATE TABLE vault;
---- error 42P01
SHOW TABLES;
----
main | open | SHARED | PUBLIC | ? | NULL

SHOW NAMESPACES;
----
main | 1 | NULL

USE hidden;
---- error 3F000 hidden
USE never_was;
---- error 3F000 never_was
SHOW TABLES IN hidden;
---- error 3F000 hidden
SELECT table_name FROM information_schema.tables ORDER BY 1;
----
open

SELECT DISTINCT table_name FROM information_schema.columns;
----
open

SELECT * FROM system.tables;
---- error 42501
SELECT * FROM system.jobs;
---- error 42501
SELECT * FROM system.no_such_relation;
---- error 42501
SHOW JOBS;
---- error 42501
CREATE TABLE x (id BIGINT PRIMARY KEY);
---- error 42501
CREATE TABLE x AS SELECT 1 AS a;
---- error 42501
CREATE NAMESPACE x;
---- error 42501
DROP NAMESPACE hidden;
---- error 42501
DROP TABLE open;
---- error 42501
DROP TABLE private;
---- error 42P01
ALTER TABLE open ADD COLUMN y INT;
---- error 42501
FLUSH TABLE open;
---- error 42501
FLUSH TABLE vault;
---- error 42P01
FLUSH ALL TABLES;
---- error 42501
CHECK TABLE open;
---- error 42501
COMMENT ON TABLE open IS 'x';
---- error 42501

-- session svc service
SELECT o.v, p.v, r.v FROM open o, private p, restricted r;
----
o | p | r

INSERT INTO open VALUES (2, 'svc');
INSERT INTO restricted VALUES (2, 'svc');
---- count 1
SELECT v FROM vault;
---- error 42P01 table "vault" does not exist
INSERT INTO vault VALUES (2, 'x');
---- error 42P01
ALTER TABLE vault ADD COLUMN x INT;
---- error 42P01
CREATE TABLE by_svc (id BIGINT PRIMARY KEY);
CREATE TABLE by_svc2 (id BIGINT PRIMARY KEY) WITH (ACCESS_LEVEL='DBA');
---- count 0
SELECT * FROM by_svc2;
---- error 42P01
ALTER TABLE private ADD COLUMN w INT;
CHECK TABLE private;
----
main.private | shared | ? | ? | 1 | NULL

DROP TABLE by_svc;
---- error 42501 drop
CREATE NAMESPACE x;
---- error 42501
SELECT * FROM system.tables;
---- error 42501

-- session boss dba
SELECT v FROM vault;
----
v

INSERT INTO vault VALUES (2, 'boss');
SELECT count(*) > 5 AS many FROM system.tables;
----
true

CREATE NAMESPACE made;
DROP NAMESPACE made;
DROP TABLE by_svc;
DROP TABLE vault;

-- session root system
SELECT table_name FROM system.tables WHERE namespace = 'main' ORDER BY 1;
----
by_svc2
open
private
restricted
