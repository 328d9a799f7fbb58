"""What sessions are made of: every part that `app` builds, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass

from flightkalam.auth.accounts import Accounts
from flightkalam.auth.api_tokens import ApiTokens
from flightkalam.auth.audit_log import AuditLog
from flightkalam.auth.bearer import Bearers
from flightkalam.auth.tokens import Tokens
from flightkalam.catalog.catalog import Catalog
from flightkalam.catalog.providers import Providers
from flightkalam.clock import Clock, Snowflakes
from flightkalam.cold.storages import Storages
from flightkalam.config import Config
from flightkalam.jobs.backup import Backups
from flightkalam.jobs.cleanup import Cleanup
from flightkalam.jobs.runner import Jobs
from flightkalam.query.execute import Executor
from flightkalam.query.guard import Guard
from flightkalam.session.cache import Readings
from flightkalam.session.deadlines import Deadlines
from flightkalam.session.queries import Queries
from flightkalam.session.receipts import Receipts
from flightkalam.table.mutate import Writer
from flightkalam.table.scopes import Scopes
from flightkalam.table.staging import Staging
from flightkalam.telemetry import Counters


@dataclass(frozen=True)
class Parts:
    config: Config
    clock: Clock
    ids: Snowflakes
    counters: Counters
    catalog: Catalog
    providers: Providers
    accounts: Accounts
    tokens: Tokens
    api_tokens: ApiTokens
    bearers: Bearers
    audit: AuditLog
    scopes: Scopes
    writer: Writer
    staging: Staging
    executor: Executor
    guard: Guard
    statements: Readings
    jobs: Jobs
    cleanup: Cleanup
    backups: Backups
    storages: Storages
    receipts: Receipts
    deadlines: Deadlines
    queries: Queries
