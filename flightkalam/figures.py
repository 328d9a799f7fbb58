"""Every figure the service keeps: its name, what it counts, and how it is shown to monitoring systems and in `system.metrics`.

A figure that is counted somewhere and not listed here is a mistake that a test finds; docs/operations.md lists them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PREFIX = "flightkalam_"
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Figure:
    """:param labels: what the figure is split by; never a user, a table or anything else that a client chooses: the number of
    time series must stay bounded."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        return f"{PREFIX}{self.name}" + ("_total" if self.kind == "counter" else "")


def _listed(*figures: Figure) -> Mapping[str, Figure]:
    return {f.name: f for f in figures}


FIGURES = _listed(
    # statements
    Figure("statements", "counter", "Statements that have ended", ("kind", "outcome")),
    Figure("statement_seconds", "histogram", "From the first look at a statement to its last row", ("kind",)),
    Figure("statements_running", "gauge", "Statements under way by state", ("state",)),
    Figure("statements_slow", "counter", "Statements that took longer than log.slow_statement_ms"),
    Figure("errors", "counter", "Errors that clients were given", ("sqlstate",)),
    Figure("rows_out", "counter", "Rows sent to clients"),
    Figure("bytes_out", "counter", "Bytes of Arrow data sent to clients"),
    Figure("rows_in", "counter", "Rows that clients sent"),
    Figure("bytes_in", "counter", "Bytes of Arrow data that clients sent"),
    Figure("rows_changed", "counter", "Rows inserted, updated and deleted"),
    # admission
    Figure("admission_running", "gauge", "Statements that hold a place"),
    Figure("admission_waiting", "gauge", "Statements that wait for a place"),
    Figure("admission_refused", "counter", "Statements refused because no place became free"),
    Figure("admission_wait_seconds", "histogram", "What statements waited for a place, those that waited at all"),
    # sessions
    Figure("sessions", "gauge", "Sessions of clients"),
    Figure("transactions_open", "gauge", "Transactions that have begun and not ended"),
    # writing
    Figure("commit_seconds", "histogram", "Commits of rows at the write door, with the wait for the disk"),
    Figure("fsync_seconds", "histogram", "Syncs of the write-ahead log"),
    Figure("commits", "counter", "Commits of rows"),
    Figure("versions_written", "counter", "Versions of rows that were committed"),
    # hot
    Figure("hot_rows", "gauge", "Rows in memory, dead ones included"),
    Figure("hot_bytes", "gauge", "Memory of hot rows"),
    Figure("hot_limit_bytes", "gauge", "memory.hot_bytes, what hot rows may take"),
    Figure("hot_scopes", "gauge", "Scopes (a table, or one user's part of one) in memory"),
    Figure("hot_slowed", "counter", "Writes slowed down because hot rows need much memory"),
    Figure("hot_refused", "counter", "Writes refused because hot rows need all the memory they may"),
    Figure("hot_released", "counter", "Idle scopes that left memory"),
    # jobs
    Figure("jobs", "gauge", "Jobs by state", ("status",)),
    Figure("jobs_completed", "counter", "Jobs that did what they were for"),
    Figure("jobs_failed", "counter", "Jobs that gave up"),
    Figure("jobs_cancelled", "counter", "Jobs stopped by KILL JOB, or with the service"),
    Figure("jobs_skipped", "counter", "Jobs that had nothing to do"),
    Figure("flush_rows", "counter", "Rows written to Parquet by flushes"),
    Figure("compact_rows", "counter", "Rows read by compactions"),
    # the cold tier
    Figure("scan_batches_total", "counter", "Batches of tables that queries read"),
    Figure("scan_pruned_by_range", "counter", "Batches left out by the bounds of a column"),
    Figure("scan_pruned_by_bloom", "counter", "Batches left out by a Bloom filter"),
    Figure("scan_batches_read", "counter", "Batches handed to the engine"),
    Figure("bloom_filters_tested", "counter", "Tests of Bloom filters"),
    Figure("bloom_filters_read", "counter", "Bloom filters read from files"),
    Figure("bloom_filters_damaged", "counter", "Bloom filters that do not match their checksum"),
    Figure("bloom_filters_rebuilt", "counter", "Bloom filters made again from the keys of a batch"),
    Figure("vector_rebuilds", "counter", "Deletion vectors made again from the files"),
    Figure("manifest_cache_hits", "counter", "Manifests found in memory"),
    Figure("manifest_cache_misses", "counter", "Manifests read from the store"),
    Figure("manifest_cache_evictions", "counter", "Manifests that left memory"),
    Figure("manifest_refreshes", "counter", "Manifests compared with their published copy"),
    Figure("manifest_refusals", "counter", "Manifests refused because another server wrote them"),
    Figure("manifest_damages", "counter", "Damaged or missing manifests"),
    Figure("manifest_rebuilds", "counter", "Manifests made again from the files"),
    Figure("manifest_syncs_ok", "counter", "Manifests published"),
    Figure("manifest_syncs_failed", "counter", "Manifests whose publication failed and is tried again"),
    # object stores
    Figure("object_cache_files", "gauge", "Local copies of files in object stores"),
    Figure("object_cache_bytes", "gauge", "Room that these copies take"),
    Figure("object_cache_hits", "gauge", "Reads that found a local copy, since the start"),
    Figure("object_cache_misses", "gauge", "Reads that had to fetch the file, since the start"),
    Figure("object_cache_evicted", "gauge", "Copies that made room for others, since the start"),
    Figure("object_cache_fetched_bytes", "gauge", "Bytes read from object stores, since the start"),
    # the disk
    Figure("disk_free_bytes", "gauge", "Free room on the disk of the data directory"),
    Figure("writable", "gauge", "1 while writes are accepted, 0 while the disk is full, read-only or has failed"),
    Figure("memory_bytes", "gauge", "Resident memory of the process"),
)


def figure(name: str) -> Figure:
    """What is known of a figure; one that was forgotten above must not take the others with it."""
    return FIGURES.get(name) or Figure(name, "gauge", "Not described")


def markdown() -> str:
    """The table for docs/operations.md."""
    rows = (f"| `{f.exported}` | {f.kind} | {', '.join(f.labels) or '–'} | {f.help} |" for f in FIGURES.values())
    return "\n".join(["| metric | kind | labels | what it counts |", "|-|-|-|-|", *rows]) + "\n"
