"""Tests of ids: which are valid, which are invalid, and which cause a note."""

import json

import pytest

from harvester.sources import RejectsFile
from tests.support.currents import create_event, write_events
from tests.support.lists import DAY, HEADER, NOW, read_list, write_parquet

PLACEHOLDERS = ["NULL", "null", "\\N", "None", "nan", "NaN", "NaT", "<NA>", "N/A", "(null)", "undefined", "-"]
SPREADSHEET_ERRORS = [
    "#N/A",
    "#REF!",
    "#VALUE!",
    "#NAME?",
    "####",
    "1.23457E+11",
    "4.5E+15",
    "1E+11",
    "1,2E+10",
    "1.2e-7",
]


@pytest.mark.parametrize("text", PLACEHOLDERS + SPREADSHEET_ERRORS)
def test_placeholders_and_errors_of_databases_and_spreadsheets_are_bad_lines(text):
    """The report names the text, in both id fields and in every format."""
    lines = f'c,"{text}",\n"{text}",s,\n"=""{text}""",s,\nc,good,\n'
    pairs, bad, _ = read_list(HEADER + lines)
    assert list(pairs) == [("c", "good")]
    assert [(each.line, each.field) for each in bad] == [(2, "send_id"), (3, "campaign_id"), (4, "campaign_id")]
    assert all(f"'{text}'" in each.problem for each in bad)
    (again,) = read_list(json.dumps({"campaign_id": "c", "send_id": text}))[1]
    assert again.problem == bad[0].problem


def test_the_text_notation_of_spreadsheets_is_removed_from_ids():
    """The id in Excel's ``="x"`` is x."""
    assert list(read_list(HEADER + '="c",="s-1",\n"=""c""","=""s """"2""""""",\n')[0]) == [("c", "s-1"), ("c", 's "2"')]


@pytest.mark.parametrize(
    "text", ["none", "NA", "24-Nov", "11/24/2026", "Nov-26", "'123", "=A1", "123.0", "1E11", "000"]
)
def test_a_doubtful_id_is_read_and_causes_a_note(text):
    """A customer may use the text as an id. The note contains the first one and the number of the others."""
    pairs, bad, source = read_list(f"{HEADER}c,{text},\nd,{text},\n")
    assert (list(pairs), bad) == ([("c", text), ("d", text)], [])
    (note,) = source.notes
    assert note.startswith(f"standard input:2: send_id {text!r} looks like")
    assert "(and 1 more)" in note


@pytest.mark.parametrize(
    "text",
    [
        "4055e0cb-d5c3-4d52-8055-e0cbd5c3ad52",
        "4055E0CB-D5C3-4D52-8055-E0CBD5C3AD52",
        "5f2ab3c4d5e6f708192a3b4c",
        "send-0000000",
        "2026-11-24T08:00:00",
        "20261124",
        "12E5",
        "c",
        "7",
        "Null Island",
        "autumn/1 a&b",
        "e+1",
    ],
)
def test_ordinary_ids_cause_no_note(text):
    """Ordinary ids are UUIDs, hex, times and the words of a customer."""
    pairs, bad, source = read_list(f"{HEADER}{text},{text},\n")
    assert (list(pairs), bad, source.notes) == ([(text, text)], [], [])


def test_an_id_with_other_characters_is_a_bad_line_that_quotes_it_escaped(tmp_path):
    """Other characters are escape sequences, control characters and marks that change the direction of text."""
    ids = ["\x1b[31mred", "a\x07", "a\x9bb", "a\u202eb", "a\tb", "é", "a\x7f", "a\udcff"]
    rejects = RejectsFile(tmp_path / "rejects.ndjson")
    pairs, bad, _ = read_list(HEADER + "".join(f"c,{each},{each}\n" for each in ids))
    for each in bad:
        rejects.add(each)
    assert (pairs, len(bad)) == ({}, len(ids))
    written = rejects.path.read_text()
    assert all(line.isprintable() for line in written.splitlines() + rejects.reasons)
    assert [json.loads(json.loads(line)["text"])["send_id"] for line in written.splitlines()] == ids


def test_blanks_around_an_id_are_ignored_in_every_format(tmp_path):
    """Columns of a fixed width are padded with blanks. Braze would return zeros for an id with blanks."""
    path = write_parquet(tmp_path / "p.parquet", "SELECT 'c  '::VARCHAR AS campaign_id, ' s' AS send_id")
    folder = tmp_path / "currents"
    write_events(folder, [create_event("c  ", " s", time=int(NOW) - DAY)])
    lists = [
        read_list('{"campaign_id": "c  ", "send_id": "\\ts "}\n'),
        read_list('campaign_id,send_id\nc ," s"\n'),
        read_list("", name=path),
        read_list("", name=folder),
    ]
    assert [list(pairs) for pairs, _, _ in lists] == [[("c", "s")]] * 4
