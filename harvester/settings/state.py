"""Where the ledger is: the setting ``state``, or the file in ``state_file``, which contains the URL of its database."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator

from harvester.errors import UsageError
from harvester.observability.redaction import register_url_secrets
from harvester.place import DatabaseUrl, LedgerLocation, find_location_problem, parse_ledger_location
from harvester.settings.secret_files import name_source, read_secret


def _check_state(value: Any) -> LedgerLocation:
    """Return the location; that of an option has already been parsed."""
    if isinstance(value, Path | DatabaseUrl):
        return value
    if not isinstance(value, str):
        raise ValueError("should be a path or the URL of a database")  # noqa: TRY004 - pydantic expects a ValueError
    problem = find_location_problem(value)
    if problem is not None:
        raise ValueError(problem)
    register_url_secrets(value)
    return parse_ledger_location(value, "state")


StateSetting = Annotated[Any, PlainValidator(_check_state)]
"""A ``LedgerLocation``; for the dataclass in it, pydantic would import modules that nothing else needs."""


def load_state(file: Path, setting: str = "state_file") -> DatabaseUrl:
    """Return the URL in a file, and mask its password from now on. Raises ``UsageError``, which never contains it.

    ``setting`` is what named the file.
    """
    what = f"the ledger's URL ({name_source(setting, file)})"
    text = read_secret(file, what)
    register_url_secrets(text)
    location = parse_ledger_location(text, f"the file of {what}")
    if isinstance(location, Path):
        raise UsageError(f"the file of {what} must contain the URL of a database; name a ledger's file in state")
    return location
