"""Named places where a test may make the process fail.

Every step whose failure or crash must leave the data right calls `hit("room.step")`.  Nothing is armed in a running
service: then a hit costs one look at an empty dictionary.
"""

from __future__ import annotations

from collections.abc import Callable

_armed: dict[str, Callable[[], None]] = {}
_seen: set[str] | None = None


def hit(name: str) -> None:
    """Run what a test has armed at this place."""
    if _seen is not None:
        _seen.add(name)
    if _armed:
        action = _armed.get(name)
        if action is not None:
            action()


def arm(name: str, action: Callable[[], None]) -> None:
    """Have `action` run at each hit of `name`: raise, sleep or end the process there."""
    _armed[name] = action


def disarm() -> None:
    """Forget every armed action."""
    global _seen
    _armed.clear()
    _seen = None


def record() -> set[str]:
    """Collect the names of the places passed from now on, so that a test can walk through all of them."""
    global _seen
    _seen = set()
    return _seen
