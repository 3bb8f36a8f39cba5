"""Finds the files of a list: a single file, or all files of one kind in a folder, below a URL, or that match a pattern.

A pattern contains ``*`` (any text without a slash), ``**/`` (any folders) or ``[...]``. Files without the suffix of a
list are ignored, such as ``_SUCCESS``.
"""

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from harvester.errors import UsageError
from harvester.model import is_in_object_store
from harvester.sources.lists.kinds import KINDS_BY_SUFFIX, Kind, find_kind, is_list_name
from harvester.sources.lists.regular_files import check_readable, check_regular_file

if TYPE_CHECKING:
    from harvester.storage.object_store import ObjectStore

FileOpener = Callable[[], BinaryIO]
"""Opens a file that can be read. It need not support seeking."""

_WILDCARD = re.compile(r"[*\[]")
_PATTERN_PARTS = re.compile(r"\*\*/|\*|\[[^]/]+\]|[^*\[]+|\[")
_REPLACEMENTS = {"**/": "(?:.*/)?", "*": "[^/]*"}
_CHARACTERS = re.compile(r"\[[^]]+\]")
_OTHER_KINDS = "it contains files of several kinds ({}); name those of one kind with a pattern, such as '{}/**/*{}'"


class ListedFile(NamedTuple):
    """A file: its name for messages, and a function that opens it.

    ``path`` is its path if it is on this machine, and otherwise ``copy_to`` copies it to a path.
    """

    name: str
    open: FileOpener
    path: Path | None = None
    copy_to: Callable[[Path], None] | None = None


class Place(Protocol):
    """A place of lists, as the user named it, and its files. ``is_single`` is whether it is one file."""

    place: str
    is_single: bool

    def __iter__(self) -> Iterator[ListedFile]:
        """Yield the files. Raises ``UsageError`` if one cannot be part of the list."""
        ...


class StandardInput:
    """Standard input as the only file of a place."""

    place = "-"
    is_single = True

    def __init__(self, stdin: BinaryIO) -> None:
        """Read from ``stdin``."""
        self._stdin = stdin

    def __iter__(self) -> Iterator[ListedFile]:
        """Yield standard input."""
        yield ListedFile("-", lambda: self._stdin)


class FilesOfPlace:
    """The files of one place, in the order of their names.

    ``kind`` is the kind that the names of the files tell. If some are Avro files, the others are ignored. ``first`` is
    the first file, and ``is_single`` whether the place is one file.
    """

    def __init__(self, place: str, *, patterns: bool = True) -> None:
        """Find the kind. ``patterns`` is whether a place may be a pattern.

        Raises ``UsageError`` if there is no file, and ``SinkError`` if a bucket cannot be listed.
        """
        self.place = place
        self.is_single = False
        self._is_pattern = patterns and _WILDCARD.search(place) is not None
        try:
            self._list = self._find_lister(place)
            files = self._list()
            first = next(files, None)
            avro = first if self.is_single else next((file for file in chain([first], files) if _is_avro(file)), None)
        except OSError as error:
            raise UsageError(f"{place}: {error.strerror}; check the name of the file or folder") from None
        if first is None:
            suffixes = ", ".join(KINDS_BY_SUFFIX)
            raise UsageError(f"{place}: there are no lists and no files of Currents; their names end in {suffixes}")
        self.first = avro or first
        self.kind = find_kind(self.first.name)

    def _find_lister(self, place: str) -> Callable[[], Iterator[ListedFile]]:
        """Return a function that lists the files. Raises ``OSError`` if a file on this machine cannot be read."""
        if is_in_object_store(place):
            if self._is_pattern:
                return partial(_list_bucket, place[: _find_top(place)], place)
            self.is_single = is_list_name(place)
            return partial(_get_object, place) if self.is_single else partial(_list_bucket, place)
        path = Path(place)
        if path.is_dir():
            return partial(_walk_folder, path)
        if self._is_pattern and not path.exists():
            return partial(_walk_folder, Path(place[: _find_top(place)] or "."), place)
        self.is_single = True
        check_readable(path, allow_pipe=find_kind(place) is not Kind.AVRO)
        return lambda: iter([ListedFile(place, lambda: path.open("rb"), path)])

    def __iter__(self) -> Iterator[ListedFile]:
        """Yield the files. Raises ``UsageError`` at the first file of another kind."""
        for file in self._list():
            kind = find_kind(file.name)
            if kind is self.kind or self.is_single:
                yield file
            elif self.kind is not Kind.AVRO:
                kinds = f"{self.kind or 'unknown'} and {kind or 'unknown'}"
                suffix = next((suffix for suffix, each in KINDS_BY_SUFFIX.items() if each is self.kind), "")
                raise UsageError(f"{self.place}: {_OTHER_KINDS.format(kinds, self.place.rstrip('/'), suffix)}")


