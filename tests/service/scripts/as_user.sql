# AS USER: a service acts for its users, with their rights and on their rows (SEMANTICS §5, T-48).

CREATE USER TABLE notes (id BIGINT PRIMARY KEY, text TEXT, by_user TEXT DEFAULT CURRENT_USER, sent_by TEXT DEFAULT CURRENT_ACTOR());
CREATE SHARED TABLE board (id BIGINT PRIMARY KEY, text TEXT) WITH (ACCESS_LEVEL = 'PUBLIC');
INSERT INTO board VALUES (1, 'public');
CREATE SHARED TABLE vault (id BIGINT PRIMARY KEY, text TEXT) WITH (ACCESS_LEVEL = 'DBA');
INSERT INTO vault VALUES (1, 'secret');
CREATE SHARED TABLE staff (id BIGINT PRIMARY KEY, text TEXT);
INSERT INTO staff VALUES (1, 'staff only');

-- session ann user
INSERT INTO notes (id, text) VALUES (1, 'by ann');

-- session bob user
INSERT INTO notes (id, text) VALUES (1, 'by bob');

-- session boss dba
SELECT 1 AS one;

# Every place of the clause.
-- session svc service
INSERT INTO notes AS USER 'ann' (id, text) VALUES (2, 'for ann');
---- count 1
INSERT INTO notes (id, text) VALUES (3, 'at the end') AS USER 'ann';
---- count 1
EXECUTE AS USER 'ann' (INSERT INTO notes (id, text) VALUES (4, 'around'));
---- count 1
INSERT INTO notes AS USER 'bob' (id, text) SELECT id + 10, text FROM notes;
---- count 1
UPDATE notes AS USER 'ann' SET text = 'changed' WHERE id = 3;
---- count 1
DELETE FROM notes AS USER 'ann' WHERE id = 4;
---- count 1
MERGE INTO notes AS USER 'ann' USING (SELECT 5 AS id) AS s ON notes.id = s.id WHEN NOT MATCHED THEN INSERT (id, text) VALUES (s.id, 'merged');
---- count 1
SELECT id, text, by_user, sent_by FROM notes ORDER BY id AS USER 'ann';
---- id, text, by_user, sent_by
1 | by ann | ann | ann
2 | for ann | ann | svc
3 | changed | ann | svc
5 | merged | ann | svc

EXECUTE AS USER 'bob' (SELECT id, text FROM notes ORDER BY id);
---- id, text
1 | by bob
11 | by bob

DELETE FROM notes AS USER 'ann' WHERE id = 5 RETURNING text;
---- text
merged

SELECT * FROM notes;
---- id, text, by_user, sent_by

-- pause

-- session ann user
SELECT id, text FROM notes ORDER BY id;
----
1 | by ann
2 | for ann
3 | changed

-- session bob user
SELECT count(*) AS n FROM notes;
----
2

# Who the statement says it is.
-- session svc service
SELECT CURRENT_USER AS u, CURRENT_ROLE AS r, CURRENT_ACTOR() AS a AS USER 'ann';
---- u, r, a
ann | user | svc

SELECT 'text AS USER ''bob''' AS text, 1 AS user /* AS USER 'bob' */;
---- text, user
text AS USER 'bob' | 1

# Rights are the subject's: acting for another never adds to them.
SELECT text FROM board AS USER 'ann';
----
public

SELECT text FROM staff;
----
staff only

SELECT text FROM staff AS USER 'ann';
---- error 42P01 table "staff" does not exist
SELECT b.text FROM board b JOIN notes n USING (id) AS USER 'ann';
----
public

FLUSH TABLE notes AS USER 'ann';
---- error 42501 flush
DROP TABLE notes AS USER 'ann';
---- error 42501 drop
CREATE SHARED TABLE anns (id BIGINT PRIMARY KEY) AS USER 'ann';
---- error 42501 create SHARED tables
-- session root system
SELECT user_id FROM system.users LIMIT 0 AS USER 'svc';
---- error 42501 system tables
CREATE USER 'eve' WITH PASSWORD 'password of eve' ROLE user AS USER 'svc';
---- error 42501 users

# A SHARED table as the target.
INSERT INTO board AS USER 'ann' VALUES (2, 'x');
---- error 42501 AS USER not supported for Shared tables
INSERT INTO staff AS USER 'ann' VALUES (2, 'x');
---- error 42501 AS USER not supported for Shared tables
UPDATE vault AS USER 'boss' SET text = 'x';
---- error 42501 AS USER not supported for Shared tables
TRUNCATE TABLE board AS USER 'svc';
---- error 42501 AS USER not supported for Shared tables
CREATE TABLE shared_copy AS SELECT * FROM board AS USER 'svc';
---- error 42501 AS USER not supported for Shared tables
SELECT count(*) AS n FROM board;
----
1

-- session svc service
INSERT INTO vault AS USER 'ann' VALUES (2, 'x');
---- error 42P01 table "vault" does not exist
INSERT INTO nowhere AS USER 'ann' VALUES (2, 'x');
---- error 42P01 table "nowhere" does not exist
DELETE FROM vault AS USER 'svc';
---- error 42P01 table "vault" does not exist
DELETE FROM staff AS USER 'ann';
---- error 42501 AS USER not supported for Shared tables

