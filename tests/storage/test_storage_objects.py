"""Files appear whole or not at all, and an error says which file and never where it lies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flightkalam import failpoints
from flightkalam.errors import DiskFull, InternalError
from flightkalam.storage import objects


@pytest.fixture(autouse=True)
def nothing_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm()


def fail_with(number: int) -> None:
    raise OSError(number, os.strerror(number))


def test_a_file_is_written_in_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert objects.read(path) is None
    objects.write(path, b"one")
    objects.write(path, b"two")
    assert objects.read(path) == b"two" and objects.size(path) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("place", ["file.before_sync", "file.before_rename"])
@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, InternalError)])
def test_a_failure_before_the_rename_keeps_what_was_there(
    tmp_path: Path, place: str, number: int, error: type[Exception]
) -> None:
    path = tmp_path / "f"
    objects.write(path, b"old")
    failpoints.arm(place, lambda: fail_with(number))
    with pytest.raises(error):
        objects.write(path, b"new")
    assert objects.read(path) == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_data_is_synced_before_the_rename_and_the_folder_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-40."""
    steps: list[str] = []
    sync, rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        steps.append(f"rename {self.name} {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    folder = tmp_path / "folder"
    objects.make_folder(folder / "deep")
    assert steps == ["sync folder", f"sync {tmp_path.name}"]
    steps.clear()
    objects.write(folder / "f", b"x")
    assert steps == ["sync .f.tmp", "rename .f.tmp f", "sync folder"]


def test_an_error_names_the_file_and_not_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "secret-folder"
    with pytest.raises(InternalError, match=r"f\.bin") as said:
        objects.write(folder / "f.bin", b"x")
    assert "secret-folder" not in said.value.message
    with pytest.raises(InternalError):
        objects.size(folder / "f.bin")
    with pytest.raises(InternalError):
        objects.read(tmp_path)


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    objects.remove(tmp_path / "f")
    objects.remove_tree(tmp_path / "d")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"")
    objects.remove_tree(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_failpoints_are_remembered_while_they_are_recorded() -> None:
    failpoints.hit("a")
    seen = failpoints.record()
    failpoints.hit("b")
    assert seen == {"b"}
    failpoints.disarm()
    failpoints.hit("c")
    assert seen == {"b"}
