"""The wording of what became of a send, for the command line and the page."""

from dataclasses import replace

import pytest

from harvester.commands.show import as_dict, explain_unknown, find_wait_cause, list_facts
from harvester.ledger import MAX_AHEAD, NextReading, PastReading, SendHistory, SendSearch
from harvester.model import Pair

NOW = 1_795_527_667.0
DUE = NextReading("d3", NOW - 60, 0)
PENDING = SendHistory(Pair("eu", "c", "s"), "pending", None, NOW - 60, NOW + 86_400, 1, (), DUE, None, has_plan=True)
SEARCH = SendSearch(NOW, (PENDING,), more=False, in_use=True, served=True)
REFUSED = PastReading("d1", "rejected", None, "status_404", "no such\x1b campaign", NOW - 60, None, None)


@pytest.mark.parametrize(
    ("send", "search", "cause", "text"),
    [
        (PENDING, SEARCH, "queued", "it is due; 0 more urgent readings of its workspace come first"),
        (
            replace(PENDING, next=replace(DUE, ahead=MAX_AHEAD)),
            SEARCH,
            "queued",
            "at least 10,000 more urgent readings of its workspace come first",
        ),
        (PENDING, replace(SEARCH, in_use=False), "no_process", "start harvester serve or harvester run"),
        (replace(PENDING, halt_reason="status 401"), SEARCH, "halted", 'workspace "eu" is halted: status 401'),
        (
            replace(PENDING, has_plan=False),
            SEARCH,
            "unconfigured",
            'workspace "eu" is not served',
        ),
        (replace(PENDING, has_plan=False), replace(SEARCH, served=False), "queued", "it is due"),
        (replace(PENDING, next=replace(DUE, due_at=NOW + 7200)), SEARCH, "not_due", "its reading d3 is due in 2 h"),
        (
            replace(PENDING, next=replace(DUE, due_at=NOW + 60, failures=2)),
            SEARCH,
            "deferred",
            "2 attempts failed; it is tried again in 1 min",
        ),
        (replace(PENDING, next=replace(DUE, leased=True)), SEARCH, "leased", "a process is requesting it"),
    ],
)
def test_a_pending_send_says_what_it_waits_for(send, search, cause, text):
    """Scripts read one of a fixed set of causes, and people read a sentence that says what to do."""
    name, state = list_facts(send, search)[0]
    assert (name, find_wait_cause(send, search)) == ("state", cause)
    assert text in state


def test_the_configuration_decides_which_workspace_is_served():
    """A workspace that is not configured any more is shown as not served, although the ledger has its plan."""
    assert find_wait_cause(PENDING, SEARCH, ["us"]) == "unconfigured"
    assert find_wait_cause(replace(PENDING, has_plan=False), SEARCH, ["eu"]) == "queued"


def test_a_rejected_send_has_the_response_and_the_next_step():
    """The user sees Braze's response, with its control characters escaped, and what to do."""
    send = replace(PENDING, pair=Pair("eu", "c o", "s"), state="rejected", readings=(REFUSED,), next=None)
    facts = dict(list_facts(send, SEARCH))
    assert facts["state"] == ("rejected: status 404: no such\\x1b campaign")
    assert facts["command"].endswith(": harvester requeue --pair 'c o' s --workspace eu")
    assert facts["sent"] == "at an unknown time"
    assert as_dict(send, SEARCH)["wait_cause"] is None


def test_a_capture_names_its_part():
    """The history names the part of a capture, and says whether the part is stored yet."""
    past = PastReading("d1", "captured", "zero", None, "", NOW - 60, "send_analytics/a.ndjson", None)
    facts = dict(list_facts(replace(PENDING, round=2, readings=(past,)), SEARCH))
    assert facts["reading"].endswith("1 min ago: zero; part send_analytics/a.ndjson, not stored yet")
    assert facts["round"] == "2: the send id was sent again"


def test_the_id_of_a_campaign_is_recognized():
    """The command with a send of the campaign can be copied."""
    found = replace(SEARCH, sends=(), example=Pair("eu", "c o", "s"))
    assert explain_unknown(found).endswith(": harvester show 'c o' s")


def test_an_unknown_send_may_have_been_pruned():
    """The numbers of a send that the ledger has deleted are still in the parts."""
    found = replace(SEARCH, sends=(), example=None)
    assert explain_unknown(found).endswith("deletes settled sends after keep_days; harvester latest exports their rows")
