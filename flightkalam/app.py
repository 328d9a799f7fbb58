"""Builds every part from the configuration, and starts and stops them in order.  The one file that names concrete classes."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pyarrow as pa

from flightkalam import __version__, telemetry
from flightkalam.auth import audit
from flightkalam.auth.accounts import Accounts
from flightkalam.auth.api_tokens import ApiTokens
from flightkalam.auth.audit_log import AuditLog
from flightkalam.auth.bearer import Bearers
from flightkalam.auth.oidc import Oidc
from flightkalam.auth.tokens import Tokens
from flightkalam.catalog.catalog import Catalog
from flightkalam.catalog.providers import SYSTEM, Providers
from flightkalam.catalog.state import FAMILY as CATALOG
from flightkalam.catalog.state import table_key
from flightkalam.clock import Clock, Snowflakes, SystemClock, node_number
from flightkalam.cold.batch_file import BatchStyle
from flightkalam.cold.manifests import Manifests
from flightkalam.cold.publication import Lineage
from flightkalam.cold.storages import CACHE, Storages
from flightkalam.config import Config, is_loopback, storage_secrets
from flightkalam.errors import ConfigError, KalamError
from flightkalam.flight.service import FlightKalamServer
from flightkalam.hot.store import HotLog
from flightkalam.jobs import backup
from flightkalam.jobs import recover as recover_
from flightkalam.jobs.backup import Backups
from flightkalam.jobs.cleanup import Cleanup
from flightkalam.jobs.compact import Compactor, CompactSettings
from flightkalam.jobs.compact_policy import Policy
from flightkalam.jobs.flush import Flusher, FlushSettings
from flightkalam.jobs.made import jobs_of
from flightkalam.jobs.memory import MemoryKeeper
from flightkalam.jobs.rebuild import Recovery
from flightkalam.jobs.retention import RowExpiry
from flightkalam.jobs.schedule import Periodic, Scheduler
from flightkalam.jobs.stream_eviction import StreamEviction
from flightkalam.jobs.upkeep import Upkeep
from flightkalam.model.schema import Table, TableKind
from flightkalam.query.duckdb_engine import DuckDBEngine
from flightkalam.query.execute import Executor
from flightkalam.query.guard import Guard, Limits
from flightkalam.session import Service, gauges, maintenance, manifests, overview, users
from flightkalam.session.cache import Readings
from flightkalam.session.deadlines import Deadlines
from flightkalam.session.parts import Parts
from flightkalam.session.receipts import Receipts
from flightkalam.session.watching import queries_of
from flightkalam.storage.file_cache import CacheFigures, FileCache
from flightkalam.storage.kv import Batch, Store
from flightkalam.table.budget import HotBudget
from flightkalam.table.check import Report
from flightkalam.table.check import check as check_scope
from flightkalam.table.door import CommitDoor
from flightkalam.table.mutate import LAST_SEQ, Writer
from flightkalam.table.scopes import Scopes
from flightkalam.table.snapshot import Snapshot
from flightkalam.table.staging import Staging
from flightkalam.web.side import Side

STORE = "store"
_DAY_SECONDS = 86_400
_CLOSING_SECONDS = 120  # after the drain: a running job ends its step
_RESERVED = b"reserved_id"
_TICKET_KEY = b"ticket_key"
log = telemetry.logger("app")


@dataclass
class Kalam:
    """A running service in this process, without its listener.

    :param root_password: what was made up for `root` at the first start, to be shown once.
    """

    config: Config
    parts: Parts
    service: Service
    store: Store
    ticket_key: bytes
    root_password: str | None
    schedule: Scheduler
    memory: MemoryKeeper
    _engine: DuckDBEngine

    def close(self) -> None:
        """Stop in the reverse order of the start.  Everything acknowledged is on disk before this, too."""
        self.schedule.close()
        self.memory.close()
        self.service.close()
        self.parts.queries.close()
        self.parts.deadlines.close()
        self.parts.storages.hurry()
        self.parts.jobs.close()
        self.parts.storages.close()
        self._engine.close()
        self.store.close()


def open_kalam(config: Config, clock: Clock | None = None) -> Kalam:
    """Open the data directory and build everything that serves it.

    :raises ConfigError: the directory cannot be used: in use by another server, of a newer format, not writable.
    :raises DataCorrupted: what is in it does not match its checksums.
    """
    clock = clock or SystemClock()
    root = config.server.data_dir
    _make_writable(root)
    if not (root / STORE).exists():
        recover_.refuse_lost(root, None)  # before a store is made
    store = Store(root / STORE, durable=config.storage.durability == "sync")
    (root / STORE).chmod(0o700)  # it holds rows of everybody, password hashes and the keys of storages
    try:
        recover_.refuse_lost(root, store)
        return _build(config, clock, root, store)
    except BaseException:
        store.close()
        raise


def _make_writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise ConfigError(f"the data directory {root} cannot be written: {e.strerror}; choose another --data-dir") from None


def _build(config: Config, clock: Clock, root: Path, store: Store) -> Kalam:
    catalog = Catalog(store, clock)
    ids = _snowflakes(config, clock, store)
    door = CommitDoor(store, ids, _number(store, LAST_SEQ))
    hot_log = HotLog(store, root / "hot")
    hot_log.sweep()
    lineage = Lineage.begin(store)
    cache = FileCache(root / CACHE, config.storage.cache_bytes, door)
    counters = telemetry.Counters()
    cached = config.manifest
    cold = Manifests(
        store,
        clock,
        root / "cold",
        cached.max_entries,
        cached.ttl_seconds,
        counters.add,
        lineage=lineage,
        cache=cache.root,
    )
    storages = Storages(cache, lineage, config.storage, storage_secrets())
    storages.start(catalog.state.storages.values())

    def current(table_id: int) -> Table | None:
        # A drop takes the record away together with the rows, a moment before it is published: whoever loads a scope in
        # between must not take a table without rows for an empty one.
        kept = store.get(CATALOG, table_key(table_id)) is not None
        return catalog.state.tables.get(table_id) if kept else None

    scopes = Scopes(
        hot_log,
        cold,
        door,
        current,
        key_cache_bytes=config.manifest.key_cache_bytes,
        bloom_cache_bytes=config.manifest.bloom_cache_bytes,
        counters=counters,
        clock=clock,
        row_cache_bytes=config.manifest.row_cache_bytes,
        small_batch_rows=config.manifest.small_batch_rows,
        budget=HotBudget(config.memory.hot_bytes or _ram_bytes() // 5, config.memory.wait_seconds, clock, counters),
    )
    engine = _engine(config, root, ids)
    jobs = jobs_of(config, clock, door, counters)
    cleanup = Cleanup(store, hot_log, cold, door)
    backups = Backups(store, door, clock, root, config.backup.folder or root / "backups")
    audit_log = AuditLog(door, clock, config.audit.retention_days, lambda: jobs.submit("audit_retention", {}))
    accounts = Accounts(store, clock, config, commit=audit_log.commit)
    tokens = Tokens(store, clock, config, accounts)
    api_tokens = ApiTokens(store, clock, accounts, commit=audit_log.commit)
    oidc = Oidc(config.oidc, clock, accounts) if config.oidc.issuer else None
    parts = Parts(
        config=config,
        clock=clock,
        ids=ids,
        counters=counters,
        catalog=catalog,
        providers=Providers(),
        accounts=accounts,
        tokens=tokens,
        api_tokens=api_tokens,
        bearers=Bearers(tokens, api_tokens, oidc),
        audit=audit_log,
        scopes=scopes,
        writer=Writer(scopes),
        staging=Staging(hot_log.folder, config.storage.hot_stage_bytes, config.ingest.batch_rows),
        executor=Executor(engine, batch_rows=config.ingest.batch_rows, max_batch_bytes=config.engine.max_batch_bytes),
        guard=Guard(engine, Limits(max_chars=config.server.max_sql_bytes * 2)),
        statements=Readings(1_024),
        jobs=jobs,
        cleanup=cleanup,
        backups=backups,
        storages=storages,
        receipts=Receipts(store, clock),
        deadlines=Deadlines(clock),
        queries=queries_of(config, clock, counters),
    )
    for figure in fields(CacheFigures):
        parts.counters.watch(f"object_cache_{figure.name}", partial(_cache_figure, cache, figure.name))
    upkeep = _upkeep(parts)
    upkeep.register()
    Recovery(scopes, clock, _finder(catalog), lambda: list(catalog.state.tables.values())).register(jobs)
    jobs.register("cleanup", cleanup.run)
    jobs.register("stream_eviction", StreamEviction(scopes, lambda: list(catalog.state.tables.values())).run)
    jobs.register(backup.KIND, backups.run)
    jobs.register("receipt_sweep", lambda wanted, control: {"removed": parts.receipts.sweep()})
    jobs.register("audit_retention", lambda wanted, control: {"removed": audit_log.let_go()})
    _register_providers(parts)
    password = accounts.ensure_root()
    audit_log.recover()
    audit_log.let_go()
    jobs.start()
    cleanup.resume(jobs)
    parts.receipts.sweep()
    service = Service(parts)
    overview.register(parts.providers, parts.queries, service, config, counters)
    gauges.watch(parts, service)
    memory = MemoryKeeper(scopes, jobs, clock, lambda: catalog.state.tables, config.memory)
    store.timed = functools.partial(counters.observe, "fsync_seconds")
    return Kalam(config, parts, service, store, _ticket_key(store), password, _schedule(parts, upkeep), memory, engine)


def _cache_figure(cache: FileCache, name: str) -> int:
    figure: int = getattr(cache.figures(), name)
    return figure


def _number(store: Store, key: bytes) -> int:
    return int.from_bytes(store.get("meta", key) or b"\0", "big")


def _snowflakes(config: Config, clock: Clock, store: Store) -> Snowflakes:
    def reserve(id_: int) -> None:
        batch = Batch()
        batch.put("meta", _RESERVED, id_.to_bytes(8, "big"))
        store.append(batch)

    floor = max(_number(store, LAST_SEQ), _number(store, _RESERVED))
    return Snowflakes(clock, node_number(config.server.node_id), floor=floor, reserve=reserve)


def _engine(config: Config, root: Path, ids: Snowflakes) -> DuckDBEngine:
    memory = config.engine.memory_bytes(_ram_bytes())
    return DuckDBEngine(
        directories=[root / "cold", root / CACHE],
        ids=ids.ids,
        version=f"FlightKalam {__version__}",
        memory_limit=f"{memory}B",
        threads=config.engine.threads or None,
        temp_directory=root / "tmp",
        temp_bytes=config.engine.temp_limit_bytes,
    )


def _ram_bytes() -> int:
    """Memory of the machine, or of the container that the process is confined to."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def _flush_settings(config: Config) -> FlushSettings:
    return FlushSettings(config.flush.rows_per_batch, BatchStyle(config.flush.row_group_rows, config.flush.compression))


