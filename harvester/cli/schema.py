"""The command schema: prints table definitions, and the statements that keep the latest rows."""

import tempfile
from pathlib import Path

import click

from harvester.cli import options, progress, startup
from harvester.cli.latest import copy_parts
from harvester.errors import UsageError
from harvester.place import PlaceKind, classify_place

_DATABASES = ("duckdb", "bigquery", "snowflake", "redshift", "athena", "clickhouse", "spark", "postgresql")
_LIBRARIES = ("polars", "jsonschema")


@click.command()
@click.argument("place", required=False, shell_complete=options.complete_path)
@click.option(
    "--for",
    "kind",
    type=click.Choice([*_DATABASES, *_LIBRARIES]),
    required=True,
    help="The database or library that reads the parts.",
)
@click.option(
    "--statement",
    type=click.Choice(["table", "latest", "merge"]),
    default="table",
    show_default=True,
    help="The table for the parts, the latest view over it, or a MERGE of its rows into a table TABLE_latest.",
)
@click.option("--table", default="send_analytics", show_default=True, help="The name of the table.")
@options.config
def schema(place: str | None, kind: str, statement: str, table: str, config: Path | None) -> None:
    """Print the table definition for the parts.

    The table has a column for each counter that Braze documents. With PLACE, a folder or bucket, it also has a column
    for each new counter in the parts there. The type of a counter depends only on its name, so it never changes.

    \b
    Examples:
      harvester schema --for snowflake
      harvester schema ./harvest --for duckdb --statement merge
      harvester schema --for jsonschema > row.schema.json
    """
    from harvester.commands.schema import list_columns
    from harvester.datasets import Statement, build_statement

    if kind in _LIBRARIES and statement != "table":
        raise UsageError(f"--statement {statement} needs a database; {kind} has only the definition of the table")
    with tempfile.TemporaryDirectory(prefix="harvester-") as temporary:
        if place is None:
            columns = list_columns(None, Path(temporary))
        else:
            with progress.show_work(f"reading {place}") as show:
                columns = list_columns(_get_folder(place, Path(temporary), config, show), Path(temporary))
    click.echo(build_statement(Statement(statement), kind, columns, table), nl=False)


def _get_folder(place: str, temporary: Path, config: Path | None, show: progress.Show) -> Path:
    """Return the folder with the parts of a place; those of a bucket are copied."""
    if classify_place(place, "PLACE", buckets=True) is PlaceKind.FILE:
        return Path(place)
    if config is not None:
        startup.load_settings({"config": config})  # it names the proxy
    return copy_parts(place, temporary, show)
