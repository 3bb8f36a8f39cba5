"""Where the command latest writes, and in which format."""

import pytest
from click.testing import CliRunner

from harvester.cli import main

ROW = b'{"workspace":"default","campaign_id":"c","send_id":"s","level":"capture","captured_at":"2026-11-20"}\n'


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Run ``latest`` over a part with one row; return the error, and the beginning of each file that was written."""
    part = tmp_path / "harvest" / "send_analytics" / "captured_date=2026-11-20" / "a.ndjson"
    part.parent.mkdir(parents=True)
    part.write_bytes(ROW)
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> tuple[str, dict[str, bytes]]:
        done = CliRunner().invoke(main, ("latest", "harvest", *options))
        views = sorted(tmp_path.glob("view*"))
        return "" if done.exit_code == 0 else done.stderr, {each.name: each.read_bytes()[:12] for each in views}

    return run


def test_the_ending_of_a_file_decides_the_format(export):
    """``-o view.parquet`` alone writes Parquet; a name without an ending gets NDJSON."""
    for name in ("view.parquet", "view.CSV", "view.duckdb", "view"):
        error, views = export("-o", name)
        assert error == ""
    begins = {"view": b'{"workspace"', "view.CSV": b"workspace,ca", "view.parquet": b"PAR1"}
    assert all(views[name].startswith(begin) for name, begin in begins.items())
    assert views["view.duckdb"][8:] == b"DUCK"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("-o", "view.parquet", "--format", "csv"), "-o view.parquet does not match --format csv; change one of them"),
        (("-o", "view.xlsx"), "-o view.xlsx: no format has the ending .xlsx; add --format"),
    ],
)
def test_a_format_that_the_name_contradicts_is_refused(export, options, problem):
    """It would replace a good export by a file that its readers refuse."""
    assert export(*options) == (f"harvester: {problem}\n", {})


def test_a_name_with_another_ending_needs_a_format(export):
    """Any name is possible with ``--format``."""
    assert export("-o", "view.txt", "--format", "csv") == ("", {"view.txt": b"workspace,ca"})
