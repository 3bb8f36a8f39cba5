"""Anything at all as input: never a traceback, never a hang, never a silent success.

The suite spends a few seconds; ``pytest tests/test_fuzz.py --hypothesis-profile=long`` as many minutes.
"""

import io
import os
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.braze.budget import BudgetReport
from harvester.braze.series import captured
from harvester.errors import ExchangeError, UsageError
from harvester.model import MAX_ID_CHARACTERS, BadLine, Enqueued, Pair, Reading
from harvester.settings import load
from harvester.sources import Input

T = TypeVar("T")
READING = Reading(1, Pair("w", "c", "s"), "once", 1e9, 1e9, 0.0)
NOW = 1_767_225_600.0
ANSWER = orjson.dumps(
    {
        "message": "success",
        "data": [{"time": "2026-11-01", "messages": {"email": [{"variation_name": "A", "sent": 5}]}, "revenue": 1.5}],
    }
)
CSV = b'campaign_id,send_id,sent_at\nc,s,2025-12-31T00:00:00Z\n"c,2","s\n3",\n'
NDJSON = b'{"campaign_id":"c","send_id":"s"}\n{"campaign_id":"c","send_id":"t","sent_at":"2025-12-30"}\n'
KEY = "canary-key-0123456789"
TOML = f'length = 7\n[workspaces.eu]\nendpoint = "https://rest.fra-01.braze.eu"\napi_key = "{KEY}"\nreserve = 0.3\n'


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """Give a file with some bytes lost, doubled, changed or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        data[at : at + length] = draw(st.binary(max_size=8) | st.just(bytes(data[at : at + length]) * 2))
    return bytes(data)


def attempted(what: Callable[[], T]) -> tuple[T | None, str]:
    """Give what came of it, or the sentence that refuses it; any other error is the test's failure."""
    try:
        return what(), ""
    except UsageError as refused:
        assert str(refused)  # noqa: PT017 - a refusal without words would be a silent one
        return None, str(refused)


@given(damaged(ANSWER) | st.binary(max_size=200))
def test_an_answer_is_rows_or_an_error_to_try_again(body):
    """A capture's rows can all be read back and end with the capture's own; anything else is no verdict."""
    try:
        capture = captured(body, READING, batch_id="b", captured_at=1e9)
    except ExchangeError:
        return
    lines = capture.rows.split(b"\n")
    assert lines.pop() == b""
    rows = [orjson.loads(line) for line in lines]
    assert len(rows) == capture.row_count
    assert rows[-1]["level"] == "capture"
    assert orjson.loads(body)["message"] == "success"


@given(
    st.dictionaries(
        st.sampled_from(["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Date"]), st.text()
    )
)
def test_headers_are_figures_or_nothing(headers):
    """Whatever they hold, what is read from them is a number that can be reckoned with, or None."""
    report = BudgetReport.from_headers(headers)
    for value in (report.limit, report.remaining, report.reset_at):
        assert value is None or 0 <= value < 10**15


def judged(found: list) -> None:
    """What a reader gives are pairs that are whole, or lines that say what is wrong with them."""
    for each in found:
        if isinstance(each, BadLine):
            assert each.problem
            continue
        assert isinstance(each, Enqueued)
        for given_id in (each.pair.campaign_id, each.pair.send_id):
            assert 1 <= len(given_id) <= MAX_ID_CHARACTERS
            assert given_id.isascii()
            assert "\0" not in given_id
        assert each.sent_at is None or 0 <= each.sent_at <= NOW + 86_400


@given(damaged(CSV) | damaged(NDJSON) | st.binary(max_size=200))
def test_a_list_is_pairs_and_bad_lines_or_a_sentence(data):
    """No damaged list of text breaks the reader, and none is read as nothing without a word."""
    reader = Input(["-"], workspaces=["w"], stdin=io.BytesIO(data), now=NOW)
    found, refused = attempted(lambda: list(reader.read()))
    if refused:
        return
    judged(found)
    behind_the_header = data.partition(b"\n")[2] if not data.lstrip().startswith(b"{") else data
    assert found or not behind_the_header.strip(b'\r\n\t ",\x0b\x0c\x1c\x1d\x1e\x1f\x85')


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> bytes:
    """A list of pairs as a lake has it."""
    path = tmp_path_factory.mktemp("parquet") / "p.parquet"
    duckdb.execute(f"COPY (SELECT 'c' AS campaign_id, 's' || i AS send_id FROM range(50) t(i)) TO '{path}'")
    return path.read_bytes()


@given(data=st.data())
def test_a_parquet_file_is_pairs_or_a_sentence(parquet, data):
    """Damaged anywhere, header, page or footer, it is refused by a sentence, or read as pairs that are whole."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        Path(file.name).write_bytes(data.draw(damaged(parquet)))
        reader = Input([file.name], workspaces=["w"], stdin=io.BytesIO(), now=NOW)
        found, refused = attempted(lambda: list(reader.read()))
    judged(found or [])
    assert found is not None or "parquet" in refused.lower()


@given(damaged(TOML.encode()) | st.binary(max_size=200))
def test_a_settings_file_is_settings_or_a_sentence_without_the_key(data):
    """A broken file is one sentence that shows no key, or settings that hold to their bounds."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(data)
        settings, refused = attempted(lambda: load(Path(file.name), {}, {}))
        _, no_key = attempted(lambda: settings.keys() if settings else None)
    assert KEY not in refused + no_key
    if settings is None:
        return
    assert 1 <= settings.length <= 100
    assert settings.workspaces
    assert KEY not in repr(settings)


NAMES = st.sampled_from(
    ["LENGTH", "CONCURRENCY", "RAW", "WORKSPACES", "WORKSPACES__EU__ENDPOINT", "WORKSPACES__EU__RESERVE",
     "WORKSPACES__EU__API_KEY", "WORKSPACES__EU", "WORKSPACES__EU__RESERVE__X", "MAX_SEALED_BYTES", "NO_SUCH_THING"]
)  # fmt: skip
VALUES = st.text(string.printable, max_size=30).filter(lambda text: "\0" not in text) | st.sampled_from(
    [KEY, "{}", "[]", '{"eu": {}}', "https://rest.fra-01.braze.eu", "0.5", "nan", "1e999", "true", f'{{"eu": "{KEY}"}}']
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_an_environment_is_settings_or_a_sentence_without_the_key(variables):
    """So is an environment, whatever an orchestrator puts into it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HARVESTER_", "BRAZE_"))]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(f"HARVESTER_{name}", value)
        settings, refused = attempted(lambda: load(None, {}, {}))
    assert KEY not in refused + repr(settings)
    assert refused or settings.workspaces
