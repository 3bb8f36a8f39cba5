"""Tests of CSV with mistakes: quotes, long rows, and headers."""

import io
import json

import pytest

from harvester.errors import UsageError
from harvester.sources import Input
from harvester.sources.lists.lines import MAX_CHARACTERS
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


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_detected_by_the_header(separator):
    """In many countries, spreadsheets export CSV with semicolons. Cells may contain the other separators."""
    text = f'Campaign_ID{separator}"send_id"{separator}note\nc{separator}"s{separator}1"{separator}",;|\t"\n'
    pairs, bad, _ = read_list(text)
    assert (list(pairs), bad) == ([("c", f"s{separator}1")] if separator != "\t" else [], bad)
    assert len(bad) == (separator == "\t")


@pytest.mark.parametrize("line", ["sep=;\n", '"sep=;"\r\n', "SEP=;\n"])
def test_a_line_of_excel_names_the_separator(line):
    """The line numbers of bad lines include it. A line without a separator is refused."""
    pairs, (bad,), _ = read_list(f"{line}campaign_id;send_id\nc;s\nc;\n")
    assert (list(pairs), bad.line) == ([("c", "s")], 4)
    with pytest.raises(UsageError, match=":1: the line sep= names no separator"):
        read_list("sep=\ncampaign_id,send_id\nc,s\n")


def test_comments_and_blank_lines_before_the_header_are_skipped():
    """Reports begin with them. Between rows, a line with # may be an id, so it is reported."""
    pairs, (bad,), _ = read_list('# "exported, by\n\n  # x\ncampaign_id,send_id\nc,s\n# end\n')
    assert (list(pairs), bad.line) == ([("c", "s")], 6)


def test_a_header_may_begin_with_a_number_sign():
    """Some programs write it like a comment."""
    assert list(read_list("# x\n#campaign_id\tsend_id\nc\ts\n")[0]) == [("c", "s")]


def test_a_header_in_one_quoted_cell_is_quoted_in_the_error():
    """A spreadsheet that took a list for one column writes it."""
    with pytest.raises(UsageError, match="found: 'campaign_id,send_id'"):
        read_list('"campaign_id,send_id"\n"c,s"\n')


def test_lines_without_content_are_no_lines():
    """Spreadsheets write separators for rows that were deleted, and spare cells beside the table."""
    pairs, bad, source = read_list('campaign_id,send_id,sent_at\nc,s,,,\n,,\n , \n"",\nc,t,,\n')
    assert (list(pairs), bad, source.lines) == ([("c", "s"), ("c", "t")], [], 2)


def test_a_row_may_end_before_its_optional_columns():
    """A last line without a line end is not read, because the file may have been cut off inside an id."""
    pairs, bad, _ = read_list("campaign_id,send_id,sent_at,x\nc,s1\nc,s2,2026-11-20\nc\nc,s")
    assert list(pairs) == [("c", "s1"), ("c", "s2")]
    assert [each.line for each in bad] == [4, 5]
    assert "the file may be incomplete" in bad[1].problem


def test_a_quoted_cell_after_a_blank_is_read_without_its_quotes():
    """People write a blank after a separator."""
    assert list(read_list('campaign_id, send_id\n"c", "s ""1"""\n')[0]) == [("c", 's "1"')]


def test_a_header_is_quoted_without_its_control_characters():
    """A file cannot send control sequences to a terminal."""
    with pytest.raises(UsageError) as refused:
        read_list("\x1b[31mcampaign\x1b[0m;send_id\n")
    assert "\\u001b[31mcampaign" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "second", ["campaign_id,send_id,x", "\ufeffcampaign_id,send_id,x", '"campaign_id","send_id","x"']
)
def test_a_repeated_header_between_rows_is_skipped_and_counted(second):
    """``cat a.csv b.csv`` produces such a list. The repeated header is skipped, but counts as a line."""
    pairs, (bad,), source = read_list(f"campaign_id,send_id,x\nc,s1,1\n{second}\nc,s2,2\nc,,3\n")
    assert list(pairs) == [("c", "s1"), ("c", "s2")]
    assert (bad.line, source.lines, source.skipped) == (5, 3, {"rows that repeat the header": 1})


def test_a_second_header_with_other_columns_is_a_bad_line():
    """It is not skipped: the joined lists have different columns."""
    pairs, (bad,), _ = read_list("campaign_id,send_id,x\nc,s1,1\ncampaign_id,send_id,y\nc,s2,2\n")
    assert (list(pairs), bad.line) == ([("c", "s1"), ("c", "s2")], 3)
    assert "second header, whose ignored columns differ" in bad.problem


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


@pytest.mark.parametrize("text", [f"{HEADER}\n \n", f"{HEADER},,\n,,\n", f'{HEADER}"\n \n', '{"campaign_id":1}\n \n'])
def test_reading_yields_between_lines_that_are_no_rows(text):
    """A command can then show its progress and react to Ctrl-C, even if gigabytes of lines contain no row."""
    lines = text.splitlines(keepends=True)
    source = Input(
        ["-"], workspaces=["w"], stdin=io.BytesIO("".join([*lines[:-2], *lines[-2:] * 1001]).encode()), now=0
    )
    assert None in source.read()


def test_blank_lines_count_in_the_numbers_of_lines():
    """Equal blank lines are read together, before the header, between rows, and inside a cell."""
    pairs, bad, _ = read_list("\n\n \n" + HEADER + "\n\r\n\r\n\nc,\n\n\nc,s1,\n" + '"a\n\n\n\n",\n' + "c,\n")
    assert (list(pairs), [each.line for each in bad]) == ([("c", "s1")], [9, 13, 18])
    assert [each.line for each in read_list('{"send_id":1}\n\n\n\n\n{"send_id":1}\n')[1]] == [1, 6]