def _compact_settings(config: Config) -> CompactSettings:
    flush = _flush_settings(config)
    when = config.compaction
    policy = Policy(flush.rows_per_batch, when.small_batches, when.overlapping_batches, when.dead_percent / 100)
    return CompactSettings(policy, flush.style)


def _finder(catalog: Catalog) -> Callable[[str], Table | None]:
    """The table that `ns.t` names."""

    def find(name: str) -> Table | None:
        found = catalog.state.find(*name.split(".", 1))
        return found if isinstance(found, Table) else None

    return find


def _upkeep(parts: Parts) -> Upkeep:
    """The jobs that look after tables."""
    scopes, clock, config = parts.scopes, parts.clock, parts.config

    return Upkeep(
        scopes=scopes,
        jobs=parts.jobs,
        flusher=Flusher(scopes, clock, _flush_settings(config)),
        compactor=Compactor(scopes, clock, _compact_settings(config)),
        expiry=RowExpiry(scopes, parts.writer, clock),
        find=_finder(parts.catalog),
        automatic=config.compaction.enabled,
        count=parts.counters.add,
    )


def _schedule(parts: Parts, upkeep: Upkeep) -> Scheduler:
    """What begins by itself, once there is a listener."""
    config = parts.config

    def tables() -> Mapping[int, Table]:
        return parts.catalog.state.tables

    def streams() -> dict[str, Any] | None:
        return {} if any(t.kind is TableKind.STREAM for t in tables().values()) else None

    return Scheduler(
        parts.scopes,
        parts.jobs,
        parts.clock,
        tables,
        automatic=config.compaction.enabled,
        seconds=config.flush.check_interval_seconds,
        hot_bytes=int(config.flush.hot_bytes),
        periodic=(
            Periodic("retention", config.retention.check_interval_seconds, lambda: upkeep.retention_due(tables().values())),
            Periodic("stream_eviction", config.retention.stream_interval_seconds, streams),
            Periodic("job_cleanup", _DAY_SECONDS / 24, dict),
            Periodic("audit_retention", _DAY_SECONDS, dict),
            Periodic("receipt_sweep", _DAY_SECONDS / 4, dict),
            Periodic("manifest_eviction", _DAY_SECONDS / 24, dict),
            Periodic("orphan_sweep", _DAY_SECONDS, dict),
            Periodic("store_rewrite", _DAY_SECONDS / 2, lambda: {} if config.compaction.enabled else None),
        ),
    )


