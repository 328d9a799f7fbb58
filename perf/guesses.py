"""A flood of wrong passwords for one account: how many of them cost an argon2 hash.

In this process, through the service's own accounts on a real store, with the costs of the default settings: over the wire the
clients would take most of the time.  Beside it a login that hashes every guess.
"""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

from flightkalam.auth.accounts import Accounts
from flightkalam.auth.identity import Role
from flightkalam.auth.passwords import Passwords
from flightkalam.clock import SystemClock
from flightkalam.config import Config
from flightkalam.errors import Unauthenticated
from flightkalam.storage.kv import Store
from perf.result import Result, Target, timed
from perf.world import World

NAME = "guesses"
_GUESSES, _THREADS, _HASHES_TIMED = 10_000, 16, 5


class _Counted(Passwords):
    """Counts the passwords that are hashed to be compared."""

    def __init__(self, counted: Passwords) -> None:
        self.__dict__.update(counted.__dict__)
        self.tried = 0
        self._counting = threading.Lock()

    def matches(self, stored: str | None, password: str) -> bool:
        with self._counting:
            self.tried += 1
        return super().matches(stored, password)


def measure(world: World) -> Result:
    folder = world.folder / NAME
    store = Store(folder)
    try:
        accounts = Accounts(store, SystemClock(), Config())
        stored = accounts.create("victim", "correct horse battery", Role.USER).password_hash
        one = timed(lambda: [accounts._passwords.matches(stored, "wrong") for _ in range(_HASHES_TIMED)]) / _HASHES_TIMED
        counted = accounts._passwords = _Counted(accounts._passwords)
        seconds = timed(lambda: _flood(accounts))
    finally:
        store.close()
        shutil.rmtree(folder)
    if seconds > 60:
        raise AssertionError(f"{_GUESSES} guesses took {seconds:.0f} s, more than the minute they are counted in")
    return Result(
        name=NAME,
        ours=counted.tried,
        peer=_GUESSES,
        ratio=counted.tried / _GUESSES,
        target=Target("ours", "at most", 10),
        unit="hashes",
        peer_name="a hash per guess",
        runs=1,
        note=f"{_GUESSES:,} guesses from {_THREADS} threads in {seconds:.2f} s; one hash takes {one * 1000:.0f} ms",
    )


def _flood(accounts: Accounts) -> None:
    def guess(i: int) -> None:
        try:
            accounts.verify("victim", f"guess {i}", f"ipv4:192.0.2.{i % 250}:4000")
        except Unauthenticated:
            return
        raise AssertionError("a wrong password came in")

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(guess, range(_GUESSES)))
