"""Prints the rows of a workbook as lines of JSON. Runs as a process of its own, so it imports nothing of this package.

calamine stores a sheet as one table. A workbook of a few bytes with a single cell at the end of a sheet makes it
allocate half a terabyte, which ends the process. So this process has limits of memory and time.

The first line is an object with the ``sheet``, or with a ``problem``. Then each row is a list of its number, its cells
as texts, and the positions of cells that cannot be ids, with their types. The last line is a null.
"""

import contextlib
import json
import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path

MEMORY_LIMIT_MB = 512
"""The limit of the address space. About half of it is left for the cells."""

CPU_LIMIT_SECONDS = 120
TEXT_CHARACTERS = 256
"""Texts are truncated to this length, which is longer than any id."""

_TYPES = {datetime: "a date", date: "a date", time: "a time of day", timedelta: "a duration"}
"""The types of cells that cannot be ids. Excel makes a date of an id such as 24-11."""

_MAX_EXACT = 10**15
"""Spreadsheets store 15 digits, so larger whole numbers have lost some."""

Cell = str | float | datetime | date | time | timedelta


def main(path: str, wanted_sheet: str) -> None:
    """Print the rows of a sheet, or of the first visible one."""
    _limit_resources()
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr] # it is a text file
    import python_calamine as calamine  # noqa: PLC0415 - after the limits

    with Path(path).open("rb") as file:
        try:
            workbook = calamine.load_workbook(file)
            sheets = [each for each in workbook.sheets_metadata if each.typ is calamine.SheetTypeEnum.WorkSheet]
            names = [each.name for each in sheets]
            visible = [each.name for each in sheets if each.visible is calamine.SheetVisibleEnum.Visible]
            name = wanted_sheet or next(iter(visible or names), "")
            if name not in names:
                _print({"problem": f"it has no sheet {name!r}; its sheets are {', '.join(map(repr, names)) or 'none'}"})
                return
            sheet = workbook.get_sheet_by_name(name)
        except calamine.PasswordError:
            _print({"problem": "it has a password; save it without one, or as CSV"})
            return
        except (calamine.CalamineError, OSError) as error:
            _print({"problem": f"it cannot be read as a workbook: {error}"})
            return
        _print({"sheet": name, "sheets": names})
        for number, row in enumerate(sheet.iter_rows(), 1):
            types = {position: kind for position, cell in enumerate(row) if (kind := _find_type(cell))}
            _print([number, list(map(_format_cell, row)), types])
    _print(None)


def _limit_resources() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not all systems have these limits
        import resource  # noqa: PLC0415 - it does not exist on all systems

        size = MEMORY_LIMIT_MB << 20
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_SECONDS, CPU_LIMIT_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _find_type(cell: Cell) -> str | None:
    """Return what a cell is that cannot be an id, or None."""
    return "a fraction" if isinstance(cell, float) and not cell.is_integer() else _TYPES.get(type(cell))


def _format_cell(cell: Cell) -> str:
    """Return a cell as the text that a list in CSV would contain."""
    if isinstance(cell, str):
        return cell[:TEXT_CHARACTERS]
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int | float):
        if abs(cell) >= _MAX_EXACT:
            return f"{cell:.14E}"
        return str(int(cell)) if cell == int(cell) else repr(cell)
    return cell.isoformat() if isinstance(cell, date | time) else str(cell)


def _print(value: object) -> None:
    """Print a line of JSON. Escapes would make a row of emoji three times as long."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
