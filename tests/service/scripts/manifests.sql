# What dba and system may see of the cold tier: every scope's manifest, its batches, and the cache over them.

CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT);
CREATE USER TABLE mine (id BIGINT PRIMARY KEY, v INT);
INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, NULL);
FLUSH TABLE t WAIT;
DELETE FROM t WHERE id = 1;
FLUSH TABLE t WAIT;

-- session ann user
INSERT INTO mine VALUES (1, 10);
-- session root system
FLUSH TABLE mine WAIT;

SELECT table_name, user_id, version, max_batch, batches, "rows", dead_rows, parts, sync_state FROM system.manifests
ORDER BY table_name;
---- table_name, user_id, version, max_batch, batches, rows, dead_rows, parts, sync_state
mine | ann | 1 | 0 | 1 | 1 | 0 | 0 | in_sync
t | NULL | 2 | 1 | 2 | 4 | 1 | 0 | in_sync

SELECT file_path, row_count, tombstones, dead_rows, status, bounds FROM system.batches WHERE table_name = 't'
ORDER BY batch_number;
---- file_path, row_count, tombstones, dead_rows, status, bounds
batch-0.parquet | 3 | 0 | 1 | active | {"id": {"min": 1, "max": 3, "nulls": 0}, "name": {"min": "one", "max": "two", "nulls": 1}}
batch-1.parquet | 1 | 1 | 0 | active | {"id": {"min": 1, "max": 1, "nulls": 0}, "name": {"min": null, "max": null, "nulls": 1}}

# The bounds of a user's rows would be values of that user's rows.
SELECT file_path, row_count, bounds FROM system.batches WHERE table_name = 'mine';
---- file_path, row_count, bounds
batch-0.parquet | 1 | {"id": {"nulls": 0}, "v": {"nulls": 0}}

SHOW MANIFEST CACHE;
---- namespace, table, user_id, etag, last_refreshed, last_accessed, ttl, source, sync_state
main | t | NULL | ? | ? | ? | 60 | ? | in_sync
main | mine | ann | ? | ? | ? | 60 | ? | in_sync

# A manifest that is what its files say stays as it is.
REBUILD MANIFEST t WAIT;
---- job_id, table, status, result
? | main.t | completed | {"scopes": 1, "rebuilt": 0, "batches": 2}

REBUILD MANIFEST nothing;
---- error 42P01

-- session ann user
REBUILD MANIFEST mine;
---- error 42501

SHOW MANIFEST CACHE;
---- error 42501

SELECT * FROM system.batches;
---- error 42501

-- session sam service
SHOW MANIFEST CACHE;
---- error 42501
