# A STREAM table: every user's own rows, for a while, never in a file.

CREATE STREAM TABLE presence (device TEXT PRIMARY KEY, place TEXT, n INT DEFAULT 1) WITH (TTL_SECONDS=86400);
---- count 0

-- session ann user
INSERT INTO presence (device, place) VALUES ('phone', 'home'), ('pad', 'desk');
---- count 2
INSERT INTO presence (device) VALUES ('phone');
---- error 23505 (device) = ('phone')
INSERT OR REPLACE INTO presence VALUES ('phone', 'road', 2);
---- count 1
INSERT INTO presence VALUES ('phone', 'nowhere', 3) ON CONFLICT DO NOTHING;
---- count 0

-- session bob user
SELECT count(*) AS n FROM presence;
----
0

INSERT INTO presence (device, place) VALUES ('phone', 'office') RETURNING device, n;
----
phone | 1

-- pause

-- session ann user
SELECT * FROM presence ORDER BY device;
---- device, place, n
pad | desk | 1
phone | road | 2

UPDATE presence SET place = 'x';
---- error 42809 cannot be updated
INSERT INTO presence VALUES ('pad', 'x', 1) ON CONFLICT (device) DO UPDATE SET place = 'x';
---- error 42809 INSERT OR REPLACE
DELETE FROM presence WHERE device = 'pad' RETURNING place;
----
desk

SELECT device, _deleted FROM presence WHERE _seq > 0;
----
phone | false

-- pause

BEGIN;
INSERT INTO presence VALUES ('watch', 'wrist', 1);
---- count 1
DELETE FROM presence WHERE device = 'phone';
---- count 1
SELECT device FROM presence;
----
watch

ROLLBACK;
SELECT device FROM presence;
----
phone

-- session bob user
TRUNCATE presence;
---- count 1

-- session root system
FLUSH TABLE presence;
---- error 42809 STREAM
COMPACT TABLE presence;
---- error 42809 STREAM

-- pause

-- session ann user
SELECT device, place FROM presence;
----
phone | road
