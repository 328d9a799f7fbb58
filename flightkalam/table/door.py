"""The commit door: one mutex, one order.

Everything that changes data or catalog passes here.  Inside the mutex a commit takes its `_seq`, is put into the log and
into memory; so the order of `_seq`, of the log and of publication is one (T-5).  Readers use the *watermark*, the last
`_seq` known to be durable; it moves when the sync thread has synced, in one step for all commits that were waiting.

    writer      take _seq · build · [memory] · append ──── wait ───────────▶ reply
    sync thread                                    sync · watermark := last ▲
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flightkalam.clock import Snowflakes
from flightkalam.storage.kv import Batch, Store


@dataclass(frozen=True, slots=True)
class Pin:
    """A reader's hold on a watermark."""

    number: int
    watermark: int


class CommitDoor:
    """The server-wide commit mutex, the watermark and the readers that hold an older one.

    :param ids: hands out `_seq`.
    :param watermark: the last `_seq` that was durable when the store was opened.
    """

    def __init__(self, store: Store, ids: Snowflakes, watermark: int) -> None:
        self.store = store
        self.ids = ids
        self.mutex = threading.RLock()
        self._watermark = watermark
        self._publish = threading.Lock()
        self._pending: deque[tuple[int, int]] = deque()  # (store position, last _seq), in order
        self._synced = 0
        self._pins: dict[int, Pin] = {}
        self._last_pin = 0
        self._leaving: list[tuple[int, Callable[[], None]]] = []  # (last pin to wait for, what to do then)
        store.on_synced(self._on_synced)

    @property
    def watermark(self) -> int:
        """Everything with `_seq` up to here is durable and visible."""
        return self._watermark

    def append(self, batch: Batch, last_seq: int | None) -> int:
        """Append a commit whose rows end at `last_seq` (None: it has no rows).  Call with the mutex held."""
        position = self.store.append(batch)
        if last_seq is not None:
            with self._publish:
                if position <= self._synced:
                    self._watermark = max(self._watermark, last_seq)
                else:
                    self._pending.append((position, last_seq))
        return position

    def wait(self, position: int) -> None:
        """Return when the commit at `position` is durable and visible."""
        self.store.wait(position)

    def _on_synced(self, position: int) -> None:
        with self._publish:
            self._synced = position
            while self._pending and self._pending[0][0] <= position:
                self._watermark = max(self._watermark, self._pending.popleft()[1])

    # -- readers ----------------------------------------------------------------------------------------------

    def pin(self) -> Pin:
        """Take the watermark and keep every scope readable at it until `unpin`."""
        with self._publish:
            self._last_pin += 1
            pin = Pin(self._last_pin, self._watermark)
            self._pins[pin.number] = pin
            return pin

    def unpin(self, pin: Pin) -> None:
        with self._publish:
            self._pins.pop(pin.number, None)
            due = self._due() if self._leaving else []
        for action in due:
            action()

    def after_readers(self, action: Callable[[], None]) -> None:
        """Run `action` once every reader that there is now has ended: at once when there is none, else by the thread that ends
        the last of them.  So it must be short, must not raise and must take no lock: that thread may hold any."""
        with self._publish:
            self._leaving.append((self._last_pin, action))
            due = self._due()
        for action in due:
            action()

    def _due(self) -> list[Callable[[], None]]:
        oldest = min(self._pins, default=self._last_pin + 1)
        due = [action for last, action in self._leaving if last < oldest]
        self._leaving = [waiting for waiting in self._leaving if waiting[0] >= oldest]
        return due

    def oldest_pin(self) -> int:
        """The lowest watermark that a reader still holds; the current one when there is none."""
        with self._publish:
            return min((p.watermark for p in self._pins.values()), default=self._watermark)

    def readers_before(self) -> int:
        """A mark between the readers there are and those to come, for `readers_gone`."""
        with self._publish:
            return self._last_pin

    def readers_gone(self, mark: int) -> bool:
        """Whether every reader from before the mark has ended."""
        with self._publish:
            return all(number > mark for number in self._pins)

    @contextmanager
    def pinned(self) -> Iterator[int]:
        pin = self.pin()
        try:
            yield pin.watermark
        finally:
            self.unpin(pin)