def _is_avro(file: ListedFile | None) -> bool:
    return file is not None and find_kind(file.name) is Kind.AVRO


def _find_top(pattern: str) -> int:
    """Return the length of the folder in front of the first wildcard of a pattern, without its slash."""
    match = _WILDCARD.search(pattern)
    return max(0, pattern.rfind("/", 0, match.start() if match else None))


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression. Raises ``UsageError`` for one with an invalid range of characters."""
    try:
        return re.compile("".join(map(_translate, _PATTERN_PARTS.findall(pattern))))
    except re.error as error:
        raise UsageError(f"the pattern {pattern!r} is invalid: {error}; correct what is in brackets") from None


def _translate(part: str) -> str:
    """Return a part of a pattern as a part of a regular expression."""
    if part in _REPLACEMENTS:
        return _REPLACEMENTS[part]
    if _CHARACTERS.fullmatch(part):
        return "[" + re.sub(r"[\\\[&|~]|-(?=-)", r"\\\g<0>", part[1:])
    return re.escape(part)


def _is_listed(name: str, pattern: re.Pattern[str] | None) -> bool:
    return is_list_name(name) and (pattern is None or pattern.fullmatch(name) is not None)


def _get_object(url: str) -> Iterator[ListedFile]:
    from harvester.storage.object_store import ObjectStore  # noqa: PLC0415 - imported only if needed, because it is slow to import

    folder, _, name = url.rpartition("/")
    yield _create_file(ObjectStore(folder), name)


def _list_bucket(url: str, pattern: str | None = None) -> Iterator[ListedFile]:
    from harvester.storage.object_store import ObjectStore  # noqa: PLC0415 - as above

    store, compiled = ObjectStore(url), _compile_pattern(pattern) if pattern else None
    for name in store.list_names():
        if _is_listed(f"{store.url}/{name}", compiled):
            yield _create_file(store, name)


def _create_file(store: "ObjectStore", name: str) -> ListedFile:
    def copy_to(path: Path) -> None:
        """Copy the object. Raises ``UsageError`` if the store refuses it, another ``SinkError`` if the store fails."""
        from harvester.storage.object_store import ObjectRefused  # noqa: PLC0415 - as above

        try:
            store.download(name, path)
        except ObjectRefused as error:
            raise UsageError(str(error)) from None

    return ListedFile(f"{store.url}/{name}", partial(store.open_copy, name), copy_to=copy_to)


def _walk_folder(top: Path, pattern: str | None = None) -> Iterator[ListedFile]:
    """Yield the files below a folder in order. Only the names of one folder are in memory.

    Links to folders are not followed. A folder that cannot be listed is yielded as a file that cannot be opened.
    """
    compiled = _compile_pattern(os.path.normpath(pattern)) if pattern else None
    errors: list[OSError] = []
    for folder, subfolders, files in os.walk(top, onerror=errors.append):
        subfolders.sort()
        for file in sorted(files):
            path = Path(folder, file)
            if _is_listed(str(path), compiled):
                yield ListedFile(str(path), partial(_open_file, path), path)
    for error in errors:
        path = Path(error.filename)
        yield ListedFile(str(path), partial(_open_file, path), path)


def _open_file(path: Path) -> BinaryIO:
    check_regular_file(path)
    return path.open("rb")
