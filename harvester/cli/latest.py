"""The command latest: exports the latest numbers of every send."""

import tempfile
from pathlib import Path

import click

from harvester.cli import options, output, startup
from harvester.errors import HarvesterError
from harvester.model import DATASET, is_part
from harvester.place import PlaceKind, classify_place


@click.command()
@click.argument("place", shell_complete=options.complete_path)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["ndjson", "csv", "parquet"]),
    default="ndjson",
    show_default=True,
    help="The file format; Parquet needs -o.",
)
@click.option("-o", "--out", type=options.LocalPath(), help="The file to write.  [default: stdout]")
@click.option(
    "--memory-limit-mb",
    default=512,
    show_default=True,
    help="The memory for sorting, in MB; larger data is sorted on disk.",
)
@options.config
def latest(place: str, kind: str, out: Path | None, memory_limit_mb: int, config: Path | None) -> None:
    """Export the latest numbers of every send.

    PLACE is the folder or bucket of the parts. The export is the latest view: one row for each pair, day, channel and
    variation, with a column for each counter (500 at most). Each reading is a snapshot: sum over these rows, never over
    readings. The parts of a bucket are copied to the folder for temporary files (TMPDIR) while they are read.

    \b
    Examples:
      harvester latest ./harvest --format parquet -o latest.parquet
      harvester latest s3://lake/braze --format csv -o latest.csv
    """
    from harvester.datasets import write_latest

    in_bucket = classify_place(place, "PLACE", buckets=True) is PlaceKind.BUCKET
    if in_bucket and config is not None:
        startup.load_settings({"config": config})  # it names the proxy
    with tempfile.TemporaryDirectory(prefix="harvester-") as temporary:
        folder = copy_parts(place, Path(temporary)) if in_bucket else Path(place)
        try:
            written = write_latest(folder, out, kind, memory_limit_mb=memory_limit_mb, temp_directory=Path(temporary))
        except HarvesterError as error:
            if not in_bucket:
                raise
            # The error names the copy.
            raise type(error)(str(error).replace(str(folder), place.rstrip("/"))) from None
    if out is not None:
        click.echo(f"wrote {output.plural(written.row_count, 'row')} to {out}", err=True)
    if written.folded_count:
        click.echo(
            f"{output.plural(written.folded_count, 'rare counter')} stored as JSON text in the column unrecognized, "
            "since the view has at most 500 columns of counters",
            err=True,
        )


def copy_parts(place: str, to: Path) -> Path:
    """Copy the parts of a bucket to a folder, under the same names; returns the folder."""
    from harvester.storage.object_store import ObjectStore

    store = ObjectStore(place)
    for name in store.list_names(DATASET):
        if not is_part(name):
            continue
        part = to / name
        part.parent.mkdir(parents=True, exist_ok=True)
        store.download(name, part)
    if next(store.list_names(".harvester"), None) is not None:
        (to / ".harvester").mkdir()
    return to