def _register_providers(parts: Parts) -> None:
    parts.providers.register(SYSTEM, "jobs", maintenance.JOBS_SCHEMA, lambda _: maintenance.jobs_table(parts.jobs.list()))

    parts.providers.register(SYSTEM, "audit_log", audit.SCHEMA, lambda context: parts.audit.matching(context.predicate))

    parts.providers.register(
        SYSTEM, "users", users.USERS_SCHEMA, lambda _: users.users_table(parts.accounts.list(dropped=True))
    )
    cold = parts.scopes.manifests
    parts.providers.register(SYSTEM, "manifests", manifests.MANIFESTS_SCHEMA, manifests.manifests_table(cold))
    parts.providers.register(SYSTEM, "batches", manifests.BATCHES_SCHEMA, manifests.batches_table(cold))


def _ticket_key(store: Store) -> bytes:
    """The key that signs tickets; kept, so that they outlive a restart."""
    key = store.get("accounts", b"\0" + _TICKET_KEY)
    if key is None:
        key = secrets.token_bytes(32)
        batch = Batch()
        batch.put("accounts", b"\0" + _TICKET_KEY, key)
        store.commit(batch)
    return key


# -- serving ----------------------------------------------------------------------------------------------------------


class Listener:
    """The service with its listeners.  `close` drains.

    :ivar location: where clients with a password or a token come in; the only one, unless there is a port for certificates.
    :ivar certificate_location: where those with a client certificate do, if they have a port of their own.
    """

    def __init__(self, kalam: Kalam, side: Side | None = None) -> None:
        server = kalam.config.server
        self.kalam = kalam
        self.side = side or Side(kalam.config.http)
        apart = server.tls_client_port is not None
        self._servers = [self._listen(server.port, certificates=server.tls_client_ca is not None and not apart)]
        self.location = self._location(self._servers[0].port)
        self.certificate_location: str | None = None
        if server.tls_client_port is not None:
            try:
                self._servers.append(self._listen(server.tls_client_port, certificates=True))
            except BaseException:
                self._servers[0].shutdown()
                raise
            self.certificate_location = self._location(self._servers[1].port)
        kalam.schedule.start()
        kalam.memory.start()
        self.side.serves(kalam.store.why_not_writable, kalam.parts.counters.samples)

    def _listen(self, port: int, *, certificates: bool) -> FlightKalamServer:
        server = self.kalam.config.server
        return FlightKalamServer(
            self.kalam.service,
            self._location(port),
            tls_certificates=_certificates(server.tls_cert, server.tls_key),
            verify_client=certificates,
            root_certificates=_read(server.tls_client_ca) if certificates and server.tls_client_ca is not None else None,
            ticket_key=self.kalam.ticket_key,
        )

    def _location(self, port: int) -> str:
        server = self.kalam.config.server
        host = f"[{server.host}]" if ":" in server.host else server.host
        return f"{'grpc+tls' if server.tls else 'grpc'}://{host}:{port}"

    def close(self) -> bool:
        """Let running results end, then close everything; whether every call has ended."""
        self.side.drains()
        monotonic = self.kalam.parts.clock.monotonic
        deadline = monotonic() + self.kalam.config.server.drain_seconds
        ended = [server.drain(max(0.0, deadline - monotonic())) for server in self._servers]
        self.kalam.close()
        self.side.close()
        return all(ended)


