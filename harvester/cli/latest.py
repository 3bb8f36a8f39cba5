"""The command latest: exports the latest numbers of every send."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import options, output, progress, startup
from harvester.errors import HarvesterError, UsageError
from harvester.model import DATASET, OWN_FOLDERS, is_in_object_store, is_part
from harvester.place import PlaceKind, classify_place
from harvester.text import printable

if TYPE_CHECKING:
    from harvester.datasets import WrittenView

_SLASHES_OF_A_PART = 2
_FORMATS = {".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv", ".parquet": "parquet", ".duckdb": "duckdb"}
"""The formats by the ending of a file's name."""


@click.command()
@click.argument("place", shell_complete=options.complete_path)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["ndjson", "csv", "parquet", "duckdb"]),
    help="The file format, or a table in a DuckDB file.  [default: that of the ending of OUT, else ndjson]",
)
@click.option("-o", "--out", type=options.ListedPlace(), help="The file or object to write.  [default: stdout]")
@click.option(
    "--partition-by",
    type=click.Choice(["workspace", "date", "level", "channel"]),
    help="Write a folder with a file for each value of this column, such as OUT/date=2026-11-20/latest.parquet.",
)
@click.option("--since", metavar="DAY", help="Only rows captured on this day (UTC) or later, such as 2026-11-20.")
@click.option("--table", default="latest", show_default=True, help="The table in the DuckDB file.")
@click.option(
    "--memory-limit-mb",
    default=512,
    show_default=True,
    help="The memory for sorting, in MB; larger data is sorted on disk.",
)
@options.config
def latest(
    place: str, out: str | None, config: Path | None, kind: str | None, since: str | None, **export: Any
) -> None:
    """Export the latest numbers of every send.

    PLACE is the folder or bucket of the parts. The export is the latest view: one row for each pair, day, channel and
    variation, with a column for each counter (500 at most). Each reading is a snapshot: sum over these rows, never over
    readings. The parts of a bucket are read once, a few at a time.

    With --since, the export has only the rows whose numbers were captured on that day or later. With --partition-by
    too, it has all rows of each partition that contains such a row, so its files replace those of an earlier export.

    \b
    Examples:
      harvester latest ./harvest -o latest.parquet
      harvester latest s3://lake/braze -o latest.csv
      harvester latest s3://lake/braze --format parquet -o s3://lake/latest --partition-by date --since 2026-11-20
      harvester latest ./harvest -o lake.duckdb
    """
    out = None if out == "-" else out
    kind = _find_format(out, kind)
    _check_options(out, kind, since)
    if out is None:
        output.check_stdout("write to a place with -o")
    in_bucket = classify_place(place, "PLACE", buckets=True) is PlaceKind.BUCKET
    if config is not None and (in_bucket or is_in_object_store(out or "")):
        startup.load_settings({"config": config})  # it names the proxy
    with (
        tempfile.TemporaryDirectory(prefix="harvester-") as temporary,
        _show_progress(out, f"reading {place}") as show,
    ):
        written = _export(place, out, Path(temporary), show, file_format=kind, since=since, **export)
    if out is not None:
        click.echo(f"wrote {output.plural(written.row_count, 'row')} to {out}", err=True)
    if written.folded_count:
        click.echo(
            f"{output.plural(written.folded_count, 'rare counter')} stored as JSON text in the column unrecognized, "
            "since the view has at most 500 columns of counters",
            err=True,
        )


def _show_progress(out: str | None, text: str) -> AbstractContextManager[progress.Show]:
    """Show progress, unless the terminal gets the rows."""
    return nullcontext(lambda _: None) if out is None and sys.stdout.isatty() else progress.show_work(text)


def _export(place: str, out: str | None, temporary: Path, show: progress.Show, **export: Any) -> "WrittenView":
    """Write the latest view of a place. Parts and output in a bucket are copied through the folder ``temporary``."""
    from harvester.datasets import write_latest

    target = None if out is None else Path(out)
    if out is not None and is_in_object_store(out):
        target = temporary / "export" / out.rstrip("/").rpartition("/")[2]
        target.parent.mkdir()
    show(f"computing the latest numbers of {place}")
    if is_in_object_store(place):
        copies = temporary / "parts"
        try:
            written = write_latest(BucketParts(place, copies, show), target, temp_directory=temporary, **export)
        except HarvesterError as error:
            # The error names the copy of a part.
            raise type(error)(str(error).replace(str(copies), place.rstrip("/"))) from None
    else:
        written = write_latest(Path(place), target, temp_directory=temporary, **export)
    if out is not None and target is not None and is_in_object_store(out):
        _upload_files(target, out, show)
    return written


