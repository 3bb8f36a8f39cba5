"""Every sink keeps the protocol, on a disk and in object stores. The last tests cover faults of a local folder."""

import asyncio
import errno
import hashlib
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest

from harvester.errors import PartConflict, SinkError
from harvester.model import DATASET, Part
from harvester.storage import FolderSink, Sink
from harvester.storage.bucket import BucketSink
from harvester.storage.marker import MARKER, OLD_MARKER, UNKNOWN_LEDGER, make_marker
from harvester.storage.object_store import ObjectStore
from tests.support.object_stores import STORES, Bucket

RACERS = 16
NAME = f"{DATASET}/captured_date=2026-11-24/batch.ndjson.zst"


def part(data: bytes, name: str = NAME) -> Part:
    """Make a part of these bytes."""
    return Part(DATASET, name, hashlib.sha256(data).hexdigest(), len(data), 1, data)


class FolderPlace:
    """A local folder as a place for parts, with direct access to its files."""

    def __init__(self, folder: Path) -> None:
        """Begin with a folder that does not exist yet."""
        self.folder = folder / "out" / "harvest"

    def sink(self) -> Sink:
        """Open the place as one process would."""
        return FolderSink(self.folder)

    def put(self, name: str, data: bytes) -> None:
        """Write a file as another program would."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)

    def objects(self) -> dict[str, bytes]:
        """Return the names and bytes of all files that a reader finds."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and "tmp" not in path.parts[-2])
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}


