"""What an object store promises, and what is made of the answers that it gives instead (T-41)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_store import BUCKET, S3, Proxy

from flightkalam.errors import Cancelled, DataCorrupted, Fenced, InvalidValue, StorageUnavailable
from flightkalam.model.storage import Storage
from flightkalam.storage import mounts, objects
from flightkalam.storage.buckets import Bucket, Facts, FolderBucket, S3Bucket, Taken, checksum, open_bucket
from flightkalam.storage.file_cache import FileCache
from flightkalam.storage.mounts import Mount, Moved
from flightkalam.storage.patience import Patience, Unreached, stopped_by


class Pins:
    """Readers as the commit door counts them."""

    def __init__(self) -> None:
        self.last = 0
        self.open: set[int] = set()
        self.waiting: list[tuple[int, Callable[[], None]]] = []

    def begin(self) -> int:
        self.last += 1
        self.open.add(self.last)
        return self.last

    def end(self, number: int) -> None:
        self.open.discard(number)
        due = [action for last, action in self.waiting if all(n > last for n in self.open)]
        self.waiting = [w for w in self.waiting if w[1] not in due]
        for action in due:
            action()

    def after_readers(self, action: Callable[[], None]) -> None:
        self.waiting.append((self.last, action))
        self.end(-1)

    def readers_before(self) -> int:
        return self.last

    def readers_gone(self, mark: int) -> bool:
        return all(number > mark for number in self.open)


def spec(url: str, prefix: str, **more: object) -> Storage:
    keys = {"access_key_id": "k", "secret_access_key": "s"}
    return Storage("far", "s3", f"s3://{BUCKET}/{prefix}", endpoint=url, **keys, **more)  # type: ignore[arg-type]


@pytest.fixture
def s3_bucket(proxy: Proxy, prefix: str) -> S3Bucket:
    return S3Bucket(spec(proxy.url, prefix), {}, 1.5)


@pytest.fixture(params=["s3", "folder"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    if request.param == "s3":
        return request.getfixturevalue("s3_bucket")
    made = FolderBucket(tmp_path / "share")
    (tmp_path / "share").mkdir()
    made.put("flightkalam.json", b"ours", None)
    return made


@pytest.fixture
def pins() -> Pins:
    return Pins()


@pytest.fixture
def mount(s3_bucket: S3Bucket, tmp_path: Path, pins: Pins) -> Iterator[Mount]:
    made = Mount("far", s3_bucket, FileCache(tmp_path / "cache", 10_000, pins), 2)
    mounts.mount(made)
    yield made
    mounts.unmount(tmp_path)


KEY = "main/t~1/a%41 ~b/batch-0.parquet"  # as escaped user ids look (T-47)


def test_an_object_is_made_once_and_replaced_on_a_condition(bucket: Bucket) -> None:
    assert bucket.get(KEY) is None and bucket.facts(KEY) is None and bucket.part(KEY, 0, 9) == b""
    tag = bucket.put(KEY, b"one", None)
    assert bucket.facts(KEY) == Facts(3, checksum(b"one"))
    with pytest.raises(Taken):
        bucket.put(KEY, b"two", None)
    newer = bucket.put(KEY, b"three", tag)
    with pytest.raises(Taken):
        bucket.put(KEY, b"four", tag)
    found = bucket.get(KEY)
    assert found is not None and (found.data, found.tag) == (b"three", newer)
    assert bucket.part(KEY, 1, 3) == b"hre"


def test_of_many_who_make_one_object_one_does(bucket: Bucket) -> None:
    made: list[bytes] = []

    def make(data: bytes) -> None:
        try:
            bucket.put("main/one", data, None)
            made.append(data)
        except Taken:
            pass

    threads = [threading.Thread(target=make, args=(b"%d" % i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    found = bucket.get("main/one")
    assert found is not None and made == [found.data]


def test_names_are_those_that_were_given(bucket: Bucket) -> None:
    for key in (KEY, "main/t~1/manifest.json", "main/t~10/x"):
        bucket.put(key, b"1", None)
    assert bucket.names("main/t~1") == ["manifest.json"] and bucket.names("none") == []
    assert bucket.keys("main/t~1") == sorted([KEY, "main/t~1/manifest.json"])
    bucket.delete([KEY, "main/none"])
    assert bucket.keys("main") == ["main/t~1/manifest.json", "main/t~10/x"]


def test_a_share_that_is_not_mounted_is_no_empty_one(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    away = FolderBucket(tmp_path / "share")
    for ask in (lambda: away.get("main/x"), lambda: away.names("main"), lambda: away.put("main/x", b"", None)):
        with pytest.raises(Unreached):
            ask()


# -- answers that say nothing ------------------------------------------------------------------------------------------

LOST = [{"status": 0, "after": True}, {"status": 500, "after": True}, {"pause": 1.8, "after": True}]
NOT_DONE = [{"status": 0}, {"status": 500}, {"status": 503}, {"status": 409}]


def put_file(path: Path, data: bytes) -> Path:
    objects.make_folder(path.parent)
    objects.write(path, data)
    return path


@pytest.mark.parametrize("how", LOST + NOT_DONE, ids=str)
def test_an_upload_takes_effect_once_whatever_is_answered(mount: Mount, proxy: Proxy, s3: S3, prefix: str, how: dict) -> None:
    proxy.fail("PUT", "batch-0", **how)
    path = put_file(mount.root / "main/t~1/batch-0.parquet", b"rows")
    assert s3.read(f"{prefix}/main/t~1/batch-0.parquet") == b"rows" and objects.read(path) == b"rows"


def test_an_upload_overwrites_nothing(mount: Mount, s3: S3, prefix: str) -> None:
    s3.put(f"{prefix}/main/t~1/batch-0.parquet", b"theirs")
    path = mount.root / "main/t~1/batch-0.parquet"
    with pytest.raises(Fenced, match="already has another batch-0.parquet"):
        put_file(path, b"ours")
    assert s3.read(f"{prefix}/main/t~1/batch-0.parquet") == b"theirs"
    assert objects.read(path) == b"theirs", "nothing of ours stays in the cache"


@pytest.mark.parametrize("how", LOST + NOT_DONE, ids=str)
def test_a_swap_takes_effect_once_whatever_is_answered(mount: Mount, proxy: Proxy, how: dict) -> None:
    path = mount.root / "main/t~1/manifest.json"
    proxy.fail("PUT", "manifest", **how)
    first = objects.swap(path, b"1", None)
    proxy.fail("PUT", "manifest", **how)
    second = objects.swap(path, b"2", first)
    found = objects.current(path)
    assert found is not None and (found.data, found.tag) == (b"2", second)


def test_a_swap_that_lost_says_to_whom(mount: Mount, s3: S3, prefix: str) -> None:
    path = mount.root / "main/t~1/manifest.json"
    tag = objects.swap(path, b"1", None)
    s3.put(f"{prefix}/main/t~1/manifest.json", b"theirs")
    with pytest.raises(Moved) as moved:
        objects.swap(path, b"2", tag)
    assert moved.value.current is not None and moved.value.current.data == b"theirs"
    s3.delete(f"{prefix}/main/t~1/manifest.json")
    with pytest.raises(Moved) as moved:
        objects.swap(path, b"2", tag)
    assert moved.value.current is None


def test_a_store_that_stays_away_is_asked_a_few_times_then_once(mount: Mount, proxy: Proxy) -> None:
    proxy.away = True
    path = mount.root / "main/t~1/batch-0.parquet"
    with pytest.raises(StorageUnavailable, match='storage "far" cannot be reached .no answer.*try again later'):
        objects.read(path)
    assert len(proxy.log) == 3
    with pytest.raises(StorageUnavailable):
        objects.read(path)
    assert len(proxy.log) == 4, "what is known need not be learnt again"
    proxy.away = False
    assert mount.current(path) is None


def test_what_is_refused_is_not_repeated(mount: Mount, proxy: Proxy) -> None:
    proxy.fail("GET", status=403)
    with pytest.raises(StorageUnavailable, match="refuses us; check its keys"):
        mount.current(mount.root / "x")
    proxy.fail("GET", status=400)
    with pytest.raises(StorageUnavailable, match="refuses the request with 400"):
        mount.current(mount.root / "x")
    assert len(proxy.log) == 2


def test_a_repetition_can_be_stopped() -> None:
    asked = []

    def never() -> None:
        asked.append(1)
        raise Unreached("no answer")

    with stopped_by(lambda: len(asked) == 2), pytest.raises(Cancelled):
        Patience("far", 20).insist("get", never)
    closing = Patience("far", 20)
    closing.close()
    with pytest.raises(StorageUnavailable):
        closing.insist("get", never)
    assert len(asked) == 3


# -- the cache ---------------------------------------------------------------------------------------------------------


def stored(mount: Mount, s3: S3, prefix: str, number: int, size: int = 3000) -> Path:
    s3.put(f"{prefix}/t/batch-{number}.parquet", b"%d" % number * size)
    return mount.root / "t" / f"batch-{number}.parquet"


def here(mount: Mount) -> list[str]:
    return sorted(p.name for p in (mount.root / "t").iterdir())


def test_the_longest_unused_copies_go_first(mount: Mount, s3: S3, prefix: str) -> None:
    paths = [stored(mount, s3, prefix, i) for i in range(5)]
    for path in (*paths[:3], paths[0], *paths[3:]):
        objects.read(path)
    assert here(mount) == ["batch-0.parquet", "batch-3.parquet", "batch-4.parquet"]
    figures = mount._cache.figures()
    assert (figures.files, figures.bytes, figures.evicted, figures.misses, figures.hits) == (3, 9000, 2, 5, 1)


def test_what_a_reader_has_chosen_stays_until_it_ends(mount: Mount, s3: S3, prefix: str, pins: Pins) -> None:
    paths = [stored(mount, s3, prefix, i) for i in range(6)]
    reader = pins.begin()
    objects.ready([str(p) for p in paths])
    later = pins.begin()
    assert len(here(mount)) == 6, "beyond the budget, because all are in use"
    pins.end(reader)
    objects.read(stored(mount, s3, prefix, 6))
    assert len(here(mount)) == 3, "the later reader began after the choice and holds none of them"
    objects.ready([str(p) for p in paths])
    assert len(here(mount)) == 7
    pins.end(later)
    assert len(here(mount)) == 3, "as soon as the last reader has ended"


def test_a_file_larger_than_the_budget_can_be_read(mount: Mount, s3: S3, prefix: str) -> None:
    path = stored(mount, s3, prefix, 7, size=50_000)
    assert objects.size(path) == 50_000
    assert objects.size(path) == 50_000


def test_a_copy_appears_when_it_is_whole_and_right(mount: Mount, s3: S3, proxy: Proxy, prefix: str) -> None:
    path = put_file(mount.root / "t" / "batch-0.parquet", b"rows")
    mount.forget(mount.root)
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix}/t/batch-0.parquet", Body=b"rowz", Metadata={"xxh3": checksum(b"rows")})
    with pytest.raises(DataCorrupted, match='batch-0.parquet in storage "far" is damaged'):
        objects.read(path)
    s3.delete(f"{prefix}/t/batch-0.parquet")
    with pytest.raises(DataCorrupted, match='batch-0.parquet is missing from storage "far"'):
        objects.read(path)
    assert here(mount) == []


def test_readers_of_one_file_fetch_it_once(mount: Mount, s3: S3, proxy: Proxy, prefix: str) -> None:
    path = stored(mount, s3, prefix, 0)
    proxy.fail("GET", "batch-0", pause=0.2, status=500)
    threads = [threading.Thread(target=objects.read, args=(path,)) for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [m for m, p in proxy.log if "batch-0" in p] == ["GET", "GET"], "one failure, one fetch"


def test_a_part_is_fetched_without_the_rest(mount: Mount, s3: S3, prefix: str) -> None:
    path = stored(mount, s3, prefix, 1)
    assert objects.read_part(path, 10, 4) == b"1111" and not path.exists()
    objects.read(path)
    s3.delete(f"{prefix}/t/batch-1.parquet")
    assert objects.read_part(path, 10, 4) == b"1111", "of the copy, once there is one"


def test_a_new_process_takes_the_copies_over(mount: Mount, s3: S3, prefix: str, tmp_path: Path, pins: Pins) -> None:
    objects.read(stored(mount, s3, prefix, 1))
    (mount.root / "t" / ".batch-2.parquet.7.tmp").write_bytes(b"half")
    after = FileCache(tmp_path / "cache", 10_000, pins)
    assert (after.figures().files, after.figures().bytes) == (1, 3000) and here(mount) == ["batch-1.parquet"]


# -- opening -----------------------------------------------------------------------------------------------------------


def test_secrets_by_reference_are_of_their_own_variables(proxy: Proxy, prefix: str) -> None:
    by_name = Storage(
        "far",
        "s3",
        f"s3://{BUCKET}/{prefix}",
        endpoint=proxy.url,
        access_key_id="k",
        secret_access_key="env:FLIGHTKALAM_STORAGE_X",
    )
    open_bucket(by_name, {"FLIGHTKALAM_STORAGE_X": "s"}, 2)
    with pytest.raises(
        InvalidValue, match='SECRET_ACCESS_KEY of storage "far" names .* FLIGHTKALAM_STORAGE_X, which is not set'
    ):
        open_bucket(by_name, {}, 2)
    assert "s3cret" not in repr(spec("http://x", "p", session_token="s3cret"))


def test_the_environment_of_the_process_is_not_asked(proxy: Proxy, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT": "http://127.0.0.1:9", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_SESSION_TOKEN": "tok-of-the-process",
        "AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other", "AWS_SKIP_SIGNATURE": "true", "AWS_BUCKET": "other",
        "AWS_REGION": "zz-9", "AWS_CONDITIONAL_PUT": "disabled",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    bucket = S3Bucket(spec(proxy.url, prefix), {}, 1.5)
    bucket.put("x/y", b"1", None)
    with pytest.raises(Taken):
        bucket.put("x/y", b"2", None)
    assert "Credential=k/" in proxy.headers["authorization"] and "us-east-1" in proxy.headers["authorization"]
    assert "x-amz-security-token" not in proxy.headers
    with_token = S3Bucket(spec(proxy.url, prefix, session_token="its-own"), {}, 1.5)
    with_token.get("x/y")
    assert proxy.headers["x-amz-security-token"] == "its-own"
    unsigned = S3Bucket(Storage("far", "s3", f"s3://{BUCKET}/{prefix}", endpoint=proxy.url), {}, 1.5)
    with pytest.raises(StorageUnavailable, match="refuses us"):
        unsigned.get("x/y")
    assert "authorization" not in proxy.headers
