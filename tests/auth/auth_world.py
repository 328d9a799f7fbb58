"""A clock that only moves when told, cheap hashes, and a store in memory that counts its durable writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flightkalam.auth.accounts import Account, Accounts
from flightkalam.auth.identity import Identity, Role
from flightkalam.auth.tokens import Tokens
from flightkalam.config import Config
from flightkalam.storage.kv import Batch

PASSWORD = "correct horse"


class ManualClock:
    def __init__(self) -> None:
        self.us = 1_750_000_000_000_000

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6

    def advance(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


class MemoryStore:
    def __init__(self) -> None:
        self.data: dict[tuple[str, bytes], bytes] = {}
        self.commits = 0

    def get(self, family: str, key: bytes) -> bytes | None:
        return self.data.get((family, key))

    def scan(self, family: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter([(k, v) for (f, k), v in sorted(self.data.items()) if f == family and k.startswith(prefix)])

    def commit(self, batch: Batch) -> None:
        self.commits += 1
        for operation, family, key, value in batch.operations:
            if operation == "put":
                self.data[family, key] = value
            else:
                self.data.pop((family, key), None)


def cheap(**auth: Any) -> Config:
    unhindered = {"guesses_per_user": 100_000, "guesses_per_peer": 100_000}
    return Config(auth={"argon2_time_cost": 1, "argon2_memory_kib": 512, **unhindered, **auth})


@dataclass
class World:
    """Everything a test of this room needs; `restart` opens the same store again."""

    config: Config
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=ManualClock)
    accounts: Accounts = field(init=False)
    tokens: Tokens = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        numbers = itertools.count()

        def entropy(n: int) -> bytes:
            return next(numbers).to_bytes(n, "little")

        self.accounts = Accounts(self.store, self.clock, self.config, entropy=entropy)  # type: ignore[arg-type]
        self.tokens = Tokens(self.store, self.clock, self.config, self.accounts, entropy=entropy)  # type: ignore[arg-type]

    def user(self, name: str, role: Role = Role.USER) -> Account:
        return self.accounts.create(name, PASSWORD, role)

    def identity(self, name: str, role: Role) -> Identity:
        account = self.accounts.get(name) or self.user(name, role)
        return Identity.of(account.name, account.role, session_id="s", via="password")
