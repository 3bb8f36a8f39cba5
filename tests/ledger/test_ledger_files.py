"""The ledger's files: one name, for this user alone, saved if somebody removes them, refused if foreign."""

import asyncio
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from harvester.clock import SystemClock
from harvester.condition import Component
from harvester.errors import LedgerError, LedgerLost
from harvester.ledger import Ledger, back_up_ledger
from harvester.ledger.sqlite import connect
from harvester.model import BadLine, Pair, SentPair
from harvester.sources import RejectsFile
from harvester.storage import FolderSink
from tests.support.observed_service import Seen, Wire, served

ODD = [
    "led?x=1.db",
    "led#1.db",
    "led%20x.db",
    "a b.db",
    ":memory:",
    "file:led.db?mode=memory",
    "'quoted\".db",
    "é*[1].db",
]


@pytest.fixture
def umask():
    """Set the usual umask, which lets others read new files."""
    before = os.umask(0o022)
    yield
    os.umask(before)


async def open_with_pair(path: Path, *, send_id: str = "s") -> Ledger:
    """Open a ledger and enqueue a pair."""
    ledger = await Ledger.open(path, clock=SystemClock())
    await ledger.intake.enqueue([SentPair(Pair("eu", "c", send_id), None)])
    return ledger


@pytest.mark.parametrize("name", ODD)
async def test_a_ledger_may_have_any_file_name(tmp_path, monkeypatch, name):
    """A ledger can have any file name: no character is treated as part of a URL."""
    monkeypatch.chdir(tmp_path)
    async with await open_with_pair(Path(name)), await Ledger.open(Path(name), clock=SystemClock()) as second:
        assert (await second.reports.get_books()).accepted == 1
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {name, f"{name}-wal", f"{name}-shm", f"{name}.owners"}
        assert len(list((tmp_path / f"{name}.owners").iterdir())) == 2
    back_up_ledger(Path(name), Path("copy?x.db"))
    async with await Ledger.open(Path("copy?x.db"), clock=SystemClock()) as ledger:
        assert (await ledger.reports.get_books()).accepted == 1


async def test_new_files_are_private_and_existing_ones_keep_their_mode(tmp_path, umask):
    """Ledger, logs, locks, rejects and copies have mode 0600, in folders of mode 0700."""
    (tmp_path / "shared").mkdir(mode=0o755)
    async with (
        await open_with_pair(tmp_path / "new" / "ledger.db"),
        await open_with_pair(tmp_path / "shared" / "ledger.db"),
    ):
        RejectsFile(tmp_path / "new" / "rejects.ndjson").add(BadLine("s", 1, "f", "p", "t"))
        back_up_ledger(tmp_path / "new" / "ledger.db", tmp_path / "new" / "copy.db")
        modes = {str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")}
    assert modes.pop("shared") == "0o755"
    folders = {name for name, mode in modes.items() if mode == "0o700"}
    assert folders == {"new", "new/ledger.db.owners", "shared/ledger.db.owners"}
    assert {mode for name, mode in modes.items() if name not in folders} == {"0o600"}


async def test_no_file_is_created_through_a_symbolic_link(tmp_path):
    """Ledger, copy and rejects file are refused, and the target of the link does not change."""
    victim = tmp_path / "victim"
    (tmp_path / "ledger.db").symlink_to(victim)
    with pytest.raises(LedgerError, match="is a link to a missing file"):
        await open_with_pair(tmp_path / "ledger.db")
    (tmp_path / "ledger.db").unlink()
    (tmp_path / "copy.db").symlink_to(victim)
    async with await open_with_pair(tmp_path / "ledger.db"):
        with pytest.raises(LedgerError, match="File exists"):
            back_up_ledger(tmp_path / "ledger.db", tmp_path / "copy.db")
    rejects = RejectsFile(tmp_path / "rejects.ndjson")
    rejects.path.symlink_to(victim)
    rejects.add(BadLine("s", 1, "f", "p", "t"))
    assert "symbolic links" in rejects.notes[0]
    assert not victim.exists()


async def test_what_is_not_a_lock_in_the_folder_of_locks_is_left_alone(tmp_path):
    """Recovery skips folders, links, pipes and sockets of other programs, and deletes only locks of dead owners."""
    async with await open_with_pair(tmp_path / "ledger.db") as ledger:
        folder = tmp_path / "ledger.db.owners"
        (folder / "folder").mkdir()
        (folder / "link").symlink_to("folder")
        (folder / "lost").symlink_to("nothing")
        os.mkfifo(folder / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "socket"))
        (folder / "dead").touch()
        before = {each.name for each in folder.iterdir()}
        await ledger.batches.recover()
        assert {each.name for each in folder.iterdir()} == before - {"dead"}


