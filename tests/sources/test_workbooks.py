"""Tests of Excel workbooks as lists: typed cells, titles, sheets, and workbooks that need too much memory."""

import zipfile
from datetime import UTC, date, datetime, time

import pytest
import xlsxwriter

from harvester.errors import UsageError
from harvester.sources import ListOptions
from tests.support.lists import read_list

SENT_AT = datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp()
HEADER = ["Campaign ID", "Send ID", "Sent at", "Note"]


def write_workbook(path, sheets):
    """Write a workbook with these sheets: the rows by name. Return the path."""
    with xlsxwriter.Workbook(path, {"default_date_format": "dd/mm/yy hh:mm"}) as workbook:
        for name, rows in sheets.items():
            sheet = workbook.add_worksheet(name)
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)
    return path


def test_cells_are_read_by_their_types(tmp_path):
    """Dates do not depend on their format, and numbers have no fraction. Empty rows are ignored."""
    rows = [
        ["Sends of autumn"], [], HEADER,
        ["c", " s1 ", datetime(2026, 11, 20, 8), "x"],  # noqa: DTZ001 - cells have no zone
        [], [12, 34, date(2026, 11, 20)], ["c", "s2", "2026-11-20T08:00:00Z"], ["c", "s3", None, True],
    ]  # fmt: skip
    pairs, bad, source = read_list("", name=write_workbook(tmp_path / "a.xlsx", {"S": rows}))
    assert bad == []
    assert pairs == {("c", "s1"): SENT_AT, ("12", "34"): SENT_AT - 8 * 3600, ("c", "s2"): SENT_AT, ("c", "s3"): None}
    assert (source.lines, source.naive_times) == (4, 2)
    assert "Excel, sheet 'S' of 1; columns Campaign ID as campaign_id, " in source.formats[0]


def test_a_bad_cell_is_reported_with_the_row_as_excel_numbers_it(tmp_path):
    """A number of more than 15 digits has lost some in Excel, and a number without a date format is no time."""
    rows = [["Title"], HEADER, [], [1234567890123456, "s", "", ""], ["c", "s", 46346.5, ""]]
    _, bad, _ = read_list("", name=write_workbook(tmp_path / "a.xlsx", {"S": rows}))
    assert [(each.line, each.field) for each in bad] == [(4, "Campaign ID"), (5, "Sent at")]
    assert "rounded" in bad[0].problem


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (date(2026, 11, 24), "a date"),
        (time(8, 30), "a time of day"),
        (1.5, "a fraction"),
    ],
)
def test_an_id_that_excel_changed_is_a_bad_line(tmp_path, cell, kind):
    """Excel makes a date of 24-11 and a time of 8:30. The text of the cell is not the id that somebody entered."""
    path = write_workbook(tmp_path / "a.xlsx", {"S": [HEADER, ["c", "s"], ["c", cell], [cell, "s", cell, cell]]})
    pairs, bad, _ = read_list("", name=path)
    assert (list(pairs), [each.field for each in bad]) == ([("c", "s")], ["Send ID", "Campaign ID"])
    assert f"is {kind} in Excel; format the column as text" in bad[0].problem


def test_a_sheet_can_be_chosen(tmp_path):
    """If the first sheet is no list, the error contains the names of the others and the option."""
    path = write_workbook(tmp_path / "a.xlsx", {"Cover": [["x"]], "Sends": [HEADER, ["c", "s"]]})
    with pytest.raises(UsageError, match="The sheets are 'Cover', 'Sends'; choose one with --sheet NAME"):
        read_list("", name=path)
    assert list(read_list("", name=path, options=ListOptions.parse(sheet="Sends"))[0]) == [("c", "s")]
    with pytest.raises(UsageError, match="it has no sheet 'sends'; its sheets are 'Cover', 'Sends'"):
        read_list("", name=path, options=ListOptions.parse(sheet="sends"))
    with pytest.raises(UsageError, match="it is not an Excel workbook, so it has no sheet 'Sends'; remove --sheet"):
        read_list("campaign_id,send_id\nc,s\n", options=ListOptions.parse(sheet="Sends"))


def test_a_workbook_without_a_header_or_from_standard_input_is_read(tmp_path):
    """Its content tells its kind."""
    path = write_workbook(tmp_path / "a.xlsx", {"S": [["c", "s1"], ["c", "s2"]]})
    options = ListOptions.parse(no_header="campaign_id,send_id")
    assert list(read_list(path.read_bytes(), options=options)[0]) == [("c", "s1"), ("c", "s2")]


def test_a_workbook_that_needs_too_much_memory_is_refused(tmp_path):
    """A distant cell makes the reader allocate half a terabyte. The process that reads it ends, and not this one."""
    path = write_workbook(tmp_path / "a.xlsx", {"S": [HEADER, ["c", "s"]]})
    with xlsxwriter.Workbook(path) as workbook:
        sheet = workbook.add_worksheet()
        sheet.write(0, 0, "campaign_id")
        sheet.write(1_048_575, 16_383, "x")
    assert path.stat().st_size < 10_000
    with pytest.raises(UsageError, match=r"more than 512 MB of memory .*; save it as CSV"):
        read_list("", name=path)


@pytest.mark.parametrize("data", ["zip", b"PK\x03\x04", b"\xd0\xcf\x11\xe0" + b"\0" * 2000, b""])
def test_a_file_that_is_no_workbook_is_refused(tmp_path, data):
    """The error contains its name."""
    path = tmp_path / "a.xlsx"
    if data == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.csv", "campaign_id,send_id\nc,s\n")
    else:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=r"a\.xlsx: .*cannot be read as a workbook"):
        read_list("", name=path)
