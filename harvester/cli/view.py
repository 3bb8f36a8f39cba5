"""The command that reads what was harvested: latest."""

import tempfile
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["ndjson", "csv", "parquet"]), default="ndjson", show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A file  [default: stdout]")
@click.option("--memory-limit-mb", default=512, show_default=True, help="What does not fit is put on disk for a while.")
def latest(folder: Path, kind: str, out: Path | None, memory_limit_mb: int) -> None:
    """Write the latest view of a harvested FOLDER: the newest numbers of each send, day, channel and variation.

    \b
    Example:
      harvester latest ./harvest --format parquet -o latest.parquet
    """
    from harvester.tables import write_latest

    with tempfile.TemporaryDirectory(prefix="harvester-") as spill:
        rows = write_latest(folder, out, kind, memory_limit_mb=memory_limit_mb, temp_directory=Path(spill))
    if out is not None:
        click.echo(f"{rows} rows in {out}", err=True)
