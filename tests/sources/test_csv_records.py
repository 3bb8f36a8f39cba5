"""Tests of CSV with mistakes: quotes, long rows, and headers."""

import json

import pytest

from harvester.errors import UsageError
from harvester.sources.lines import MAX_CHARACTERS
from tests.support.lists import HEADER, read_list


def test_an_open_quote_is_reported_with_its_line_and_the_lines_it_includes():
    """All lines inside the quote count as unread. The lines before it are read."""
    pairs, (bad,), source = read_list(f'{HEADER}c,s0,\n"c,s1,\nc,s2,\nc,s3,\n')
    assert list(pairs) == [("c", "s0")]
    assert (bad.line, bad.lines, source.lines) == (3, 3, 4)
    assert "begins in line 3 and never ends" in bad.problem


def test_a_quote_that_ends_in_a_cell_of_a_later_line_is_a_bad_line():
    """A quote by mistake ends at the next quote. Without the check, the row between them would be lost silently."""
    pairs, (bad,), _ = read_list('campaign_id,send_id,name\nc,s1,"half\nc,s2,"whole"\nc,s3,x\n')
    assert (list(pairs), bad.line, bad.lines) == ([("c", "s3")], 2, 2)
    assert "begins in line 2 ends in the middle of a cell in line 3" in bad.problem


def test_line_numbers_count_line_ends_inside_cells():
    """A bad row after a cell of three lines is reported with the correct line number."""
    pairs, (bad,), source = read_list('campaign_id,send_id,x\nc,s1,"a\n""b""\nc"\nc,\n')
    assert (list(pairs), bad.line, source.lines) == ([("c", "s1")], 5, 4)


@pytest.mark.parametrize("length", [65_530, 131_073, 300_000])
def test_long_cells_headers_and_lines_are_read(length):
    """Exports contain message bodies, and pivot tables have long headers. The next row is read too."""
    body = "x" * length
    assert list(read_list(f'campaign_id,send_id,body\nc,s1,"{body}"\nc,s2,{body}\n')[0]) == [("c", "s1"), ("c", "s2")]
    wide = ",".join(f"column{at}" for at in range(length // 9))
    assert list(read_list(f"campaign_id,{wide},send_id\nc,{',' * (length // 9 - 1)},s\n")[0]) == [("c", "s")]
    pairs, bad, source = read_list(
        f'{{"campaign_id":"c","send_id":"s1","x":"{body}"}}\n{{"campaign_id":"c","send_id":"s2"}}\n'
    )
    assert (list(pairs), bad, source.lines) == ([("c", "s1"), ("c", "s2")], [], 2)


@pytest.mark.parametrize(
    ("long", "after"),
    [
        ('{"campaign_id":"c","send_id":"s1","x":"%s"}', '{"campaign_id":"c","send_id":"s2"}'),
        ('c,"%s\n\n""\n",', "c,s2,"),
        ("c,%s,", "c,s2,"),
    ],
    ids=["ndjson", "quoted", "csv"],
)
def test_a_row_above_a_megabyte_is_one_bad_line(long, after):
    """The next row is read, even if the long row contains quotes and line ends."""
    head = "" if long[0] == "{" else HEADER
    pairs, (bad,), _ = read_list(f"{head}{long.replace('%s', 'x' * MAX_CHARACTERS)}\n{after}\n")
    assert list(pairs) == [("c", "s2")]
    assert str(MAX_CHARACTERS) in bad.problem


@pytest.mark.parametrize(("separator", "what"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_another_separator_is_refused_with_advice(separator, what):
    """In many countries, spreadsheets export CSV with semicolons."""
    advice = f"Columns must be separated by commas, not by {what}; export the list again with commas"
    with pytest.raises(UsageError, match=advice):
        read_list(separator.join(("Campaign_ID", '"send_id"', "sent_at")) + "\n")


def test_a_header_is_quoted_without_its_control_characters():
    """A file cannot send control sequences to a terminal."""
    with pytest.raises(UsageError) as refused:
        read_list("\x1b[31mcampaign\x1b[0m;send_id\n")
    assert "\\u001b[31mcampaign" in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_repeated_header_between_rows_is_a_bad_line():
    """``cat a.csv b.csv`` produces such a list, and its other rows are read."""
    pairs, bad, _ = read_list("campaign_id,send_id\nc,s1\ncampaign_id,send_id\nc,s2\n")
    assert list(pairs) == [("c", "s1"), ("c", "s2")]
    assert [(each.line, each.field) for each in bad] == [(3, "campaign_id")]
    assert "repeats its header" in bad[0].problem


@pytest.mark.parametrize("second", ["send_id,campaign_id,x", "\ufeffsend_id,x,campaign_id", "x,campaign_id,send_id"])
def test_a_second_header_in_another_order_is_refused(second):
    """Otherwise all rows after it would be misread."""
    with pytest.raises(UsageError, match=":3: a second header names the columns in another order"):
        read_list(f"campaign_id,send_id,x\nc,s1,1\n{second}\ns2,c,1\n")


@pytest.mark.parametrize("field", ["sent_at", "workspace", "time"])
def test_an_error_quotes_only_the_beginning_of_a_cell(field):
    """A cell of a megabyte is not printed to a terminal as a whole."""
    record = {"campaign_api_id": "c", "send_id": "s", field: "9" * 200_000}
    _, (bad,), _ = read_list(json.dumps(record) + "\n")
    assert bad.field == field
    assert len(bad.problem) < 300