def _certificates(cert: Path | None, key: Path | None) -> list[tuple[bytes, bytes]] | None:
    return None if cert is None or key is None else [(_read(cert), _read(key))]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}") from None


def listen(config: Config) -> Listener:
    """:raises ConfigError: the port is taken, or the data directory cannot be used."""
    side = Side(config.http)  # first of all: whoever watches sees that the service starts
    try:
        kalam = open_kalam(config)
    except BaseException:
        side.close()
        raise
    try:
        return Listener(kalam, side)
    except (OSError, pa.ArrowException):  # Arrow says no more than that the server did not start
        kalam.close()
        side.close()
        where = f"{config.server.host}:{config.server.port}"
        raise ConfigError(
            f"cannot listen on {where}: the port is taken, or the address is not one of this machine; choose another --port"
        ) from None
    except BaseException:
        kalam.close()
        side.close()
        raise


def serve(config: Config, announce: Callable[[str], None]) -> NoReturn:
    """Serve until SIGTERM or SIGINT, then drain, stop and end the process."""
    telemetry.configure(config.log)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    listener = listen(config)
    password = listener.kalam.root_password
    if password is not None:
        announce(f"The first start made the account root with the password {password}  (shown this once)")
    if not config.server.tls and not is_loopback(config.server.host):
        log.warning("plain_text_beyond_loopback", host=config.server.host)
    if listener.certificate_location is not None:
        announce(f"FlightKalam takes client certificates at {listener.certificate_location}")
    if listener.side.port is not None:
        announce(f"FlightKalam shows health and metrics at {listener.side.port.location}")
    announce(f"FlightKalam ready {listener.location}")
    stop.wait()
    log.info("draining", seconds=config.server.drain_seconds)
    overdue = threading.Timer(config.server.drain_seconds + _CLOSING_SECONDS, _overdue)
    overdue.daemon = True
    overdue.start()
    ended = listener.close()
    log.info("stopped", every_call_ended=ended)
    _leave(0)


