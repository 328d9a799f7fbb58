"""File names: no user's folder is another's, and none leaves the table's."""

from __future__ import annotations

from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flightkalam.cold import paths
from flightkalam.cold.paths import batch_name, batch_number, escaped, is_vectors, scope_folder, vectors_name
from flightkalam.model.ids import Scope

USERS = st.one_of(
    st.sampled_from(["a", ".", "..", "/", "../../etc", "a/b", "a%2Fb", "A", "~", "a b", "\x00", "x" * 500, "x" * 499 + "y"]),
    st.text(min_size=1, max_size=8),
    st.text(min_size=60, max_size=300),
)
LAW = settings(max_examples=200, deadline=None, derandomize=True)
ROOT = Path("/data/cold")


@LAW
@given(USERS)
def test_a_user_id_is_one_plain_folder_name(user: str) -> None:
    name = escaped(user)
    assert name not in ("", ".", "..") and "/" not in name and "\x00" not in name
    assert len(name.encode()) <= 255
    assert scope_folder(ROOT, "main/t~1", Scope(1, user)).parent == ROOT / "main/t~1"


@LAW
@given(USERS, USERS)
def test_no_two_users_share_a_folder(a: str, b: str) -> None:
    assume(a != b)
    assert escaped(a) != escaped(b)


def test_long_users_that_differ_at_the_end_are_told_apart() -> None:
    assert escaped("ü" * 300) != escaped("ü" * 299 + "v")


@LAW
@given(USERS)
def test_a_users_folder_is_never_a_file_of_a_shared_table(user: str) -> None:
    name = escaped(user)
    assert batch_number(name) is None and not is_vectors(name) and name != paths.MANIFEST


def test_names_of_batches_and_vectors_are_read_back() -> None:
    assert batch_number(batch_name(17)) == 17
    assert is_vectors(vectors_name(4)) and batch_number(vectors_name(4)) is None
    for stranger in ("batch-1.parquet.bak", ".batch-1.parquet.tmp", "batch-x.parquet", "xbatch-1.parquet"):
        assert batch_number(stranger) is None
