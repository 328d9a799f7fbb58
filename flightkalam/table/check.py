"""CHECK: recompute what is visible from the versions alone and compare it with what a query sees.

    by the rule     every version in every batch and in the log, newest per key by MAX(_seq), tombstones left out
    by a query      the rows that a scan plan reads

Both are sets of `_seq`, which is unique per version.  Files are read in full, checksums verified, and compared with what the
manifest says of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.cold.manifest import BatchEntry
from flightkalam.errors import Cancelled, KalamError
from flightkalam.hot.store import ids_of
from flightkalam.model.schema import DELETED, SEQ, TableKind
from flightkalam.storage import objects
from flightkalam.table import stream
from flightkalam.table.snapshot import Snapshot

I64 = npt.NDArray[np.int64]


@dataclass
class Report:
    """What was found in one scope.

    :param versions: versions looked at, dead ones included.
    :param visible: rows that a query sees.
    :param problems: what does not agree, in words; empty when all is well.
    """

    table: str
    scope: str
    batches: int = 0
    versions: int = 0
    visible: int = 0
    problems: list[str] = field(default_factory=list)


def check(snapshot: Snapshot, cancelled: Callable[[], bool] = lambda: False) -> Report:
    """Check one scope at a snapshot."""
    if snapshot.table.kind is TableKind.STREAM:
        return _check_stream(snapshot)
    manifest = snapshot.state.manifest
    report = Report(snapshot.table.qualified, snapshot.scope.scope.label, len(manifest.batches))
    keys = [c.name for c in snapshot.table.schema.key_columns]
    parts: list[pa.Table] = []
    seen: list[I64] = []
    for entry in manifest.batches:
        if cancelled():
            raise Cancelled("the check was cancelled")
        try:
            versions = _read_batch(snapshot, entry, report)
            dead = snapshot.dead(entry)
        except KalamError as e:
            report.problems.append(e.message)
            continue
        parts.append(versions.select([*keys, SEQ, DELETED]))
        alive = np.ones(versions.num_rows, bool)
        if dead:
            alive[np.asarray(dead.to_array(), np.int64)] = False
        seen.append(_seqs(versions)[alive])
    hot = _all_hot(snapshot, keys)
    parts.append(hot)
    cut = snapshot.hot().table
    seen.append(_seqs(cut.filter(pc.invert(cut.column(DELETED)))))
    _compare(report, pa.concat_tables(parts), np.concatenate(seen), keys)
    return report


def _check_stream(snapshot: Snapshot) -> Report:
    """A STREAM table: the log holds the rows that memory holds, each key once, and a query sees those that have not expired."""
    scope, schema, log = snapshot.scope, snapshot.table.schema, snapshot.scopes.log
    parts: list[pa.Table] = []
    with scope.lock:  # the log has no older state to compare with
        alive_from = stream.alive_from(snapshot.table, snapshot.scopes.clock.now_us())
        hot = scope.state.hot
        for loaded in log.entries(scope.scope):
            rows = log.table_of(loaded.entry, verify=True).select([str(c.id) for c in schema.key_columns])
            parts.append(rows.append_column(SEQ, pa.array(ids_of(loaded.entry))))
        held = hot.ids.values()[hot.superseded_by.values() == 0]
        seen = _seqs(stream.unexpired(hot.cut(scope.head, schema), alive_from).table)
    report = Report(snapshot.table.qualified, scope.scope.label, visible=len(seen))
    logged = np.concatenate([_seqs(p) for p in parts]) if parts else np.empty(0, np.int64)
    report.versions = len(logged)
    if not np.array_equal(np.sort(logged), held):
        report.problems.append(f"the log has {len(logged)} row(s) and memory has {len(held)}, which are not the same")
    _note_differences(report, logged[logged >= alive_from], seen, "unexpired in the log")
    if parts:
        keys = pa.concat_tables(parts, promote_options="permissive").drop_columns([SEQ])
        twice = keys.num_rows - keys.group_by(keys.schema.names).aggregate([]).num_rows
        if twice:
            report.problems.append(f"{twice} key(s) are twice in the log")
    return report


def _read_batch(snapshot: Snapshot, entry: BatchEntry, report: Report) -> pa.Table:
    """Every column of a batch, its pages' checksums verified, compared with the manifest."""
    path = snapshot.scope.folder / entry.file
    schema = snapshot.table.schema
    names = [*(c.name for c in schema.columns), SEQ, DELETED]
    table = snapshot.scopes.reader.columns(path, entry, schema, names, verify=True)
    seqs = pc.min_max(table.column(SEQ)).as_py()
    facts: list[tuple[str, Any, Any]] = [
        ("rows", entry.rows, table.num_rows),
        ("size in bytes", entry.size_bytes, objects.size(path)),
        ("tombstones", entry.tombstones, pc.sum(table.column(DELETED)).as_py() or 0),
        ("lowest _seq", entry.min_seq, seqs["min"] or 0),
        ("highest _seq", entry.max_seq, seqs["max"] or 0),
    ]
    for what, stated, found in facts:
        if stated != found:
            report.problems.append(f"{entry.file}: the manifest says {stated} {what}, the file has {found}")
    return table


def _all_hot(snapshot: Snapshot, keys: list[str]) -> pa.Table:
    """Every hot version at the watermark, superseded ones included."""
    hot, schema = snapshot.state.hot, snapshot.table.schema
    ids = hot.ids.values()
    n = int(np.searchsorted(ids, snapshot.watermark, "right"))
    columns = hot.take(np.arange(n, dtype=np.int64), schema, [*keys, DELETED])
    return pa.table([*columns[:-1], pa.array(ids[:n]), columns[-1].cast(pa.bool_())], names=[*keys, SEQ, DELETED])


def _seqs(table: pa.Table) -> I64:
    return table.column(SEQ).to_numpy()


def _compare(report: Report, versions: pa.Table, seen: I64, keys: list[str]) -> None:
    newest = versions.group_by(keys).aggregate([(SEQ, "max")]).column(f"{SEQ}_max")
    visible = versions.filter(pc.and_(pc.is_in(versions.column(SEQ), newest), pc.invert(versions.column(DELETED))))
    report.versions, report.visible = versions.num_rows, len(seen)
    expected = _seqs(visible)
    _note_differences(report, expected, seen, "visible by MAX(_seq)")


def _note_differences(report: Report, expected: I64, seen: I64, rule: str) -> None:
    for what, seqs in (
        (f"{rule} and not read by a query", np.setdiff1d(expected, seen)),
        (f"read by a query and not {rule}", np.setdiff1d(seen, expected)),
    ):
        if len(seqs):
            report.problems.append(f"{len(seqs)} row(s) are {what}; the first has _seq {int(seqs[0])}")
    twice = len(seen) - len(np.unique(seen))
    if twice:
        report.problems.append(f"{twice} row(s) are read twice")