def _find_format(out: str | None, kind: str | None) -> str:
    """Return the format, given the option ``kind``. Raises ``UsageError`` if the ending of ``out`` contradicts it."""
    ending = Path(out or "").suffix.lower()
    implied = _FORMATS.get(ending)
    if kind is None and ending and implied is None:
        raise UsageError(f"-o {printable(out or '')}: no format has the ending {printable(ending)}; add --format")
    if None not in (kind, implied) and kind != implied:
        raise UsageError(f"-o {printable(out or '')} does not match --format {kind}; change one of them")
    return kind or implied or "ndjson"


def _check_options(out: str | None, kind: str, since: str | None) -> None:
    """Raise ``UsageError`` for options that do not fit, and for an output among the parts."""
    if since is not None and not _is_day(since):
        raise UsageError(f"--since {printable(since)} is not a day; write it as 2026-11-20")
    if since is not None and kind == "duckdb":
        raise UsageError("--since cannot be used with --format duckdb, whose table always has all rows")
    if out is not None and is_in_object_store(out) and kind == "duckdb":
        raise UsageError("--format duckdb needs a file on this machine; for a bucket, use --format parquet")
    if out is not None and is_in_object_store(out) and not out.partition("://")[2].rstrip("/").partition("/")[2]:
        raise UsageError(f"-o {printable(out)} names only a bucket; add the name of the file or folder to write")
    if out is not None and not OWN_FOLDERS.isdisjoint(out.split("/")):
        raise UsageError(f"-o {printable(out)} is inside a dataset; choose a place outside of it")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _upload_files(target: Path, out: str, show: progress.Show) -> None:
    """Write the exported file, or all files of the folder, to a bucket. Files of an earlier export are replaced."""
    from harvester.storage.object_store import ObjectStore

    store = ObjectStore(out.rstrip("/").rpartition("/")[0])
    for path in sorted(target.rglob("*")) if target.is_dir() else [target]:
        if path.is_file():
            show(f"writing {path.relative_to(target.parent)} to {out}")
            store.replace(str(path.relative_to(target.parent)), path)


class BucketParts:
    """The parts in a bucket. Opening a part downloads a copy; closing it deletes the copy."""

    def __init__(self, place: str, copies: Path, show: progress.Show) -> None:
        """List the parts. Open parts are copied to the folder ``copies``; ``show`` displays the progress."""
        from harvester.storage.object_store import ObjectStore

        self._store = ObjectStore(place)
        self._copies, self._show = copies, show
        self._opened = 0
        self.place = place.rstrip("/")
        # Objects in folders below those of days, such as copies, are not parts.
        names = self._store.list_names(DATASET)
        self.names = [name for name in names if is_part(name) and name.count("/") == _SLASHES_OF_A_PART]
        self.is_used = next(self._store.list_names(".harvester"), None) is not None

    @contextmanager
    def open(self, name: str) -> Iterator[Path]:
        """Return a copy of a part, which exists inside the context. Raises ``SinkError``."""
        self._opened += 1
        self._show(f"reading part {self._opened} of {len(self.names)} in {self.place}")
        part = self.copy(name)
        try:
            yield part
        finally:
            part.unlink()

    def copy(self, name: str) -> Path:
        """Copy a part; returns the copy. Raises ``SinkError``."""
        part = self._copies / name
        part.parent.mkdir(parents=True, exist_ok=True)
        self._store.download(name, part)
        return part


def copy_parts(place: str, to: Path, show: progress.Show) -> Path:
    """Copy the parts of a bucket to a folder, under the same names; returns the folder. ``show`` gets the progress."""
    parts = BucketParts(place, to, show)
    for number, name in enumerate(parts.names, 1):
        show(f"copying part {number} of {place}")
        parts.copy(name)
    if parts.is_used:
        (to / ".harvester").mkdir()
    return to
