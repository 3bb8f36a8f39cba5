"""External input never ends the process, exceeds its memory limit, blocks later input, or reveals a secret.

External input is what others write: messages, lists, responses, requests, settings and environment variables. Each
input follows its whole path here: into the ledger, a part and the latest view, to the dead letters or rejects, or to a
one-line error. A memory limit includes C libraries, and a canary stands in for the API key.

The suite takes seconds; ``pytest tests/system/test_fuzz.py --hypothesis-profile=long`` takes hours.
"""

import asyncio
import os
import string
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import orjson
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.braze.quota import QuotaReport
from harvester.errors import UsageError
from harvester.ledger import Ledger
from harvester.model import MAX_ID_CHARACTERS, Captured, Deferred, Pair
from harvester.observability import logs
from harvester.settings import load
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.storage import object_store
from tests.support import decompression_bombs
from tests.support.hostile_http import EVIL, answers, requests
from tests.support.hostile_input import LISTS, MESSAGES, damage
from tests.support.memory_limit import limit_memory
from tests.support.secret_canary import KEY
from tests.support.whole_paths import GOOD_PAIR, check_outcomes, deliver, harvest, read_list, request_all, request_pages

T = TypeVar("T")
MORE_BYTES = 400 << 20
"""The memory that one example may add to this process; a small container has more."""

TOML = (
    f'concurrency = 7\n[workspaces.eu]\nendpoint = "https://rest.fra-01.braze.eu"\napi_key = "{KEY}"\nreserve = 0.3\n'
)


def run_examples(count: int) -> settings:
    """Run this many examples in the normal profile, and the profile's own number otherwise."""
    return settings(max_examples=count if settings.default.max_examples <= 100 else settings.default.max_examples)