def _overdue() -> None:
    """What is closing does not end.  Everything acknowledged is on disk, and the next start settles the rest."""
    log.error("closing_abandoned", seconds=_CLOSING_SECONDS, threads=sorted(t.name for t in threading.enumerate()))
    _leave(1)


def _leave(code: int) -> NoReturn:
    """End the process at once, after everything is closed and on disk.

    The interpreter's own end waits for threads of others: Arrow's, of a client that reads no more, those that fetch from an
    object store, and those of libraries that ask for the interpreter once it is gone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def stopped_accounts(config: Config) -> Iterator[Accounts]:
    """The accounts of a data directory that no server uses.

    :raises ConfigError: it is no data directory, or a server is running on it.
    """
    store = Store(_data_directory(config) / STORE)
    try:
        yield Accounts(store, SystemClock(), config)
    finally:
        store.close()


def _data_directory(config: Config) -> Path:
    root = config.server.data_dir
    if not (root / STORE).is_dir():
        recover_.refuse_lost(root, None)
        raise ConfigError(f"{root} is not a data directory of this service")
    return root


def check(config: Config, report: Callable[[str], None]) -> int:
    """Check a data directory that no server uses: every file against its checksums and its manifest, every scope's visible rows
    against MAX(_seq).

    :return: 0 when all is well, 1 when something is not.
    """
    _data_directory(config)
    kalam = open_kalam(config)
    try:
        parts, bad = kalam.parts, 0
        with parts.scopes.door.pinned() as watermark:
            for table in parts.catalog.state.tables.values():
                for scope in parts.scopes.of_table(table):
                    found = _checked(parts, table, scope.owner, watermark)
                    bad += bool(found.problems)
                    state = "ok" if not found.problems else "DAMAGED"
                    report(
                        f"{found.table} ({found.scope}): {state}, {found.batches} batches, {found.versions} versions, "
                        f"{found.visible} visible rows"
                    )
                    for problem in found.problems:
                        report(f"  {problem}")
        report("all is well" if not bad else f"{bad} scope(s) are damaged")
        return 1 if bad else 0
    finally:
        kalam.close()


def recover(config: Config, report: Callable[[str], None], *, accept_loss: bool) -> int:
    """Make the lost store of a data directory again from the Parquet files in it.

    :return: 0; 1 when batches are missing or damaged, and nothing was changed.
    :raises ConfigError: the store is not lost, there is nothing to make it from, or a server runs on it.
    """
    root, clock = config.server.data_dir, SystemClock()
    if not recover_.is_lost(root, None):
        raise ConfigError(f"{root} holds no table files: there is nothing to recover")
    store = Store(root / STORE)
    (root / STORE).chmod(0o700)
    try:
        if not recover_.is_lost(root, store):
            raise ConfigError(
                f"the store of {root} is not lost; a lost manifest of a table comes back by itself, or by REBUILD MANIFEST"
            )
        cold = Manifests(store, clock, root / "cold")
        return recover_.Recoverer(root, store, cold, HotLog(store, root / "hot"), clock, report).run(accept_loss=accept_loss)
    finally:
        store.close()


def restore(source: Path, data_dir: Path | None, report: Callable[[str], None]) -> int:
    """Make a data directory out of a backup, or, without a data directory, only verify the backup.

    :raises ConfigError, DataCorrupted: nothing was made.
    """
    if data_dir is None:
        inventory, done = backup.verify(source), "is whole"
    else:
        inventory, done = backup.restore(source, data_dir), f"is restored into {data_dir}"
    report(
        f'the backup "{inventory.name}" of {inventory.created_at} {done}: '
        f"{len(inventory.files)} files, {inventory.size:,} bytes"
    )
    return 0


def _checked(parts: Parts, table: Table, owner: str | None, watermark: int) -> Report:
    """The report of one scope; a scope that cannot even be opened is a problem in itself."""
    try:
        return check_scope(Snapshot.take(parts.scopes, table, owner, watermark))
    except KalamError as e:
        return Report(table.qualified, owner or "shared", problems=[e.message])
