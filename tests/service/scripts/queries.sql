# The SQL engine's queries over tables that lie in two tiers: joins, CTEs, windows, sets, subqueries.

CREATE TABLE emp (id INT PRIMARY KEY, name TEXT, dept INT, salary DECIMAL(10,2), boss INT, born DATE);
CREATE TABLE dept (id INT PRIMARY KEY, title TEXT, tags TEXT[]);
INSERT INTO dept VALUES (1, 'dev', ['a', 'b']), (2, 'ops', ['b']), (3, 'empty', []);
INSERT INTO emp VALUES
    (1, 'Ada', 1, 5000, NULL, '1980-01-01'), (2, 'Bob', 1, 4000, 1, '1985-05-05'), (3, 'Cy', 2, 4500, 1, '1990-09-09');
-- pause
INSERT INTO emp VALUES (4, 'Di', 2, 3000, 3, NULL), (5, 'Eve', NULL, NULL, 3, '2000-02-29');

SELECT e.name, d.title FROM emp e JOIN dept d ON e.dept = d.id ORDER BY e.id;
---- name, title
Ada | dev
Bob | dev
Cy | ops
Di | ops

SELECT e.name, d.title FROM emp e FULL JOIN dept d ON e.dept = d.id ORDER BY e.id NULLS LAST, d.id;
----
Ada | dev
Bob | dev
Cy | ops
Di | ops
Eve | NULL
NULL | empty

SELECT e.name AS worker, b.name AS chief FROM emp e LEFT JOIN emp b ON e.boss = b.id WHERE b.name IS NOT NULL ORDER BY 1;
---- worker, chief
Bob | Ada
Cy | Ada
Di | Cy
Eve | Cy

SELECT name FROM emp e WHERE EXISTS (SELECT 1 FROM emp s WHERE s.boss = e.id) ORDER BY name;
----
Ada
Cy

SELECT name FROM emp WHERE dept IN (SELECT id FROM dept WHERE title LIKE 'd%') ORDER BY name;
----
Ada
Bob

SELECT name FROM emp WHERE dept NOT IN (SELECT id FROM dept WHERE title = 'dev') ORDER BY name;
----
Cy
Di

SELECT (SELECT max(salary) FROM emp) AS top, (SELECT count(*) FROM dept) AS n;
---- top, n
5000.00 | 3

SELECT d.title, x.name FROM dept d, LATERAL (SELECT name FROM emp e WHERE e.dept = d.id ORDER BY salary DESC LIMIT 1) x ORDER BY 1;
----
dev | Ada
ops | Cy

WITH RECURSIVE chain(id, name, depth) AS (
    SELECT id, name, 0 FROM emp WHERE boss IS NULL
    UNION ALL SELECT e.id, e.name, c.depth + 1 FROM emp e JOIN chain c ON e.boss = c.id
) SELECT * FROM chain ORDER BY depth, id;
---- id, name, depth
1 | Ada | 0
2 | Bob | 1
3 | Cy | 1
4 | Di | 2
5 | Eve | 2

# A CTE hides a table of its name.
WITH dept AS (SELECT 99 AS id), b AS (SELECT id + 1 AS id FROM dept) SELECT dept.id, b.id FROM dept, b;
----
99 | 100

WITH emp AS (SELECT * FROM emp WHERE salary > 4000) SELECT count(*) AS n FROM emp;
----
2

SELECT dept, count(*) AS n, sum(salary) AS s, min(born) AS first FROM emp GROUP BY dept HAVING count(*) >= 1 ORDER BY dept NULLS FIRST;
---- dept, n, s, first
NULL | 1 | NULL | 2000-02-29
1 | 2 | 9000.00 | 1980-01-01
2 | 2 | 7500.00 | 1990-09-09

SELECT dept, count(*) AS n FROM emp GROUP BY ROLLUP (dept) ORDER BY dept NULLS LAST, n;
----
1 | 2
2 | 2
NULL | 1
NULL | 5

SELECT name, rank() OVER (PARTITION BY dept ORDER BY salary DESC) AS r, lag(name) OVER w AS before, sum(salary) OVER (ORDER BY id ROWS 1 PRECEDING) AS s
FROM emp WINDOW w AS (ORDER BY id) ORDER BY id;
---- name, r, before, s
Ada | 1 | NULL | 5000.00
Bob | 2 | Ada | 9000.00
Cy | 1 | Bob | 8500.00
Di | 2 | Cy | 7500.00
Eve | 1 | Di | 3000.00

SELECT name FROM emp QUALIFY row_number() OVER (PARTITION BY dept ORDER BY salary) = 1 ORDER BY name;
----
Bob
Di
Eve

SELECT id FROM emp UNION SELECT id FROM dept ORDER BY id;
----
1
2
3
4
5

SELECT id FROM emp EXCEPT SELECT id FROM dept ORDER BY 1;
----
4
5

(SELECT id FROM emp INTERSECT SELECT id FROM dept) UNION ALL SELECT 0 ORDER BY 1;
----
0
1
2
3