class BucketPlace:
    """A new prefix in a bucket as a place for parts."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        """Begin with an empty prefix."""
        self._url = f"{bucket.url}/{uuid.uuid4()}/a place"
        self._scratch = folder / "scratch"

    def sink(self) -> Sink:
        """Open the place as one process would."""
        return BucketSink(ObjectStore(self._url))

    def put(self, name: str, data: bytes) -> None:
        """Write a file as another program would."""
        store = ObjectStore(self._url)
        obstore.put(store._client, store._prefix + name, data)

    def objects(self) -> dict[str, bytes]:
        """Return the names and bytes of all files that a reader finds."""
        found = {}
        for name in ObjectStore(self._url).list_names():
            ObjectStore(self._url).download(name, self._scratch)
            found[name] = self._scratch.read_bytes()
        return found


Place = FolderPlace | BucketPlace


@pytest.fixture(params=["folder", *STORES])
def place(request, tmp_path, monkeypatch):
    """Each kind of place in turn; a new kind of sink is one more parameter."""
    if request.param == "folder":
        return FolderPlace(tmp_path)
    bucket = request.getfixturevalue("stores")(request.param)
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    return BucketPlace(bucket, tmp_path)


async def open_sink(place: Place, ledger_id: str = "ledger") -> Sink:
    """Open a place as a run does."""
    sink = place.sink()
    await sink.attach(ledger_id)
    return sink


def run_concurrently(attempt: Callable[[int], object]) -> list[object]:
    """Call ``attempt`` on many threads at once, as separate processes would; return each result or error."""
    barrier, results = threading.Barrier(RACERS), [None] * RACERS

    def race(number: int) -> None:
        barrier.wait()
        try:
            results[number] = attempt(number)
        except SinkError as error:
            results[number] = error

    threads = [threading.Thread(target=race, args=(number,)) for number in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class TestEverySink:
    """The rules of the protocol, which the engine relies on."""

    async def test_creating_a_part_is_idempotent(self, place):
        """After a lost response, a second create of the same part succeeds and changes nothing."""
        await (await open_sink(place)).create(part(b"rows"))
        before = place.objects()
        await (await open_sink(place)).create(part(b"rows"))
        assert place.objects() == before
        assert before[NAME] == b"rows"

    async def test_parts_of_a_folder_are_listed_by_name(self, place):
        """A stored part is listed under its name; a missing folder is empty."""
        sink = await open_sink(place)
        await sink.create(part(b"rows"))
        folder = NAME.rpartition("/")[0]
        assert (await sink.list_parts(folder), await sink.list_parts(f"{folder}-gone")) == ({NAME}, set())

    @pytest.mark.parametrize("other", [b"", b"row", b"rows and more", b"swor"], ids=["none", "less", "more", "like"])
    async def test_a_part_is_never_overwritten(self, place, other):
        """A name that exists with different bytes is a conflict, and these bytes do not change."""
        sink = await open_sink(place)
        await sink.create(part(b"rows"))
        before = place.objects()
        with pytest.raises(PartConflict, match=r"batch\.ndjson"):
            await sink.create(part(other))
        assert place.objects() == before

    def test_concurrent_creates_of_one_part_all_succeed(self, place):
        """Sixteen processes that recover the same sealed batch create one object, and none gets an error."""
        asyncio.run(open_sink(place))
        assert run_concurrently(lambda _: asyncio.run(place.sink().create(part(b"r" * 100_000)))) == [None] * RACERS
        assert place.objects()[NAME] == b"r" * 100_000

    def test_of_concurrent_creates_with_other_bytes_one_succeeds(self, place):
        """One create succeeds with its complete bytes; the others get a conflict."""
        asyncio.run(open_sink(place))
        results = run_concurrently(lambda number: asyncio.run(place.sink().create(part(bytes([number]) * 100_000))))
        (winner,) = [number for number, result in enumerate(results) if result is None]
        assert sum(isinstance(result, PartConflict) for result in results) == RACERS - 1
        assert place.objects()[NAME] == bytes([winner]) * 100_000

    async def test_another_ledger_is_refused(self, place):
        """A second ledger would request and write everything again. The dataset does not change."""
        await (await open_sink(place, "the first")).create(part(b"rows"))
        before = place.objects()
        with pytest.raises(SinkError, match="the first"):
            await open_sink(place, "the second")
        assert place.objects() == before

    async def test_a_dataset_keeps_its_id(self, place):
        """A sealed part names its dataset by this id, so it must be the same at every start."""
        assert await place.sink().attach("ledger") == await place.sink().attach("ledger")

    def test_of_concurrent_ledgers_one_gets_the_place(self, place):
        """If two ledgers start at once, all processes of one are admitted with the same id, and none of the other."""
        results = run_concurrently(lambda number: asyncio.run(place.sink().attach(f"ledger {number % 2}")))
        admitted = {number % 2 for number, result in enumerate(results) if isinstance(result, str)}
        assert len(admitted) == 1
        assert len({result for result in results if isinstance(result, str)}) == 1
        assert sum(isinstance(result, SinkError) for result in results) == RACERS // 2

    async def test_a_place_contains_parts_and_the_marker_only(self, place):
        """A reader of the dataset finds no temporary files."""
        sink = await open_sink(place)
        await sink.create(part(b"rows"))
        with pytest.raises(PartConflict):
            await sink.create(part(b"other"))
        assert {name for name in place.objects() if not name.startswith(".harvester/")} == {NAME}

    async def test_a_dataset_that_an_older_version_marked_is_recognised(self, place):
        """Its own ledger continues with the same dataset and another one is refused, with or without the old marker."""
        place.put(OLD_MARKER, make_marker("ours", "the dataset"))
        with pytest.raises(SinkError, match="ours"):
            await open_sink(place, "other")
        assert set(place.objects()) == {OLD_MARKER}
        for _ in range(2):
            assert await place.sink().find_ledger_id() == "ours"
            assert await place.sink().attach("ours") == "the dataset"
        assert place.objects() == dict.fromkeys((MARKER, OLD_MARKER), make_marker("ours", "the dataset"))

    async def test_a_marker_of_an_older_version_must_agree(self, place):
        """An older version reads only the old marker; both markers must name one ledger."""
        assert await place.sink().attach("ours") == await place.sink().attach("ours")
        place.put(OLD_MARKER, make_marker("another"))
        with pytest.raises(SinkError, match="another"):
            await open_sink(place, "ours")

    async def test_parts_without_a_marker_are_refused(self, place):
        """Deleting .harvester/ deletes marker and ledger: a new ledger must not request and write everything again."""
        place.put(NAME, b"rows")
        assert await place.sink().find_ledger_id() == UNKNOWN_LEDGER
        with pytest.raises(SinkError, match=r"contains parts, but \.harvester/send_analytics\.json.*ledger rebuild"):
            await open_sink(place)
        assert await place.sink().attach("ledger", known="the dataset") == "the dataset"
        assert await place.sink().attach("ledger") == "the dataset"

    async def test_an_emptied_place_keeps_the_dataset_that_its_ledger_knows(self, place):
        """Other parts are sealed for this dataset, so they could not be stored in a new one."""
        assert await place.sink().find_ledger_id() is None
        assert await place.sink().attach("ledger", known="the dataset") == "the dataset"
        assert await place.sink().attach("ledger") == "the dataset"


@pytest.fixture
def folder(tmp_path):
    """Return a folder for parts."""
    return tmp_path / "harvest"


async def test_stale_temporary_files_are_deleted_and_fresh_ones_are_kept(folder):
    """Temporary files are deleted an hour after their last write, by the disk's own clock."""
    await FolderSink(folder).attach("ledger")
    making = folder / ".harvester" / "tmp"
    old, new = making / "old.ndjson.zst.0badcafe", making / "new.ndjson.zst.0badcafe"
    for file in (old, new):
        file.write_bytes(b"incomplete")
    an_hour_ago = new.stat().st_mtime - 3700
    os.utime(old, (an_hour_ago, an_hour_ago))
    await FolderSink(folder).attach("ledger")
    assert not old.exists()
    assert new.read_bytes() == b"incomplete"