async def test_symbolic_links_share_one_ledger_and_hard_links_are_refused(tmp_path):
    """A ledger with hard links is refused, because SQLite would keep a write-ahead log for each name."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere" / "ledger.db")
    (tmp_path / "elsewhere" / "ledger.db").touch()
    async with await open_with_pair(tmp_path / "elsewhere" / "ledger.db"), await open_with_pair(tmp_path / "link.db"):
        assert len(list((tmp_path / "elsewhere" / "ledger.db.owners").iterdir())) == 2
    (tmp_path / "twin.db").hardlink_to(tmp_path / "elsewhere" / "ledger.db")
    with pytest.raises(LedgerError, match="has several names"):
        await open_with_pair(tmp_path / "twin.db")


def _remove(path: Path) -> None:
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        each.unlink()


def _replace(path: Path) -> None:
    path.with_name("other").touch()
    path.with_name("other").rename(path)


def _lose_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("gone"))


@pytest.mark.parametrize(
    "lose", [_remove, _replace, lambda path: path.rename(path.with_name("x")), _lose_the_folder,
             lambda path: path.with_name(path.name + "-wal").unlink()],
    ids=["removed", "replaced", "renamed", "its folder", "its log"],
)  # fmt: skip
async def test_a_ledger_that_is_removed_while_in_use_is_an_error_and_saved(tmp_path, lose):
    """The error names the saved copy, and nothing is written to a file without a name."""
    path = tmp_path / "state" / "ledger.db"
    ledger = await open_with_pair(path)
    lose(path)
    for _ in range(2):
        with pytest.raises(LedgerLost, match=r"removed or replaced while it was in use\. .* move .* and start again"):
            await ledger.reports.get_books()
    await ledger.close()
    (saved,) = (tmp_path / "state").glob("ledger.db.saved-*")
    async with await Ledger.open(saved, clock=SystemClock()) as copy:
        assert copy.ledger_id == ledger.ledger_id
        assert (await copy.reports.get_books()).pending == 1


def test_a_service_whose_ledger_is_removed_is_not_ready_and_ends(tmp_path):
    """The service notices the loss within ten seconds, even if nothing is due, and ends."""

    async def story(seen: Seen) -> None:
        assert (await seen.at(20)).conditions == ()
        _remove(tmp_path / "ledger.db")
        with pytest.raises(LedgerLost):  # /readyz responds with 503
            await seen.at(21)
        (condition,) = seen.service.conditions()
        assert (condition.component, condition.cause, condition.blocks) == (Component.LEDGER, "lost", True)
        await asyncio.sleep(10)
        assert [len(seen.events(event)) for event in ("ledger_lost", "ledger_unavailable")] == [1, 1]

    with pytest.raises(LedgerLost, match="Its content was saved"):
        served(tmp_path, {"us": Wire()}, story)


async def test_reading_does_not_wait_for_a_locked_ledger(harvester, tmp_path, monkeypatch):
    """``status`` responds at once, and a write reports that another process has locked the ledger."""
    path = tmp_path / "harvest/.harvester/ledger.db"
    async with await Ledger.open(path, clock=SystemClock()):
        pass
    monkeypatch.setattr("harvester.ledger.sqlite._WAIT_SECONDS", 0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        code, out, _ = await harvester.run("status")
        assert (code, out.splitlines()[0]) == (0, "accepted   0 pairs")
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            assert await ledger.reports.count_pending() == {}
            with pytest.raises(LedgerError, match="another process has locked it"):
                await ledger.intake.enqueue([SentPair(Pair("eu", "c", "s"), None)])


async def test_a_ledger_that_cannot_be_saved_is_an_error_with_the_next_step(tmp_path, monkeypatch):
    """If the disk is full, the error says what to do, and no partial copy is left."""
    ledger = await open_with_pair(tmp_path / "ledger.db")
    _remove(tmp_path / "ledger.db")
    (tmp_path / "ledger.db.owners" / "x").touch()

    def full(*_args: object, **_given: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("harvester.ledger.sqlite.make_private_file", full)
    with pytest.raises(LedgerLost, match=r"could not be saved \(.*disk is full.*\): restore a backup"):
        await ledger.reports.get_books()
    await ledger.close()
    assert not list(tmp_path.glob("*.saved-*"))


async def test_no_new_ledger_is_created_for_a_place_that_has_one(harvester, tmp_path):
    """A lost ledger or a wrong folder is an error at the start of each command."""
    (tmp_path / "p.csv").write_text("campaign_id,send_id\nc,s\n")
    path = tmp_path / "harvest" / ".harvester" / "ledger.db"
    async with await open_with_pair(path) as ledger:
        await FolderSink(tmp_path / "harvest").attach(ledger.ledger_id)
    path.unlink()
    endpoint = ("--endpoint", "http://127.0.0.1:1")
    for command in (
        ("enqueue", "p.csv"),
        ("run", "p.csv", *endpoint),
        ("serve", *endpoint),
        ("audit", "p.csv", "--enqueue"),
    ):
        code, _, err = await harvester.run(*command)
        assert (code, "was captured with another ledger" in err) == (5, True), (command, err)
        assert not path.exists()


async def test_a_backup_is_private_and_overwrites_nothing(harvester, tmp_path, umask):
    """A symbolic link in place of the copy is refused."""
    async with await open_with_pair(tmp_path / "ledger.db"):
        assert (await harvester.run("ledger", "backup", "copy.db", "--state", "ledger.db"))[0] == 0
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    (tmp_path / "copy.db").unlink()
    (tmp_path / "copy.db").symlink_to(tmp_path / "victim")
    assert (await harvester.run("ledger", "backup", "copy.db", "--state", "ledger.db"))[0] != 0
    assert not (tmp_path / "victim").exists()


async def test_a_ledger_on_a_read_only_volume_is_an_error_with_the_next_step(harvester, tmp_path):
    """Readers of SQLite share memory through a file beside the ledger, which cannot be created there."""
    ledger = await open_with_pair(tmp_path / "volume/ledger.db")
    await ledger.close()
    mounted = (
        f'mount --bind {tmp_path}/volume {tmp_path}/volume && mount -o remount,ro,bind {tmp_path}/volume && exec "$@"'
    )
    inside = ["unshare", "-Urm", "sh", "-c", mounted, "sh"]
    code, _, err = await harvester.run("show", "s", "--state", "volume/ledger.db", inside=inside)
    assert code == 5
    assert "volume/ledger.db is on a read-only volume" in err
    assert "copy its folder to another volume, and name the copy with --state" in err


async def test_a_file_that_is_not_a_ledger_is_refused(tmp_path):
    """A foreign database, a text, a newer schema or a damaged page is an error, and never an empty ledger."""
    foreign, text, newer, damaged = (tmp_path / name for name in ("other.db", "text.db", "newer.db", "damaged.db"))
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    text.write_text("no database " * 1000)
    for path in (newer, damaged):
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            await ledger.intake.enqueue([SentPair(Pair("w", "c", f"s{number}")) for number in range(2000)])
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE about SET schema_version = 99, oldest_schema = 99")
    data = bytearray(damaged.read_bytes())
    data[4096:40960] = b"\xa5" * 36864
    damaged.write_bytes(data)
    for path in (foreign, text, newer, damaged):
        with pytest.raises(LedgerError):
            async with await Ledger.open(path, clock=SystemClock()) as ledger:
                await ledger.reports.get_books()


def test_temporary_files_are_created_beside_the_ledger(tmp_path, monkeypatch):
    """Temporary files are beside the ledger, because in a container no other folder may be writable."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    folder = tmp_path / "it's here"
    with connect(folder / "ledger.db").connect() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE wide AS SELECT randomblob(20000000) AS bytes")
        opened = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        assert [name for name in opened if name.startswith(f"{folder}/etilqs_")]
