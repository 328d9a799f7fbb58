"""Which version of a row is visible.  The rule that everything else in this room is a shortcut for.

Nothing is updated in place: INSERT, UPDATE and DELETE append versions, a delete a tombstone (`_deleted`).

    the visible row of a key = its version with MAX(_seq) over hot and cold together, unless that is a tombstone

    time ──────────────────────────────────────────────────────────────────────────────▶  _seq
    key 7     v10 ──────────── superseded by 31 ─┐
                                                 v31 ── superseded by 50 ─┐
                                                                          ✝50 (tombstone)
    reader at 20 sees v10 · reader at 40 sees v31 · reader at 60 sees nothing

Comparing keys at read time would be slow and would forbid every filter below it.  So whoever supersedes a version records
*where the old one sits* in the same atomic write: a mark (row, by).  A reader at watermark W skips a row when it carries a
mark with by ≤ W.  Why that gives the same answer:

1.  Writers of a scope are serialised and look at the head, so a new version of a key meets at most one version without a
    mark (the live one) and marks it.  By induction every version but the newest carries a mark, whose `by` is the `_seq` of
    the next newer version.
2.  A reader at W sees exactly the versions with _seq ≤ W (the log is in `_seq` order and is cut there).  Among them the
    newest of each key is the only one whose superseder is not ≤ W.
3.  A flush writes versions without a mark at its snapshot S, the others can be seen by no reader at or above S; readers
    below S keep the layout from before.  Marks of versions above S move with the row to its new place.

So no reader compares keys, and it is safe to filter and prune on any column.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flightkalam.model.keys import I64, U64


def newest(keys: U64, seqs: I64) -> npt.NDArray[np.bool_]:
    """The rule itself: which rows have MAX(_seq) of their key, bool[n].

    :param keys: one number per key, equal exactly for equal keys.
    """
    order = np.lexsort((seqs, keys))
    last = np.ones(len(keys), bool)
    last[:-1] = keys[order][1:] != keys[order][:-1]
    out = np.zeros(len(keys), bool)
    out[order[last]] = True
    return out
