# Views: durable, and seen with the rights of who looks (SEMANTICS §1).

CREATE NAMESPACE shop;
CREATE TABLE shop.sales (id BIGINT PRIMARY KEY, city TEXT, amount INT) WITH (ACCESS_LEVEL='PUBLIC');
INSERT INTO shop.sales VALUES (1, 'Graz', 10), (2, 'Linz', 20), (3, 'Graz', 30);

CREATE VIEW shop.by_city AS SELECT city, sum(amount) AS total, count(*) AS n FROM shop.sales GROUP BY city;
---- count 0
CREATE VIEW shop.by_city AS SELECT 1 AS x;
---- error 42P07 by_city
CREATE VIEW IF NOT EXISTS shop.by_city AS SELECT 1 AS x;
CREATE VIEW shop.sales AS SELECT 1 AS x;
---- error 42P07 sales

-- pause

SELECT * FROM shop.by_city ORDER BY city;
---- city, total, n
Graz | 40 | 2
Linz | 20 | 1

SELECT b.city, s.id FROM shop.by_city AS b JOIN shop.sales s USING (city) WHERE b.total > 30 ORDER BY s.id;
---- city, id
Graz | 1
Graz | 3

# A view over a view, with its own column names; names are looked up where the view was made.
USE shop;
CREATE VIEW top (town, sum_of) AS SELECT city, total FROM by_city WHERE total > 25;
SELECT * FROM top;
---- town, sum_of
Graz | 40

USE main;
SELECT town FROM shop.top;
---- town
Graz

SELECT top.sum_of, shop.top.town FROM shop.top;
---- sum_of, town
40 | Graz

CREATE VIEW bad (a, b) AS SELECT 1;
---- error 42P16
CREATE VIEW bad AS SELECT * FROM nope;
---- error 42P01 nope
CREATE VIEW bad AS SELECT * FROM read_csv('/etc/passwd');
---- error 0A000 read_csv
CREATE VIEW bad AS INSERT INTO shop.sales VALUES (9, 'x', 1);
---- error 42601

CREATE OR REPLACE VIEW shop.by_city AS SELECT city, max(amount) AS total FROM shop.sales GROUP BY city;
-- pause
SELECT * FROM shop.by_city ORDER BY 1;
---- city, total
Graz | 30
Linz | 20

SELECT * FROM shop.top;
----
Graz | 30

DESCRIBE shop.top;
---- column_name, column_type, null, key, default, comment
town | TEXT | YES | NULL | NULL | NULL
sum_of | INT | YES | NULL | NULL | NULL

INSERT INTO shop.top VALUES ('x', 1);
---- error 42809 view
DROP TABLE shop.top;
---- error 42809 DROP VIEW
DROP VIEW shop.sales;
---- error 42809 DROP TABLE
ALTER TABLE shop.top ADD COLUMN x INT;
---- error 42809 view

# Views over views of the same name as a CTE, and a view used twice.
WITH top AS (SELECT 'mine' AS town) SELECT a.town, b.town FROM top AS a, shop.top AS b;
----
mine | Graz

SELECT count(*) AS n FROM shop.top a, shop.top b;
---- n
1

# Caller's rights: a user sees through a view only what they may see.
CREATE TABLE secrets (id BIGINT PRIMARY KEY, v TEXT);
INSERT INTO secrets VALUES (1, 'hidden');
CREATE VIEW peek AS SELECT v FROM secrets;
SELECT * FROM peek;
----
hidden

-- session ann user
SELECT * FROM shop.by_city ORDER BY 1;
---- city, total
Graz | 30
Linz | 20

SELECT * FROM peek;
---- error 42P01

CREATE VIEW mine AS SELECT 1 AS x;
---- error 42501 create views
DROP VIEW peek;
---- error 42501

-- session root system
DROP VIEW shop.by_city;
SELECT * FROM shop.top;
---- error 42P01 by_city
DROP VIEW shop.top;
DROP VIEW IF EXISTS shop.top;
DROP VIEW shop.top;
---- error 42P01 top
DROP TABLE secrets;
SELECT * FROM peek;
---- error 42P01 secrets
