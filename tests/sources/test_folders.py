"""Tests of folders, prefixes of buckets and patterns as lists, of lists in Avro, and of the report of what was read."""

import json
from datetime import UTC, datetime
from uuid import UUID

import fastavro
import pytest

from harvester.errors import UsageError
from harvester.storage import object_store
from tests.support.currents import create_event, write_events
from tests.support.lists import HEADER, NOW, read_list, write_parquet

DAY_1 = datetime(2026, 11, 20, tzinfo=UTC).timestamp()


@pytest.fixture(params=["folder", "bucket"])
def export(request, tmp_path, monkeypatch):
    """A folder on disk with a list in three files and a marker, and its name as a place."""
    for name, rows in {"x/a.csv": "c,s1,2026-11-21\n", "x/b.csv": "c,s2,\n", "x/y/c.csv": "c,s1,2026-11-20\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(HEADER + rows)
    (tmp_path / "x" / "_SUCCESS").touch()
    if request.param == "folder":
        return tmp_path, str(tmp_path)

    def open_folder(url, **_):
        return object_store.obstore.store.LocalStore(tmp_path / url.removeprefix("s3://lake").lstrip("/"), mkdir=True)

    monkeypatch.setattr(object_store, "from_url", open_folder)
    return tmp_path, "s3://lake"


@pytest.mark.parametrize("suffix", ["/x", "/x/", "/**/*.csv", "/x/**/*.csv", "/*/**/[abc].csv"])
def test_the_files_of_a_folder_are_one_list(export, suffix):
    """An export with one row for each user may have rows of one send in many files. The earliest time counts."""
    pairs, bad, source = read_list("", name=export[1] + suffix)
    assert (pairs, bad) == ({("c", "s1"): DAY_1, ("c", "s2"): None}, [])
    found = "CSV, separated by commas; columns campaign_id, send_id, sent_at; rows 3, sends 2, duplicates 1"
    assert source.formats == [f"{export[1]}{suffix}: {found}"]


def test_a_pattern_without_folders_matches_one_folder(export):
    """As in a shell, ``*`` matches no slash."""
    assert set(read_list("", name=export[1] + "/x/*.csv")[0]) == {("c", "s1"), ("c", "s2")}


def test_files_of_several_kinds_are_refused_with_a_pattern_that_settles_it(export):
    """They may be copies of the same sends, or a table with its log."""
    folder, place = export
    write_parquet(folder / "x" / "d.parquet", "SELECT 'c' AS campaign_id, 's' AS send_id")
    with pytest.raises(UsageError, match=r"several kinds \((CSV|Parquet) and .* such as '.*/x/\*\*/\*\.(csv|parquet)'"):
        read_list("", name=f"{place}/x")
    assert list(read_list("", name=f"{place}/x/*.parquet")[0]) == [("c", "s")]


def test_a_place_without_lists_is_refused(export):
    """The error contains the place."""
    for name in ("/z", "/x/*.json"):
        with pytest.raises(UsageError, match=r"(there are no lists|No such file)"):
            read_list("", name=export[1] + name)


def test_a_file_whose_name_contains_wildcards_is_read(tmp_path):
    """A file that exists is no pattern."""
    for name in ("a[1].csv", "a1.csv", "*.csv"):
        (tmp_path / name).write_text(f"campaign_id,send_id\nc,{name}\n")
    assert list(read_list("", name=tmp_path / "a[1].csv")[0]) == [("c", "a[1].csv")]
    assert list(read_list("", name=tmp_path / "*.csv")[0]) == [("c", "*.csv")]


def test_other_files_in_a_folder_of_currents_are_ignored(tmp_path):
    """People put notes beside them."""
    write_events(tmp_path, [create_event("c", "s", time=int(NOW) - 86_400)])
    (tmp_path / "a-notes.txt").write_text("ours")
    assert list(read_list("", name=tmp_path)[0]) == [("c", "s")]


AVRO_TYPES = {
    "campaign_id": {"type": "string", "logicalType": "uuid"},
    "SEND_ID": ["null", "long"],
    "sent_at": {"type": "long", "logicalType": "timestamp-millis"},
    "name": "string",
}


def write_avro(path, records, types=AVRO_TYPES):
    """Write an Avro file of pairs."""
    fields = [{"name": name, "type": kind} for name, kind in types.items()]
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "sends", "fields": fields}, records)
    return path


