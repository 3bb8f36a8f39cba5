"""How commands find a ledger, and the folder beside it."""

from pathlib import Path

import pytest

from harvester.cli import ledger_access
from harvester.place import DatabaseUrl

DATABASE = DatabaseUrl("postgresql://h/d")


@pytest.mark.parametrize(
    ("out", "state", "location", "folder"),
    [
        (None, None, Path("harvest/.harvester/ledger.db"), "harvest/.harvester"),
        ("lake", None, Path("lake/.harvester/ledger.db"), "lake/.harvester"),
        ("s3://lake/a", None, Path(".harvester/s3-lake-a.db"), ".harvester"),
        ("s3://lake/a", Path("data/led.db"), Path("data/led.db"), "data"),
        (None, DATABASE, DATABASE, "harvest/.harvester"),
        ("lake", DATABASE, DATABASE, "lake/.harvester"),
        ("s3://lake/a", DATABASE, DATABASE, ".harvester"),
        ("-", DATABASE, DATABASE, ".harvester"),
    ],
)
def test_rejects_are_beside_the_file_or_where_it_would_be(out, state, location, folder):
    """A ledger in a database leaves its rejects in the folder that a file would be in."""
    assert ledger_access.get_location(out, state) == location
    assert ledger_access.get_rejects_folder(out, location) == Path(folder)