@contextmanager
def check_logs_and_memory() -> Iterator[None]:
    """Limit the memory. Log lines must be valid JSON, report no bug and contain no canary."""
    with structlog.testing.capture_logs() as events, limit_memory(MORE_BYTES):
        yield
    for each in events:
        line = logs._create_renderer(logs._render_json)(None, "", each)
        assert orjson.loads(line)["event"] not in ("bug_found", "web_request_failed"), each
        assert KEY[:14] not in line


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """One ledger for all examples."""
    opened = run_virtual(Ledger.open(tmp_path_factory.mktemp("fuzz") / "ledger.db", clock=VirtualClock()))
    yield opened
    run_virtual(opened.close())


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A local folder that replaces the bucket of every URL."""
    folder = tmp_path_factory.mktemp("bucket")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_store, "from_url", lambda *_, **__: object_store.obstore.store.LocalStore(folder))
        yield folder


def valid_ids(pairs: set[Pair]) -> bool:
    """Check that the ledger and the API accept all ids."""
    ids = [each for pair in pairs for each in (pair.campaign_id, pair.send_id)]
    return all(1 <= len(each) <= MAX_ID_CHARACTERS and each.isascii() and "\0" not in each for each in ids)


@run_examples(30)
@given(bodies=st.lists(MESSAGES, min_size=1, max_size=6), batch_size=st.integers(1, 7), list_bytes=LISTS[".csv"])
def test_any_message_is_enqueued_or_becomes_a_dead_letter(ledger, bucket, bodies, batch_size, list_bytes):
    """A valid message that follows any other message in the same batch is enqueued."""
    (bucket / "a.csv").write_bytes(list_bytes)
    with check_logs_and_memory():
        assert valid_ids(deliver(ledger, bodies, together=batch_size) - {GOOD_PAIR})


def has_content(kind: str, data: bytes) -> bool:
    """Return whether a list has a line with content: none is empty, a comment before the header, or the header."""
    lines = [line.strip(b'\r\t ",;|{}[]\x0b\x0c\x1c\x1d\x1e\x1f\x85') for line in data.split(b"\n")]
    lines = [line for line in lines if line and not (kind == ".csv" and line.startswith(b"#"))]
    lines = [line for line in lines if not set(line.replace(b",", b" ").split()) <= {b"null"}]
    return len(lines) > (kind == ".csv")


@pytest.mark.parametrize(("kind", "count"), [(".csv", 40), (".ndjson", 40), (".parquet", 8), (".avro", 12)])
def test_any_list_is_enqueued_rejected_or_refused(ledger, kind, count):
    """A refused list is named in the error, and a list with content never reads as empty."""

    @run_examples(count)
    @given(data=LISTS[kind])
    def read_one(data: bytes) -> None:
        with check_logs_and_memory():
            pairs, rejects, refused = read_list(ledger, f"list{kind}", data)
        assert valid_ids(pairs)
        assert not refused or f"list{kind}" in refused
        assert pairs or rejects or refused or kind == ".avro" or not has_content(kind, data)

    read_one()


@run_examples(8)
@given(st.lists(answers(), min_size=1, max_size=12))
def test_any_response_is_captured_rejected_or_deferred(raw_answers):
    """Each response goes from the socket to the latest view, and does not damage the other rows of its part."""
    with tempfile.TemporaryDirectory() as name, check_logs_and_memory():
        outcomes, scrub = asyncio.run(request_all(raw_answers))
        check_outcomes(Path(name), harvest(Path(name), outcomes, scrub))


@run_examples(12)
@given(st.lists(requests(), min_size=1, max_size=8))
def test_any_web_request_gets_a_response_or_a_closed_connection(raw_requests):
    """Responses quote the request only as plain text, and the next request works."""
    with check_logs_and_memory():
        for answer in asyncio.run(request_pages(raw_requests)):
            assert not answer or answer.startswith(b"HTTP/")
            assert b"Traceback" not in answer
            assert KEY.encode() not in answer
            assert EVIL.encode() not in answer or b"text/plain" in answer


@pytest.mark.long
def test_a_decompression_bomb_stays_within_the_memory_limit(ledger, tmp_path):
    """Responses, messages and lists that would decompress to hundreds of megabytes follow their whole paths."""
    for name, raw in decompression_bombs.answers():
        with check_logs_and_memory():
            outcomes, scrub = asyncio.run(request_all([raw]))
            (outcome,) = harvest(tmp_path / name, outcomes, scrub)
            check_outcomes(tmp_path / name, [outcome])
        assert isinstance(outcome, Captured | Deferred), name
    for _, body in decompression_bombs.messages():
        with check_logs_and_memory():
            deliver(ledger, [body], together=2)
    for name, build in decompression_bombs.lists():
        data = build()
        with check_logs_and_memory():
            pairs, rejects, refused = read_list(ledger, name, data)
        assert not pairs
        assert rejects or name in refused


def result_or_error(call: Callable[[], T]) -> tuple[T | None, str]:
    """Return the result, or the text of a usage error; any other error fails the test."""
    try:
        return call(), ""
    except UsageError as error:
        assert str(error)  # noqa: PT017 - an error needs a text
        return None, str(error)


@given(
    st.dictionaries(
        st.sampled_from(["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Date"]), st.text()
    )
)
def test_rate_limit_headers_parse_to_bounded_numbers_or_none(headers):
    """Rate limit headers with any text become bounded numbers or None."""
    report = QuotaReport.from_headers(headers)
    for value in (report.limit, report.remaining, report.reset_at):
        assert value is None or 0 <= value < 10**15


@run_examples(60)
@given(damage(TOML.encode()) | st.binary(max_size=200))
def test_any_settings_file_loads_or_is_an_error_without_the_key(data):
    """Any settings file loads within the bounds, or is an error that does not show the key."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(data)
        settings, error = result_or_error(lambda: load(Path(file.name), {}, {}))
        _, key_error = result_or_error(lambda: settings.load_keys() if settings else None)
    assert KEY not in error + key_error
    if settings is None:
        return
    assert settings.keep_days >= 30
    assert settings.workspaces
    assert KEY not in repr(settings)


NAMES = st.sampled_from(
    ["LENGTH", "KEEP_DAYS", "CONCURRENCY", "RAW", "WORKSPACES", "WORKSPACES__EU__ENDPOINT", "WORKSPACES__EU__RESERVE",
     "WORKSPACES__EU__API_KEY", "WORKSPACES__EU", "WORKSPACES__EU__RESERVE__X", "MAX_SEALED_BYTES", "NO_SUCH_THING"]
)  # fmt: skip
VALUES = st.text(string.printable, max_size=30).filter(lambda text: "\0" not in text) | st.sampled_from(
    [KEY, "{}", "[]", '{"eu": {}}', "https://rest.fra-01.braze.eu", "0.5", "nan", "1e999", "true", f'{{"eu": "{KEY}"}}']
)


@run_examples(60)
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_environment_loads_or_is_an_error_without_the_key(variables):
    """Any environment loads, or is an error that does not show the key."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HARVESTER_", "BRAZE_"))]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(f"HARVESTER_{name}", value)
        settings, error = result_or_error(lambda: load(None, {}, {}))
    assert KEY not in error + repr(settings)
    assert error or settings.workspaces