@pytest.mark.parametrize("damage", [b"", b"\x00" * 91, b"{", b"[]", b"7", b"{}", b'{"ledger": "ledger"}'])
async def test_a_damaged_marker_is_an_error_and_is_not_replaced(folder, damage):
    """A damaged marker is an error, so that no second ledger can use the place."""
    await FolderSink(folder).attach("ledger")
    mark = folder / MARKER
    mark.write_bytes(damage)
    with pytest.raises(SinkError, match=r"\.harvester/send_analytics\.json is damaged"):
        await FolderSink(folder).attach("ledger")
    assert mark.read_bytes() == damage


async def test_a_link_where_a_part_belongs_is_not_followed(folder, tmp_path):
    """The target of the link is not written, and is not accepted as the part."""
    sink = FolderSink(folder)
    await sink.attach("ledger")
    outside = tmp_path / "outside"
    outside.write_bytes(b"rows")
    (folder / NAME).parent.mkdir(parents=True)
    (folder / NAME).symlink_to(outside)
    with pytest.raises(SinkError, match="symbolic link"):
        await sink.create(part(b"rows"))
    assert (folder / NAME).is_symlink()
    assert outside.read_bytes() == b"rows"


async def test_a_folder_with_the_name_of_a_part_is_an_error(folder):
    """A folder is never accepted as the part."""
    sink = FolderSink(folder)
    await sink.attach("ledger")
    (folder / NAME).mkdir(parents=True)
    with pytest.raises(SinkError):
        await sink.create(part(b"rows"))


async def test_a_file_with_the_name_of_a_folder_is_an_error(folder):
    """The error names the place."""
    folder.write_bytes(b"a file")
    with pytest.raises(SinkError, match=folder.name):
        await FolderSink(folder).attach("ledger")
    assert folder.read_bytes() == b"a file"


async def test_foreign_files_in_the_dataset_are_left_alone(folder):
    """Files of other programs do not change, and do not prevent a part."""
    strange = {"notes.txt": b"ours", f"{DATASET}/_SUCCESS": b"", f"{DATASET}/captured_date=2026-11-24/.DS_Store": b"x"}
    for name, data in strange.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    sink = FolderSink(folder)
    await sink.attach("ledger")
    await sink.create(part(b"rows"))
    assert {name: (folder / name).read_bytes() for name in strange} == strange
    assert (folder / NAME).read_bytes() == b"rows"


async def test_a_link_to_a_folder_is_a_valid_place(folder, tmp_path):
    """A user can link the output folder to a larger disk."""
    (tmp_path / "larger disk").mkdir()
    folder.symlink_to(tmp_path / "larger disk")
    sink = FolderSink(folder)
    await sink.attach("ledger")
    await sink.create(part(b"rows"))
    assert (tmp_path / "larger disk" / NAME).read_bytes() == b"rows"


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
async def test_a_failed_flush_is_not_retried_on_the_same_file(folder, monkeypatch, error):
    """The kernel may have dropped the data that it could not write, so the retry writes a new file."""
    sink, flush, files = FolderSink(folder), os.fsync, []
    await sink.attach("ledger")

    def fails_once(file: int) -> None:
        files.append(os.fstat(file).st_ino)
        if len(files) == 1:
            raise OSError(error, os.strerror(error))
        flush(file)

    monkeypatch.setattr(os, "fsync", fails_once)
    (folder / NAME).parent.mkdir(parents=True)
    with pytest.raises(SinkError, match="run the same command again"):
        await sink.create(part(b"rows"))
    assert not (folder / NAME).exists()
    await sink.create(part(b"rows"))
    assert (folder / NAME).read_bytes() == b"rows"
    assert (folder / NAME).stat().st_ino in files[1:]


async def test_short_writes_are_completed(folder, monkeypatch):
    """If the kernel writes fewer bytes than requested, the rest is written too."""
    sink, write = FolderSink(folder), os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, bytes(data[:7])))
    await sink.attach("ledger")
    await sink.create(part(b"rows" * 100))
    assert (folder / NAME).read_bytes() == b"rows" * 100