@pytest.mark.parametrize("name", ["a.avro", ".", "a.bin", "-"])
def test_avro_files_of_pairs_are_lists(tmp_path, name):
    """Their records have other names than the events of Currents."""
    record = {
        "campaign_id": "u",
        "SEND_ID": 7,
        "sent_at": datetime(2026, 11, 20, microsecond=1000, tzinfo=UTC),
        "name": "",
    }
    path = write_avro(tmp_path / "a.avro", [record, record | {"SEND_ID": None}])
    text = path.read_bytes() if name == "-" else ""
    if name == "a.bin":
        path.rename(tmp_path / name)
    pairs, (bad,), source = read_list(text, name=None if name == "-" else tmp_path / name)
    assert (pairs, bad.line, bad.field) == ({("u", "7"): DAY_1 + 0.001}, 2, "SEND_ID")
    assert "Avro; columns campaign_id, SEND_ID as send_id, sent_at; ignored columns name; rows 1" in source.formats[0]


def test_uuids_of_16_bytes_in_avro_are_read_as_text(tmp_path):
    """The schema defines their type once, and names it afterwards. Other types without text are refused."""
    fixed = {"type": "fixed", "name": "id", "size": 16, "logicalType": "uuid"}
    record = {"campaign_id": b"\x6f" * 16, "send_id": b"\x01" * 16}
    path = write_avro(tmp_path / "a.avro", [record], {"campaign_id": fixed, "send_id": ["null", "id"]})
    assert list(read_list("", name=path)[0]) == [tuple(str(UUID(bytes=each)) for each in record.values())]
    for refused, problem in ((fixed | {"logicalType": "x"}, "nor a UUID"), ("float", "rounds numbers")):
        record = {"campaign_id": "c", "send_id": 1.0 if refused == "float" else b"\x01" * 16}
        path = write_avro(tmp_path / "a.avro", [record], {"campaign_id": "string", "send_id": refused})
        assert problem in read_list("", name=path)[1][0].problem


def test_a_damaged_avro_list_is_read_up_to_the_damage(tmp_path):
    """The rest is one bad line, as in a file of Currents."""
    record = {"campaign_id": "u", "SEND_ID": 7, "sent_at": 1_795_161_600_000, "name": ""}
    path = write_avro(tmp_path / "a.avro", [record])
    path.write_bytes(path.read_bytes() + b"\x04\x08")
    pairs, (bad,), _ = read_list("", name=path)
    assert (len(pairs), "cannot be read after record 1" in bad.problem) == (1, True)


async def test_commands_say_what_was_read(harvester, tmp_path):
    """A wrong separator or column is seen before anything is requested."""
    (tmp_path / "sends.csv").write_text("sep=;\nCampaign;Send ID;time\nc;s;2026-11-20\nc;s;\n")
    options = ("sends.csv", "--column", "campaign_id=Campaign")
    line = (
        "read       sends.csv: CSV, separated by semicolons; columns Campaign as campaign_id, Send ID as send_id, "
        "time as sent_at; rows 2, sends 1, duplicates 1"
    )
    for command in ("plan", "enqueue", "audit"):
        code, out, err = await harvester.run(command, *options)
        assert (line in out.splitlines(), code in (0, 3)) == (True, True), err
    code, out, _ = await harvester.run("plan", *options, "--json")
    assert json.loads(out)["lists"] == [line.removeprefix("read       ")]
    code, _, err = await harvester.run("plan", "sends.csv")
    assert (code, "use --column send_id=NAME" in err) == (2, True)


@pytest.mark.parametrize("pattern", ["[a&&b]", "[a||&]", "[~~&]", "[&--a]", "[[&]"])
def test_marks_in_the_brackets_of_a_pattern_are_characters(tmp_path, pattern):
    """Python would warn that they could become operators between sets of characters."""
    (tmp_path / "&.csv").write_text(f"{HEADER}c,s,\n")
    assert read_list("", name=str(tmp_path / f"{pattern}.csv"))[0] == {("c", "s"): None}


def test_an_invalid_pattern_is_an_error_that_quotes_it(tmp_path):
    """Brackets inside brackets are characters."""
    (tmp_path / "a].csv").write_text(f"{HEADER}c,s,\n")
    assert read_list("", name=str(tmp_path / "[[:a]]*.csv"))[0] == {("c", "s"): None}
    with pytest.raises(UsageError, match="is invalid: bad character range z-a"):
        read_list("", name=str(tmp_path / "[z-a].csv"))
