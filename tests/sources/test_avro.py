"""Tests of Avro files: codecs, damage, and the memory that they take."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.model import BadLine, Pair, SentPair
from harvester.sources import Input
from harvester.sources.currents import CurrentsReader
from harvester.sources.lists.listed_files import ListedFile
from harvester.sources.send_times import SendTimes
from tests.support.currents import (
    EMAIL,
    NOW,
    SENT,
    create_event,
    create_reader,
    create_schema,
    encode_avro,
    encode_avro_with_header,
    measure_peak,
    read_currents,
    write_currents_file,
    write_events,
)


@pytest.mark.parametrize("codec", ["null", "deflate"])
@pytest.mark.parametrize("missing", [1, 10, 20, 400])
def test_a_file_that_is_cut_off_keeps_the_events_before_the_cut(tmp_path, codec, missing):
    """The file is also reported as a bad line, and other files are read."""
    events = [create_event(send_id=f"s{at}") for at in range(200)]
    path = write_currents_file(tmp_path, encode_avro(events, codec=codec, block_bytes=1000)[:-missing], name="a.avro")
    write_events(tmp_path, [create_event("z")], name="b.avro")
    sends, (bad,), _ = read_currents(tmp_path)
    read_before_cut = [send for campaign, send in sends if campaign == "c"]
    assert 100 < len(read_before_cut) < 200
    assert read_before_cut == [f"s{at}" for at in range(len(read_before_cut))]
    assert ("z", "s") in sends
    assert (bad.source, bad.line) == (str(path), len(read_before_cut))
    assert "is incomplete or damaged" in bad.problem


def test_a_file_that_ends_inside_a_count_is_a_bad_line():
    """An incomplete count of events does not look like the end of a file."""
    (bad,) = [
        each for each in create_reader(encode_avro([create_event()]) + b"\x80").read() if isinstance(each, BadLine)
    ]
    assert "is incomplete or damaged" in bad.problem


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_all_codecs_are_read(codec):
    """Currents, and tools that copy its files, may compress them."""
    data = encode_avro([create_event(send_id=f"s{at}") for at in range(100)], codec=codec, block_bytes=1000)
    assert len([each for each in create_reader(data).read() if isinstance(each, SentPair)]) == 100


@pytest.mark.parametrize("codec", ["snappy", "lz4", "x"])
def test_an_unsupported_codec_is_named(codec):
    """The bad line names the codec and the supported codecs."""
    (bad,) = [
        each for each in create_reader(encode_avro_with_header(codec, create_schema())).read() if each is not None
    ]
    assert isinstance(bad, BadLine)
    assert f"codec {codec} is not one of null, deflate" in bad.problem


def test_a_recursive_schema_is_a_bad_line():
    """A record that contains itself does not cause endless recursion."""
    recursive = {"type": "record", "name": EMAIL, "fields": [{"name": "x", "type": ["null", EMAIL]}]}
    (bad,) = [each for each in create_reader(encode_avro_with_header("null", recursive)).read() if each is not None]
    assert isinstance(bad, BadLine)
    assert "is recursive" in bad.problem


COMPRESSED = encode_avro([create_event(send_id=f"s{at}") for at in range(20)], codec="deflate", block_bytes=300)
UNCOMPRESSED = encode_avro([create_event(send_id=f"s{at}") for at in range(20)], block_bytes=300)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([COMPRESSED, UNCOMPRESSED]), st.data())
def test_damaged_files_raise_no_error(data, random_data):
    """The reader returns sends and bad lines, whatever bytes are changed or missing."""
    cut = bytearray(data[: random_data.draw(st.integers(0, len(data)))])
    for at in random_data.draw(st.lists(st.integers(0, len(data)), max_size=4)):
        if at < len(cut):
            cut[at] ^= random_data.draw(st.integers(1, 255))
    for each in create_reader(bytes(cut), f"event_type={EMAIL}/a.avro").read():
        assert each is None or isinstance(each, SentPair | BadLine)


class Stream(io.RawIOBase):
    """Bytes from a network, which can be read only once and only forward."""

    def __init__(self, data):
        """Start at the beginning."""
        self._data = io.BytesIO(data)

    def readable(self):
        """Return True."""
        return True

    def read(self, size=-1):
        """Return some bytes."""
        return self._data.read(size)

    def tell(self):
        """Return the number of bytes that were read."""
        return self._data.tell()


def test_files_are_opened_one_at_a_time_and_closed():
    """A bucket with many files needs only one open file at a time."""
    opened = []

    def opener():
        assert all(each.closed for each in opened)
        opened.append(Stream(UNCOMPRESSED))
        return opened[-1]

    currents = CurrentsReader(
        (ListedFile(f"b/event_type={EMAIL}/{at}.avro", opener) for at in range(3)), workspace="w", now=NOW
    )
    found = list(currents.read())
    assert len([each for each in found if isinstance(each, SentPair)]) == 20
    assert (currents.files, currents.events, found.count(None)) == (3, 60, 3)
    assert all(each.closed for each in opened)


@pytest.fixture
def small_memory(monkeypatch):
    """Reduce the number of sends in memory to a twentieth, so that a small test exceeds it."""
    monkeypatch.setattr("harvester.sources.send_times.SENDS_IN_MEMORY", 500)


@pytest.mark.long
def test_memory_is_bounded_for_hundreds_of_files(tmp_path, small_memory):
    """All sends are found, with less than half of the memory that all sends together would take."""
    files, each = 250, 40
    for at in range(files):
        events = [create_event(f"{at:036}", f"{number:036}") for number in range(each)]
        write_events(tmp_path, events, name=f"{at:04}.avro")
    source = Input([str(tmp_path)], workspaces=["w"], stdin=io.BytesIO(), now=NOW)
    peak, count = measure_peak(lambda: sum(isinstance(found, SentPair) for found in source.read()))
    peak_of_all, _ = measure_peak(
        lambda: {(f"{at:036}", f"{number:036}"): float(SENT) for at in range(files) for number in range(each)}
    )
    assert count == files * each
    assert peak < peak_of_all / 2, f"{peak} bytes at the most, all sends at once take {peak_of_all}"


def test_sends_that_exceed_memory_are_merged_on_disk(small_memory):
    """The first and the last time of each send are correct."""
    with SendTimes() as times:
        for second in range(3):
            for at in range(2500):
                times.add(Pair("w", "c", f"s{at}"), 10.0 * at + second)
        sends = sorted(times.list_sends(), key=lambda send: send[1])
    assert [send[:3] for send in sends] == [(Pair("w", "c", f"s{at}"), 10 * at, 10 * at + 2) for at in range(2500)]
