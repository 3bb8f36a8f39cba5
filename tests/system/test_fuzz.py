"""Nothing from outside ends the process, outgrows its bound, blocks what stands behind it, or shows a secret.

Outside is whatever others write: messages, lists, answers, requests, settings, the environment. Each goes its whole way
here, until it is in the ledger, in a part and in the latest view, among the dead letters or the rejects, or refused by
a sentence; under a limit on memory that holds for libraries in C too, and with a canary for a key.

The suite spends some seconds; ``pytest tests/system/test_fuzz.py --hypothesis-profile=long`` hours.
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

from harvester.braze.budget import BudgetReport
from harvester.errors import UsageError
from harvester.ledger import Ledger
from harvester.model import MAX_ID_CHARACTERS, Captured, Deferred, Pair
from harvester.observability import logs
from harvester.settings import load
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.storage import object_store
from tests.support import decompression_bombs
from tests.support.hostile_http import EVIL, answers, requests
from tests.support.hostile_input import LISTS, MESSAGES, damaged
from tests.support.memory_limit import memory_bounded
from tests.support.secret_canary import KEY
from tests.support.whole_paths import GOOD_PAIR, browse, check_outcomes, deliver, harvest, read_list, request_all

T = TypeVar("T")
MORE_BYTES = 400 << 20
"""What one example may add to the memory of this process: below what a small container has to spare."""

TOML = (
    f'concurrency = 7\n[workspaces.eu]\nendpoint = "https://rest.fra-01.braze.eu"\napi_key = "{KEY}"\nreserve = 0.3\n'
)


def few(count: int) -> settings:
    """Spend so many examples in the suite, and what the profile says elsewhere."""
    return settings(max_examples=count if settings.default.max_examples <= 100 else settings.default.max_examples)


@contextmanager
def watched() -> Iterator[None]:
    """Bound the memory; nothing that is logged may be a bug, hold the canary or be unfit to be written."""
    with structlog.testing.capture_logs() as logged, memory_bounded(MORE_BYTES):
        yield
    for each in logged:
        line = logs._guard(logs._render_json)(None, "", each)
        assert orjson.loads(line)["event"] not in ("bug_found", "web_request_failed"), each
        assert KEY[:14] not in line


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """One ledger for all that comes in."""
    opened = run_virtual(Ledger.open(tmp_path_factory.mktemp("fuzz") / "ledger.db", clock=VirtualClock()))
    yield opened
    run_virtual(opened.close())


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A folder that is the bucket of every URL."""
    folder = tmp_path_factory.mktemp("bucket")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_store, "from_url", lambda *_, **__: object_store.obstore.store.LocalStore(folder))
        yield folder


def usable(pairs: set[Pair]) -> bool:
    """Whether pairs hold what the ledger and the API can take."""
    ids = [each for pair in pairs for each in (pair.campaign_id, pair.send_id)]
    return all(1 <= len(each) <= MAX_ID_CHARACTERS and each.isascii() and "\0" not in each for each in ids)


@few(30)
@given(bodies=st.lists(MESSAGES, min_size=1, max_size=6), together=st.integers(1, 7), listed=LISTS[".csv"])
def test_a_message_ends_in_the_ledger_or_among_the_dead_letters(ledger, bucket, bodies, together, listed):
    """Alone or with others in a batch, whatever it points to: it is settled, and the good one behind it is taken."""
    (bucket / "a.csv").write_bytes(listed)
    with watched():
        assert usable(deliver(ledger, bodies, together=together) - {GOOD_PAIR})


@pytest.mark.parametrize(("kind", "count"), [(".csv", 40), (".ndjson", 40), (".parquet", 8), (".avro", 12)])
def test_a_list_ends_in_the_ledger_or_in_the_rejects(ledger, kind, count):
    """Line by line, or it is refused by a sentence that names it; never read as nothing without a word."""

    @few(count)
    @given(data=LISTS[kind])
    def taken_in(data: bytes) -> None:
        with watched():
            pairs, rejects, refused = read_list(ledger, f"list{kind}", data)
        assert usable(pairs)
        assert not refused or f"list{kind}" in refused
        rest = data.partition(b"\n")[2] if kind == ".csv" else data
        assert (
            pairs or rejects or refused or kind == ".avro" or not rest.strip(b'\r\n\t ",\x0b\x0c\x1c\x1d\x1e\x1f\x85')
        )

    taken_in()


@few(8)
@given(st.lists(answers(), min_size=1, max_size=12))
def test_an_answer_ends_in_the_latest_view_or_is_tried_again(raw_answers):
    """From the socket to the table: captured whole, rejected or deferred; no answer spoils the part of the others."""
    with tempfile.TemporaryDirectory() as name, watched():
        found, scrub = asyncio.run(request_all(raw_answers))
        check_outcomes(Path(name), harvest(Path(name), found, scrub))


@few(12)
@given(st.lists(requests(), min_size=1, max_size=8))
def test_a_request_ends_in_an_answer_or_a_closed_connection(sent):
    """The page answers what is HTTP, and the next one too; it repeats nothing of what was sent."""
    with watched():
        for answer in asyncio.run(browse(sent)):
            assert not answer or answer.startswith(b"HTTP/")
            assert b"Traceback" not in answer
            assert KEY.encode() not in answer
            assert EVIL.encode() not in answer or b"text/plain" in answer


def test_a_bomb_ends_within_the_bound(ledger, tmp_path):
    """Small things that would be hundreds of megabytes: answers, messages and lists, each on its whole way."""
    for name, raw in decompression_bombs.answers():
        with watched():
            found, scrub = asyncio.run(request_all([raw]))
            (outcome,) = harvest(tmp_path / name, found, scrub)
            check_outcomes(tmp_path / name, [outcome])
        assert isinstance(outcome, Captured | Deferred), name
    for _, body in decompression_bombs.messages():
        with watched():
            deliver(ledger, [body], together=2)
    for name, made in decompression_bombs.lists():
        data = made()
        with watched():
            pairs, rejects, refused = read_list(ledger, name, data)
        assert not pairs
        assert rejects or name in refused


def attempted(what: Callable[[], T]) -> tuple[T | None, str]:
    """Give what came of it, or the sentence that refuses it; any other error is the test's failure."""
    try:
        return what(), ""
    except UsageError as refused:
        assert str(refused)  # noqa: PT017 - a refusal without words would be a silent one
        return None, str(refused)


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


@few(60)
@given(damaged(TOML.encode()) | st.binary(max_size=200))
def test_a_settings_file_is_settings_or_a_sentence_without_the_key(data):
    """A broken file is one sentence that shows no key, or settings that hold to their bounds."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(data)
        settings, refused = attempted(lambda: load(Path(file.name), {}, {}))
        _, no_key = attempted(lambda: settings.load_keys() if settings else None)
    assert KEY not in refused + no_key
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


@few(60)
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
