"""Tests of the names of columns, and of the options for lists without the usual names or without a header."""

import re
from pathlib import Path

import pytest

from harvester.errors import UsageError
from harvester.sources import ListOptions
from harvester.sources.columns import ACCEPTED_NAMES, normalize_name
from harvester.sources.lists.kinds import COMPRESSION_SUFFIXES, KINDS_BY_SUFFIX
from tests.support.lists import read_list

LISTS_PAGE = (Path(__file__).parent.parent.parent / "docs" / "lists.md").read_text()


@pytest.mark.parametrize("names", [
    ("CAMPAIGN_ID", "SEND_ID", "SENT_AT"), ("campaignId", "sendId", "sentAt"), ("Campaign ID", "Send-ID", "Sent Time"),
    ("campaign_api_id", "send.id", "time"), ("Braze Campaign Id", "send_identifier", "timestamp"),
])  # fmt: skip
def test_columns_are_found_whatever_the_case_and_the_separators_of_their_names(names):
    """The same names are found in CSV and in JSON."""
    campaign, send, sent_at = names
    pairs, bad, _ = read_list(f"{campaign},x,{send},{sent_at}\nc,1,s,2026-11-20\n")
    assert (list(pairs), bad) == ([("c", "s")], [])
    line = f'{{"{campaign}":"c","{send}":"s","{sent_at}":"2026-11-20"}}\n'
    assert read_list(line)[0] == pairs
    assert None not in pairs.values()


def test_every_accepted_name_belongs_to_one_field():
    """Otherwise a list would be read differently from what the documentation says."""
    names = [normalize_name(name) for names in ACCEPTED_NAMES.values() for name in names]
    assert len(names) == len(set(names))


def test_the_documentation_contains_the_tables_of_the_code():
    """They are the accepted names of each field, and the suffixes of lists."""
    for field, names in ACCEPTED_NAMES.items():
        (row,) = re.findall(rf"^\| `{field}` \|(.*)\|", LISTS_PAGE, re.MULTILINE)
        assert re.findall(r"`([^`]+)`", row.partition("|")[0]) == list(names), field
    documented = {}
    for kind, suffixes in re.findall(r"^\| (CSV|JSON|Parquet|Avro|Excel) \| ([^|]*) \|", LISTS_PAGE, re.MULTILINE):
        documented |= dict.fromkeys(re.findall(r"`([^`]+)`", suffixes), kind)
    assert documented == {suffix: str(kind) for suffix, kind in KINDS_BY_SUFFIX.items()}
    (row,) = re.findall(r"so the suffixes (.*?) are", LISTS_PAGE, re.DOTALL)
    assert re.findall(r"`([^`]+)`", row) == list(COMPRESSION_SUFFIXES)


def test_an_option_names_a_column():
    """It also settles which of two columns that fit is used. The field may be spelled as a column."""
    options = ListOptions.parse(["send_id=Versand", "sentAt=sent_at"])
    text = "campaign_id,VERSAND,send_id,sent_at,time\nc,s,x,2026-11-20,y\n"
    assert list(read_list(text, options=options)[0]) == [("c", "s")]
    with pytest.raises(UsageError, match="no column 'Versand', which --column names for send_id; found: campaign_id"):
        read_list("campaign_id,send_id\n", options=ListOptions.parse(["send_id=Versand"]))


@pytest.mark.parametrize("column", ["send_id", "send_id=", "colour=x", "=x"])
def test_an_invalid_column_option_is_refused(column):
    """The error lists the fields."""
    with pytest.raises(UsageError, match="write FIELD=NAME; the fields are campaign_id, "):
        ListOptions.parse([column])
    with pytest.raises(UsageError, match="names send_id twice"):
        ListOptions.parse(["send_id=a", "send_id=b"])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_an_option_replaces_a_missing_header(separator):
    """The separator is detected by the number of cells. A header that is there nevertheless is a bad line."""
    options = ListOptions.parse(no_header="campaign_id,name,send_id")
    text = "# x\nc,a b,s1\nc,,s2\ncampaign_id,name,send_id\n".replace(",", separator)
    pairs, (bad,), _ = read_list(text, options=options)
    assert (list(pairs), bad.line) == ([("c", "s1"), ("c", "s2")], 4)


def test_a_list_without_header_is_refused_with_the_option_that_settles_it():
    """The first row could be a header with unknown names."""
    with pytest.raises(
        UsageError, match=r"found: c, s1, y\. If .* if the list has no header, .*: --no-header campaign_id,send_id,x$"
    ):
        read_list("c,s1,y\nc,s2,y\n")


@pytest.mark.parametrize(
    ("names", "problem"),
    [("campaign_id,x", "must include campaign_id and send_id"), ("campaign_id,send_id,Send ID", "names send_id twice")],
)
def test_names_of_columns_without_those_of_a_pair_are_refused(names, problem):
    """The error does not depend on a list."""
    with pytest.raises(UsageError, match=f"--no-header .*{problem}"):
        ListOptions.parse(no_header=names)


@pytest.mark.parametrize(
    "text",
    ["campaign_id,send_id,Send ID\nc,s1,s2\n", '{"campaign_id":"c","Send ID":"s2","send_id":"s1"}\n'],
    ids=["csv", "json"],
)
def test_an_option_chooses_between_two_spellings_of_a_name(text):
    """The exact spelling counts."""
    for spelling, send in {"send_id": "s1", "Send ID": "s2"}.items():
        pairs, bad, _ = read_list(text, options=ListOptions.parse([f"send_id={spelling}"]))
        assert (list(pairs), bad) == ([("c", send)], [])


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("campaign_id,send_id,Versandt,,Name\nc,s,,,\n", "Versandt, Name"),
        ('{"campaign_id":"c","send_id":"s","Versandt":1}', "Versandt"),
        ("campaign_id,send_id," + "x" * 99 + ",c2,c3,c4,c5,c6,c7\n", "x" * 32 + ", c2, c3, c4, c5 and 2 more"),
    ],
)
def test_ignored_columns_are_named(text, ignored):
    """One of them could be the time of the send under another name. There may be thousands of them."""
    assert f"; ignored columns {ignored}; rows" in read_list(text)[2].formats[0]
