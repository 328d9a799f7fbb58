# Keys of every type, single and composite: unique hot and cold, found again by every literal that equals them
# (T-21, T-22, T-28, T-30, T-35).

CREATE TABLE k_bigint (k BIGINT PRIMARY KEY, v INT);
INSERT INTO k_bigint VALUES (-9223372036854775808, 1), (-1, 2), (0, 3), (9223372036854775807, 4);
-- pause
INSERT INTO k_bigint VALUES (-9223372036854775808, 9);
---- error 23505 -9223372036854775808
SELECT v FROM k_bigint WHERE k = 9223372036854775807;
----
4

SELECT v FROM k_bigint WHERE k = -1.0;
----
2

SELECT v FROM k_bigint WHERE k = '0';
----
3

SELECT v FROM k_bigint WHERE k = 0.5;
----

SELECT v FROM k_bigint WHERE k IN (0, -1, 77) ORDER BY v;
----
2
3

SELECT v FROM k_bigint WHERE k = -1::SMALLINT OR k = 0::DECIMAL(10,2) ORDER BY v;
----
2
3

CREATE TABLE k_text (k TEXT PRIMARY KEY, v INT);
INSERT INTO k_text VALUES ('', 1), ('a', 2), ('A', 3), ('é', 4), ('e' || chr(769), 5), ('🦆', 6), ('a ', 7), (repeat('x', 5000), 8), ('a' || chr(0) || 'b', 9);
---- count 9
-- pause
INSERT INTO k_text VALUES ('', 9);
---- error 23505 ('')
INSERT INTO k_text VALUES ('🦆', 9);
---- error 23505 🦆
INSERT INTO k_text VALUES (repeat('x', 5000), 9);
---- error 23505
INSERT INTO k_text VALUES ('a' || chr(0) || 'b', 9);
---- error 23505
INSERT INTO k_text VALUES ('a' || chr(0), 10);
---- count 1
SELECT v FROM k_text WHERE k = 'A';
----
3

SELECT v FROM k_text WHERE k IN ('é', '') ORDER BY v;
----
1
4

SELECT v FROM k_text WHERE k = repeat('x', 5000);
----
8

SELECT v FROM k_text WHERE k LIKE 'a%' ORDER BY v;
----
2
7
9
10

SELECT v FROM k_text WHERE k = 'nothing of the kind';
----

CREATE TABLE k_uuid (k UUID PRIMARY KEY, v INT);
INSERT INTO k_uuid VALUES ('550e8400-e29b-41d4-a716-446655440000', 1), ('ffffffff-ffff-ffff-ffff-ffffffffffff', 2), ('00000000-0000-0000-0000-000000000000', 3);
-- pause
INSERT INTO k_uuid VALUES ('550E8400-E29B-41D4-A716-446655440000', 9);
---- error 23505 550e8400
INSERT INTO k_uuid VALUES ('550e8400e29b41d4a716446655440000', 9);
---- error 23505 550e8400
SELECT v FROM k_uuid WHERE k = '550E8400-e29b-41d4-a716-446655440000';
----
1

SELECT v FROM k_uuid WHERE k = UUID 'FFFFFFFF-ffff-ffff-ffff-ffffffffffff';
----
2

SELECT v FROM k_uuid WHERE k > '0fffffff-0000-0000-0000-000000000000' ORDER BY k;
----
1
2

INSERT INTO k_uuid VALUES ('not a uuid', 9);
---- error 22P02 not a uuid

CREATE TABLE k_decimal (k DECIMAL(38,4) PRIMARY KEY, v INT);
INSERT INTO k_decimal VALUES (1.5, 1), (-0.0001, 2), (0, 3), (9999999999999999999999999999999999.9999, 4);
-- pause
INSERT INTO k_decimal VALUES (1.5000, 9);
---- error 23505 1.5
INSERT INTO k_decimal VALUES (-0.0, 9);
---- error 23505
SELECT v FROM k_decimal WHERE k = 1.5;
----
1

SELECT v FROM k_decimal WHERE k = 1.50 OR k = '-0.0001' OR k = 0 ORDER BY v;
----
1
2
3

SELECT v FROM k_decimal WHERE k > 1000;
----
4

CREATE TABLE k_date (k DATE PRIMARY KEY, v INT);
INSERT INTO k_date VALUES ('2020-02-29', 1), ('0001-01-01', 2), ('9999-12-31', 3);
-- pause
INSERT INTO k_date VALUES (DATE '2020-02-29', 9);
---- error 23505 (k) = (2020-02-29)
SELECT v FROM k_date WHERE k = '2020-02-29';
----
1

SELECT v FROM k_date WHERE k = TIMESTAMP '2020-02-29 00:00:00';
----
1

SELECT v FROM k_date WHERE k = TIMESTAMP '2020-02-29 00:00:01';
----

INSERT INTO k_date VALUES ('294247-01-01', 4);

