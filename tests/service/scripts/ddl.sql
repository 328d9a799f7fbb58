# Namespaces, tables and names (SEMANTICS §1).

SHOW NAMESPACES;
---- namespace, tables, comment
main | 0 | NULL

CREATE NAMESPACE Shop;
---- count 0

CREATE NAMESPACE shop;
---- error 42P06 names may not differ only in case

CREATE NAMESPACE Shop;
---- error 42P06 already exists

CREATE NAMESPACE IF NOT EXISTS SHOP;
CREATE SCHEMA crm;

CREATE NAMESPACE system;
---- error 42939 reserved

CREATE NAMESPACE information_schema;
---- error 42939 reserved

CREATE NAMESPACE pg_catalog;
---- error 42939 reserved

CREATE NAMESPACE flightkalam;
---- error 42939 reserved

CREATE NAMESPACE "default";
---- error 42939 reserved

CREATE NAMESPACE "";
---- error 42601

SHOW NAMESPACES;
----
crm | 0 | NULL
main | 0 | NULL
Shop | 0 | NULL

# Names match without regard to case and keep the case that they were created with.
CREATE TABLE shop.Orders (Id BIGINT PRIMARY KEY, "Ship To" TEXT, amount DECIMAL(10,2) NOT NULL DEFAULT 0);
---- count 0

CREATE TABLE shop.ORDERS (id BIGINT PRIMARY KEY);
---- error 42P07 names may not differ only in case

CREATE TABLE shop.Orders (id BIGINT PRIMARY KEY);
---- error 42P07 already exists

CREATE TABLE IF NOT EXISTS shop.orders (something_else BIGINT PRIMARY KEY);
---- count 0

INSERT INTO SHOP.orders (ID, "ship to", AMOUNT) VALUES (1, 'Vienna', 12.5);
---- count 1

SELECT * FROM sHoP.oRdErS;
---- Id, Ship To, amount
1 | Vienna | 12.50

SELECT ID, orders."SHIP TO", shop.orders.amount, flightkalam.shop.orders.id FROM shop.orders;
----
1 | Vienna | 12.50 | 1

# The same name may stand in two namespaces.
CREATE TABLE crm.orders (id TEXT PRIMARY KEY);
INSERT INTO crm.orders VALUES ('c');

SELECT a.id, b.id FROM shop.orders a, crm.orders b;
----
1 | c

-- pause

SELECT * FROM shop.orders;
---- Id, Ship To, amount
1 | Vienna | 12.50

USE crm;
SELECT id FROM orders;
----
c

SELECT current_schema() AS s, current_database() AS d, current_catalog AS c;
---- s, d, c
crm | flightkalam | flightkalam

SET schema = 'shop';
SELECT id FROM orders;
----
1

SET search_path TO main;
SELECT id FROM orders;
---- error 42P01 table "orders" does not exist

USE nowhere;
---- error 3F000 does not exist

DROP NAMESPACE shop;
---- error 2BP01 Shop

SELECT count(*) AS n FROM shop.orders;
---- n
1

DROP NAMESPACE shop CASCADE;

SELECT * FROM shop.orders;
---- error 42P01 does not exist

SELECT * FROM nowhere.orders;
---- error 42P01 does not exist

SELECT * FROM otherdb.crm.orders;
---- error 42P01 does not exist

DROP NAMESPACE shop;
---- error 3F000 does not exist

DROP NAMESPACE IF EXISTS shop;
---- count 0

DROP NAMESPACE main;
---- error 2BP01 cannot be dropped

-- pause

# A new table of an old name has none of the old rows (T-25).
CREATE NAMESPACE shop;
CREATE TABLE shop.orders (id BIGINT PRIMARY KEY, note TEXT);
SELECT count(*) FROM shop.orders;
----
0

INSERT INTO shop.orders VALUES (1, 'new');
DROP TABLE shop.orders;
---- count 0
DROP TABLE shop.orders;
---- error 42P01 does not exist
DROP TABLE IF EXISTS shop.orders;
---- count 0

CREATE TABLE shop.orders (id BIGINT PRIMARY KEY, note TEXT);
INSERT INTO shop.orders VALUES (1, 'newer');

-- pause

SELECT * FROM shop.orders;
----
1 | newer

# What is not enforced is refused by name.
CREATE TABLE u (id BIGINT PRIMARY KEY, x INT UNIQUE);
---- error 0A000 UNIQUE
CREATE TABLE u (id BIGINT PRIMARY KEY, x BIGINT REFERENCES shop.orders);
---- error 0A000 REFERENCES
CREATE TABLE u (id BIGINT PRIMARY KEY, x INT AS (id + 1));
---- error 0A000 generated
CREATE TABLE u (id BIGINT PRIMARY KEY, FOREIGN KEY (id) REFERENCES shop.orders (id));
---- error 0A000 FOREIGN KEY
CREATE INDEX i ON shop.orders (note);
---- error 0A000 INDEX
CREATE TEMP TABLE u (id BIGINT PRIMARY KEY);
---- error 0A000 TEMP
CREATE OR REPLACE TABLE shop.orders (id BIGINT PRIMARY KEY);
---- error 0A000 OR REPLACE

CREATE TABLE u (id BIGINT, x INT);
---- error 42P16 primary key
CREATE TABLE u (id BIGINT PRIMARY KEY, ID INT);
---- error 42701 ID
CREATE TABLE u (id BIGINT PRIMARY KEY, _seq BIGINT);
---- error 42939 _seq
CREATE TABLE u (id BIGINT PRIMARY KEY, _mine BIGINT);
---- error 42939 _mine
CREATE TABLE u (id BIGINT PRIMARY KEY, x WIBBLE);
---- error 42704 WIBBLE
CREATE TABLE u (id DOUBLE PRIMARY KEY);
---- error 42P16 DOUBLE
CREATE TABLE u (id BIGINT, x INT[], PRIMARY KEY (id, x));
---- error 42P16 INT[]
CREATE TABLE u (id BIGINT, PRIMARY KEY (id, nope));
---- error 42703 nope
CREATE TABLE u (id BIGINT PRIMARY KEY, x INT DEFAULT id);
---- error 22023 default
CREATE TABLE u (id BIGINT PRIMARY KEY, x INT DEFAULT 'abc');
---- error 22P02
CREATE TABLE u (id BIGINT PRIMARY KEY, x INT, CHECK (nope > 0));
---- error 42703 nope
CREATE TABLE u (id BIGINT PRIMARY KEY, x INT, CHECK (x));
---- error 22023 not a condition
CREATE TABLE nowhere.u (id BIGINT PRIMARY KEY);
---- error 3F000 nowhere
CREATE TABLE system.u (id BIGINT PRIMARY KEY);
---- error 3F000 system
SELECT count(*) FROM u;
---- error 42P01 "u" does not exist
