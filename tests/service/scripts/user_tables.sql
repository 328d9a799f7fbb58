# USER tables: each row belongs to one user, and nobody sees another's, whatever their role (SEMANTICS §1, §5).

CREATE USER TABLE notes (id BIGINT PRIMARY KEY, text TEXT, by_user TEXT DEFAULT CURRENT_USER);
---- count 0

-- session ann user
INSERT INTO notes (id, text) VALUES (1, 'ann 1'), (2, 'ann 2');
---- count 2

-- session bob user
SELECT count(*) AS n FROM notes;
----
0

INSERT INTO notes (id, text) VALUES (1, 'bob 1');
---- count 1
INSERT INTO notes (id, text) VALUES (1, 'bob again');
---- error 23505 (id) = (1)

-- session ann user
SELECT * FROM notes ORDER BY id;
---- id, text, by_user
1 | ann 1 | ann
2 | ann 2 | ann

-- session root system
SELECT count(*) AS n FROM notes;
----
0

INSERT INTO notes (id, text) VALUES (2, 'root 2');

-- pause

-- session bob user
SELECT id, text FROM notes ORDER BY id;
----
1 | bob 1

INSERT OR REPLACE INTO notes (id, text) VALUES (1, 'bob new'), (2, 'bob 2');
---- count 2
SELECT text FROM notes WHERE id = 1;
----
bob new

SELECT a.text FROM notes a JOIN notes b USING (id) WHERE a.id = 2;
----
bob 2

-- session ann user
SELECT text FROM notes WHERE id IN (1, 2) ORDER BY id;
----
ann 1
ann 2

SELECT count(*) AS n, max(_seq) > 0 AS has_seq FROM notes;
----
2 | true

-- session svc service
SELECT * FROM notes;
----

-- session boss dba
SELECT count(*) AS n FROM notes WHERE id = 1;
----
0

# Names that look like paths stay in their own folder (§3).
-- session ../../etc user
INSERT INTO notes (id, text) VALUES (1, 'dots');

-- session a/b user
INSERT INTO notes (id, text) VALUES (1, 'slash');

-- session Ann user
INSERT INTO notes (id, text) VALUES (1, 'another Ann');

-- session é🦆%2F user
INSERT INTO notes (id, text) VALUES (1, 'duck');

-- pause

-- session ../../etc user
SELECT text, by_user FROM notes;
----
dots | ../../etc

-- session a/b user
SELECT text FROM notes;
----
slash

-- session Ann user
SELECT text FROM notes;
----
another Ann

-- session é🦆%2F user
SELECT text FROM notes;
----
duck

-- session ann user
SELECT count(*) AS n FROM notes;
----
2

# A user makes tables of their own kind; the rows are still each user's own.
CREATE TABLE mine (id BIGINT PRIMARY KEY);
---- error 42501 create SHARED tables
CREATE USER TABLE mine (id BIGINT PRIMARY KEY, v INT);
INSERT INTO mine VALUES (1, 1);
ALTER TABLE mine ADD COLUMN w INT DEFAULT 5;
SELECT * FROM mine;
---- id, v, w
1 | 1 | 5

DROP TABLE mine;
---- error 42501 drop

-- session bob user
SELECT * FROM mine;
---- id, v, w

INSERT INTO mine VALUES (1, 2, 3);
ALTER TABLE mine ADD COLUMN bobs INT;
---- error 42501 alter
CREATE USER TABLE copy AS SELECT * FROM notes;
---- count 2

-- session ann user
SELECT * FROM copy;
---- id, text, by_user

INSERT INTO mine SELECT id, 1, 1 FROM notes ON CONFLICT DO NOTHING;
---- count 1
SELECT * FROM mine ORDER BY id;
----
1 | 1 | 5
2 | 1 | 1

-- session bob user
SELECT * FROM mine;
----
1 | 2 | 3

-- session root system
SELECT * FROM mine;
---- id, v, w

DROP TABLE mine;

-- session bob user
SELECT * FROM mine;
---- error 42P01 mine