INSERT INTO k_date VALUES ('294247-01-01', 4);
---- error 23505 (k) = (

SELECT v FROM k_date WHERE k BETWEEN '0001-01-01' AND '2020-03-01' ORDER BY k;
----
2
1

CREATE TABLE k_ts (k TIMESTAMPTZ PRIMARY KEY, v INT);
INSERT INTO k_ts VALUES ('2020-06-01 12:00:00+02', 1), ('2020-06-01 12:00:00.000001+00', 2);
-- pause
INSERT INTO k_ts VALUES ('2020-06-01 10:00:00+00', 9);
---- error 23505
SELECT v FROM k_ts WHERE k = '2020-06-01 10:00:00Z';
----
1

SET TimeZone = 'Europe/Vienna';
SELECT v, k FROM k_ts WHERE k = '2020-06-01 12:00:00';
----
1 | 2020-06-01 10:00:00+00:00

SELECT k::TEXT AS k FROM k_ts WHERE v = 1;
----
2020-06-01 12:00:00+02

RESET TimeZone;
SELECT k::TEXT AS k FROM k_ts WHERE v = 1;
----
2020-06-01 10:00:00+00

CREATE TABLE k_time (k TIME PRIMARY KEY, v INT);
INSERT INTO k_time VALUES ('00:00:00', 1), ('23:59:59.999999', 2);
-- pause
INSERT INTO k_time VALUES ('23:59:59.999999', 3);
---- error 23505
SELECT v FROM k_time WHERE k = '00:00';
----
1

CREATE TABLE k_bool (k BOOLEAN PRIMARY KEY, v INT);
INSERT INTO k_bool VALUES (true, 1), (false, 2);
-- pause
INSERT INTO k_bool VALUES (1 = 1, 3);
---- error 23505 true
SELECT v FROM k_bool WHERE k;
----
1

SELECT v FROM k_bool WHERE NOT k;
----
2

CREATE TABLE k_blob (k BLOB PRIMARY KEY, v INT);
INSERT INTO k_blob VALUES (''::BLOB, 1), ('\x00'::BLOB, 2), ('\x00\x00'::BLOB, 3), ('\xFF'::BLOB, 4);
-- pause
INSERT INTO k_blob VALUES ('\x00'::BLOB, 9);
---- error 23505
SELECT v FROM k_blob WHERE k = '\x00\x00'::BLOB;
----
3

SELECT v FROM k_blob WHERE k > '\x00'::BLOB ORDER BY k;
----
3
4

# Composite keys are whole: ('a', 'bc') is not ('ab', 'c').
CREATE TABLE pair (a TEXT, b TEXT, n INT, v INT, PRIMARY KEY (a, b, n));
INSERT INTO pair VALUES ('a', 'bc', 1, 1), ('ab', 'c', 1, 2), ('a', 'bc', 2, 3), ('', 'abc', 1, 4), ('abc', '', 1, 5);
-- pause
INSERT INTO pair VALUES ('a', 'bc', 1, 9);
---- error 23505 (a, b, n) = ('a', 'bc', 1)
INSERT INTO pair VALUES ('a', 'b', 1, 6), ('a', 'b', 2, 7);
---- count 2
INSERT INTO pair VALUES ('a', NULL, 1, 9);
---- error 23502 b
INSERT INTO pair VALUES ('x', 'y', 1, 9), ('x', 'y', 2, 9), ('x', 'y', 1, 9);
---- error 23505 ('x', 'y', 1)
-- pause
SELECT v FROM pair WHERE a = 'a' AND b = 'bc' ORDER BY n;
----
1
3

SELECT v FROM pair WHERE a = 'a' AND b = 'b' AND n = 2;
----
7

SELECT v FROM pair WHERE (a, b) = ('ab', 'c');
----
2

SELECT v FROM pair WHERE b = '' OR n = 2 ORDER BY v;
----
3
5
7

INSERT OR REPLACE INTO pair VALUES ('a', 'bc', 2, 30);
SELECT sum(v) AS s, count(*) AS n FROM pair;
----
55 | 7

# A key of many columns, in another order than the table's.
CREATE TABLE wide (v INT, d DATE, s SMALLINT, u UUID, m DECIMAL(9,2), PRIMARY KEY (u, m, s, d));
INSERT INTO wide VALUES (1, '2020-01-01', 5, '550e8400-e29b-41d4-a716-446655440000', 1.10);
-- pause
INSERT INTO wide VALUES (2, '2020-01-01', 5, '550e8400-e29b-41d4-a716-446655440000', 1.1);
---- error 23505 (u, m, s, d)
INSERT INTO wide VALUES (2, '2020-01-02', 5, '550e8400-e29b-41d4-a716-446655440000', 1.1);
SELECT v FROM wide WHERE m = 1.1 AND s = 5 AND d = '2020-01-02';
----
2