SELECT DISTINCT ON (dept) dept, name FROM emp ORDER BY dept NULLS LAST, name;
----
1 | Ada
2 | Cy
NULL | Eve

SELECT name FROM emp ORDER BY salary DESC NULLS LAST LIMIT 2 OFFSET 1;
----
Cy
Bob

SELECT name, CASE WHEN salary >= 4500 THEN 'high' WHEN salary IS NULL THEN '?' ELSE 'low' END AS class FROM emp ORDER BY id;
----
Ada | high
Bob | low
Cy | high
Di | low
Eve | ?

SELECT d.id, t.tag FROM dept d, unnest(d.tags) AS t(tag) ORDER BY 1, 2;
----
1 | a
1 | b
2 | b

SELECT unnest([3, 1, 2]) AS u ORDER BY u;
---- u
1
2
3

SELECT range AS r FROM range(3) UNION ALL FROM generate_series(5, 7);
----
0
1
2
5
6
7

FROM emp SELECT name WHERE id = 2;
---- name
Bob

FROM dept WHERE id = 3;
---- id, title, tags
3 | empty | []

SELECT e.* EXCLUDE (salary, boss, born) REPLACE (upper(name) AS name) FROM emp e WHERE id = 1;
---- id, name, dept
1 | ADA | 1

SELECT COLUMNS('^(id|name)$') FROM emp WHERE id = 1;
---- id, name
1 | Ada

SELECT dept, list(name ORDER BY id) AS names, count(*) FILTER (WHERE salary > 4200) AS rich FROM emp GROUP BY ALL ORDER BY ALL NULLS LAST;
---- dept, names, rich
1 | [Ada, Bob] | 1
2 | [Cy, Di] | 1
NULL | [Eve] | 0

PIVOT (SELECT dept, salary FROM emp WHERE dept IS NOT NULL) ON dept IN (1, 2) USING sum(salary);
---- 1, 2
9000.00 | 7500.00

SELECT * FROM (VALUES (1, 'x'), (2, NULL)) AS v(a, b) ORDER BY a;
---- a, b
1 | x
2 | NULL

VALUES (1, 2), (3, 4);
----
1 | 2
3 | 4

SELECT list_transform([1, 2, 3], lambda x: x * 10) AS l, {'a': 1, 'b': [true]} AS s, map {'k': 1}['k'] AS m;
---- l, s, m
[10, 20, 30] | {a: 1, b: [true]} | 1

SELECT '{"a": {"b": [1, 2]}}'::JSON -> 'a' -> 'b' ->> 1 AS j, json_extract('{"x": 5}', '$.x')::INT AS x;
---- j, x
2 | 5

SELECT name FROM emp WHERE born BETWEEN DATE '1980-01-01' AND DATE '1989-12-31' AND NOT (salary < 4500) ORDER BY 1;
----
Ada

SELECT e.born + INTERVAL 1 YEAR AS next, date_trunc('month', e.born) AS m, extract(year FROM e.born) AS y FROM emp e WHERE id = 5;
----
2001-02-28 00:00:00 | 2000-02-01 00:00:00 | 2000

SELECT approx_count_distinct(name) > 0 AS a, median(salary) AS m, quantile_cont(salary, 0.5) AS q, mode(dept) IS NOT NULL AS mo FROM emp;
----
true | 4250.00 | 4250.00 | true

SELECT count(*) AS n FROM emp TABLESAMPLE 100 PERCENT;
----
5

SELECT count(*) AS n FROM emp a, emp b, dept c;
----
75

SELECT s FROM (SELECT 'x' AS s, DATE '2020-02-03' AS d) WHERE date_trunc('month', d) = DATE '2020-02-01';
---- s
x

SELECT main.emp.name AS a, emp.id AS b FROM main.emp WHERE main.emp.id = 1;
---- a, b
Ada | 1

SELECT a.id FROM flightkalam.main.emp AS a WHERE a.id = 1;
----
1

# Columns of the service are there by name, and only by name.
SELECT count(*) AS n FROM emp WHERE _seq > 0 AND NOT _deleted;
----
5

SELECT max(_seq) > min(_seq) AS more, bool_or(_deleted) AS gone FROM emp;
----
true | false

SELECT e.id FROM emp e, dept d WHERE e._seq > d._seq AND d.id = 3 AND e.dept = 1 ORDER BY 1;
----
1
2

# A statement sees no half of what another one wrote: everything or nothing (T-20: LIMIT and count after dead rows).
INSERT OR REPLACE INTO emp (id, name) SELECT id, 'new ' || name FROM emp WHERE id <= 3;
---- count 3
SELECT count(*) AS n, count(salary) AS s, min(name) AS first FROM emp;
----
5 | 1 | Di

SELECT name FROM emp WHERE salary = 5000 OR born = '1980-01-01';
----

SELECT name FROM emp ORDER BY id LIMIT 3;
----
new Ada
new Bob
new Cy