# Subjects: who is not there, and who is out of reach, is one and the same.
INSERT INTO notes AS USER 'nobody' (id) VALUES (9);
---- error 42501 Invalid user_id for AS USER operation
INSERT INTO notes AS USER 'boss' (id) VALUES (9);
---- error 42501 Invalid user_id for AS USER operation
INSERT INTO notes AS USER 'root' (id) VALUES (9);
---- error 42501 Invalid user_id for AS USER operation
INSERT INTO notes AS USER '' (id) VALUES (9);
---- error 42501 Invalid user_id for AS USER operation
INSERT INTO notes AS USER 'ann''--' (id) VALUES (9);
---- error 42501 Invalid user_id for AS USER operation
SELECT 1 AS USER 'ANN';
---- error 42501 Invalid user_id for AS USER operation
SELECT id FROM notes WHERE id = 9;
---- id

-- session ann user
SELECT 1 AS one AS USER 'bob';
---- error 42501 Invalid user_id for AS USER operation
SELECT count(*) AS n FROM notes AS USER 'ann';
----
3

UPDATE notes AS USER 'ann' SET text = 'own' WHERE id = 2;
---- count 1

-- session boss dba
SELECT 1 AS one AS USER 'root';
---- error 42501 Invalid user_id for AS USER operation
SELECT CURRENT_USER AS u AS USER 'boss';
---- u
boss

# Malformed: refused, never run as the actor.
-- session svc service
DELETE FROM notes AS USER WHERE id = 1;
---- error 42601 single quotes
DELETE FROM notes AS USER ann WHERE id = 1;
---- error 42601 single quotes
INSERT INTO notes AS USER 'ann' (id) VALUES (7) AS USER 'ann';
---- error 42601 at most one
EXECUTE AS USER 'ann' (EXECUTE AS USER 'bob' (DELETE FROM notes));
---- error 42601 at most one
BEGIN AS USER 'ann';
---- error 0A000 no AS USER
USE main AS USER 'ann';
---- error 0A000 no AS USER
SHOW timezone AS USER 'ann';
---- error 0A000 no AS USER

# Errors of one user tell nothing of another's rows.
INSERT INTO notes AS USER 'ann' (id) VALUES (1);
---- error 23505 (id) = (1)
INSERT INTO notes AS USER 'bob' (id) VALUES (2);
---- count 1
EXPLAIN (FORMAT JSON) SELECT * FROM notes WHERE id = 99 AS USER 'svc';
----
?

# Names are looked up by the session, rights are the subject's; views are read with the subject's rights.
-- session root system
CREATE VIEW all_staff AS SELECT * FROM staff;
CREATE VIEW my_notes AS SELECT id, text FROM notes;
-- session svc service
SELECT text FROM all_staff AS USER 'ann';
---- error 42P01 table "staff" does not exist
SELECT id FROM my_notes ORDER BY id AS USER 'bob';
----
1
2
11

WITH x AS (SELECT * FROM staff) SELECT text FROM x AS USER 'ann';
---- error 42P01 table "staff" does not exist
SELECT (SELECT max(text) FROM staff) AS t AS USER 'ann';
---- error 42P01 table "staff" does not exist

# In a transaction the rows are the subjects' too.
BEGIN;
INSERT INTO notes AS USER 'ann' (id, text) VALUES (20, 'in a transaction');
INSERT INTO notes AS USER 'bob' (id, text) VALUES (20, 'for bob');
SELECT text FROM notes WHERE id = 20 AS USER 'bob';
----
for bob

COMMIT;
BEGIN;
INSERT INTO notes AS USER 'ann' (id, text) VALUES (21, 'taken back');
ROLLBACK;
-- session ann user
SELECT text FROM notes WHERE id >= 20;
----
in a transaction

# STREAM tables alike.
-- session root system
CREATE STREAM TABLE ticks (id BIGINT PRIMARY KEY, v INT) WITH (TTL_SECONDS = 3600);
-- session svc service
INSERT INTO ticks AS USER 'ann' VALUES (1, 10);
---- count 1
SELECT * FROM ticks;
---- id, v

SELECT * FROM ticks AS USER 'ann';
---- id, v
1 | 10

DELETE FROM ticks AS USER 'bob';
---- count 0
DELETE FROM ticks AS USER 'ann';
---- count 1

# What was recorded.
-- session root system
SELECT DISTINCT action, outcome FROM system.audit_log WHERE actor_user_id = 'svc' AND subject_user_id = 'bob' ORDER BY 1, 2;
---- action, outcome
DELETE | success
INSERT | attempted
INSERT | committed
INSERT | success
SELECT | success

SELECT action, target, outcome, details FROM system.audit_log WHERE subject_user_id = 'ann' AND actor_user_id = 'svc' AND outcome IN ('rolled back', 'failed') ORDER BY audit_id;
----
INSERT | nowhere | failed | {"sqlstate":"42P01"}
INSERT | main.notes | failed | {"sqlstate":"23505"}
INSERT | main.notes | rolled back | ?

SELECT count(*) > 5 AS denied FROM system.audit_log WHERE outcome = 'denied' AND actor_user_id = 'svc';
----
true

SELECT problem FROM (SELECT 1) AS t(problem) WHERE false;
---- problem

CHECK AUDIT;
---- records, first_id, last_id, head, problem
? | 1 | ? | ? | NULL

-- session svc service
CHECK AUDIT;
---- error 42501 system tables
SELECT * FROM system.audit_log;
---- error 42501 system tables
