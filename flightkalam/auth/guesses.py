"""How many guesses there are: token buckets per name and per peer, which only failures spend.

    enter ── bucket empty ─────────────────────────▶ refused, and no hash is computed
      │ └─── all that is left is being tried ──▶ wait for one of those to end
      ▼
    the password is tried ──▶ leave: right gives back, wrong has spent one

A lock-out protects one account; it does not protect the processor from guesses at names without account or at locked ones,
nor the others from one peer that tries one password on every name.  What is under way counts as spent until it has ended, so a
thousand guesses at once are no way around.  Known and unknown names have the same buckets, so a refusal tells nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from flightkalam.auth.identity import normal_name
from flightkalam.clock import Clock

_MOST = 65_536  # buckets kept; beyond it the longest untouched go, which are nearly always full again


@dataclass
class _Bucket:
    level: float
    filled_at: float
    trying: int = 0
    refusing: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)


class Buckets:
    """One bucket per key, full at first, full again `window_s` after it was emptied.

    :param size: failures that a full bucket allows.
    """

    def __init__(self, clock: Clock, size: int, window_s: float) -> None:
        self._clock = clock
        self._size = size
        self._window_s = window_s
        self._lock = threading.RLock()
        self._buckets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def enter(self, key: bytes) -> bool:
        """Reserve one guess; waits while those that are left are being tried.  False: there is none."""
        with self._lock:
            bucket = self._bucket(key)
            while bucket.trying and bucket.trying > bucket.level - 1:
                bucket.changed.wait()
                self._refill(bucket)
            if bucket.level < 1:
                return False
            bucket.trying += 1
            bucket.refusing = False
            return True

    def leave(self, key: bytes, *, failed: bool) -> None:
        """The guess has ended."""
        with self._lock:
            bucket = self._bucket(key)
            bucket.trying = max(0, bucket.trying - 1)
            if failed:
                bucket.level = max(0.0, bucket.level - 1)
            bucket.changed.notify_all()

    def first_refusal(self, key: bytes) -> bool:
        """Whether this is the first refusal since a guess was let in: worth a line, which the thousandth is not."""
        with self._lock:
            bucket = self._bucket(key)
            first, bucket.refusing = not bucket.refusing, True
            return first

    def _bucket(self, key: bytes) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = _Bucket(float(self._size), self._clock.monotonic(), changed=threading.Condition(self._lock))
            self._buckets[key] = bucket
            self._forget_some()
        self._buckets.move_to_end(key)
        self._refill(bucket)
        return bucket

    def _refill(self, bucket: _Bucket) -> None:
        now = self._clock.monotonic()
        bucket.level = min(self._size, bucket.level + (now - bucket.filled_at) * self._size / self._window_s)
        bucket.filled_at = now

    def _forget_some(self) -> None:
        while len(self._buckets) > _MOST:
            key, bucket = self._buckets.popitem(last=False)
            if bucket.trying:  # somebody holds it
                self._buckets[key] = bucket
                return


class Guesses:
    """The buckets of names and of peers.  Thread-safe."""

    def __init__(self, clock: Clock, per_user: int, per_peer: int, window_s: float) -> None:
        self._users = Buckets(clock, per_user, window_s)
        self._peers = Buckets(clock, per_peer, window_s)

    def enter(self, name: str, peer: str) -> bool:
        """Whether a password may be tried; then `leave` must follow."""
        if not self._users.enter(_user_key(name)):
            return False
        peer_key = peer_key_of(peer)
        if peer_key is not None and not self._peers.enter(peer_key):
            self._users.leave(_user_key(name), failed=False)
            return False
        return True

    def leave(self, name: str, peer: str, *, failed: bool) -> None:
        self._users.leave(_user_key(name), failed=failed)
        peer_key = peer_key_of(peer)
        if peer_key is not None:
            self._peers.leave(peer_key, failed=failed)

    def first_refusal(self, name: str) -> bool:
        return self._users.first_refusal(_user_key(name))


def _user_key(name: str) -> bytes:
    """Of fixed size, whatever is sent as a name; names that are one account share a bucket."""
    return hashlib.blake2b(normal_name(name).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def peer_key_of(peer: str) -> bytes | None:
    """Who a gRPC peer is, without its port; None where it is not known (a handshake) or is this machine's own socket.

    An IPv6 host has a whole /64 to itself, so that is what counts.
    """
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return None
    host = rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 6:
        address = address.ipv4_mapped or address
    return address.packed if address.version == 4 else address.packed[:8]
