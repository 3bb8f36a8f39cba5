"""A ledger's location: what is accepted, and what its name contains."""

from pathlib import Path

import pytest

from harvester.errors import UsageError
from harvester.place import parse_ledger_location


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("postgresql://h:5433/d", "postgresql://h:5433/d"),
        ("postgres://u:s3cret@h/d?sslmode=require", "postgresql://u@h/d"),
        ("postgresql://u@h1:5432,h2:5433/d?target_session_attrs=read-write&password=s3cret", "postgresql://u@h1:5432,h2:5433/d"),
        ("postgresql://u:a%40b@[::1]/d", "postgresql://u@[::1]/d"),
        ("postgresql:///d?host=/var/run/postgresql", "postgresql:///d"),
        ("postgresql:///?service=harvester&password=s3cret", "postgresql:///?service=harvester"),
        ("postgresql://h/d\n", "postgresql://h/d"),
    ],
)  # fmt: skip
def test_the_name_of_a_database_contains_no_password(text, name):
    """Messages name user, host and database; the password and the parameters, which may contain one, are left out."""
    location = parse_ledger_location(text, "--state")
    assert str(location) == name
    assert "s3cret" not in repr(location)


def test_a_path_is_the_location_of_a_file():
    """Any other text that names a file of this machine is a path."""
    for text in ("/data/ledger.db", "postgres/ledger.db", "postgresql", "pairs.db"):
        assert parse_ledger_location(text, "--state") == Path(text)


@pytest.mark.parametrize(
    "text", ["postgresql://u:s3cret@h/d with spaces", "postgresql://u:s3/cret@h/d", "host=h password=s3cret", "POSTGRESQL://h/d#s3cret",
     "postgresql://u:s3cret@h/d\0", "postgresql://u:s3cret@h/d\x1b[31m", "postgresql://u:s3cret@h/d\npostgresql://h/d"]
)  # fmt: skip
def test_an_unusable_url_is_refused_without_repeating_it(text):
    """What may contain a password is not part of the error."""
    with pytest.raises(UsageError, match="--state") as refused:
        parse_ledger_location(text, "--state")
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["postgres:/d", "postgresql:h", "postgresql//h/d", "POSTGRES://h/d", "postgress://u:s3cret@h/d", "postgersql://h/d",
     "posgresql://h/d", "psql://h/d", "pg://h/d", "postgresql+psycopg://h/d", "jdbc:postgresql://h/d"]
)  # fmt: skip
def test_a_misspelt_url_creates_no_file_and_the_error_says_what_to_write(text):
    """A text that is probably meant as the URL of a database is not the path of a ledger."""
    with pytest.raises(UsageError) as refused:
        parse_ledger_location(text, "--state")
    assert "write postgresql://user@host/database" in str(refused.value)
    assert "s3cret" not in str(refused.value)
