"""The errors that harvester raises, and what to do about each.

The base class determines the exit code, the leaf says what happened::

    HarvesterError                 exit code  what the user does
    ├── UsageError                     2      corrects the command, the configuration or the input
    ├── StorageError                   5      repairs the disk, the folder or the bucket, then runs again
    │   ├── LedgerError                       ... the ledger cannot be opened, read or written
    │   │   └── LedgerLost                    ... its file was removed or replaced while it was in use
    │   └── SinkError                         ... a part cannot be created; it is retried
    │       ├── PartConflict                  ... a part's bytes differ from the sealed ones: never overwritten
    │       ├── SinkRefused                   ... the place must not be used: of another ledger, damaged, overwriting
    │       └── SinkClosed                    ... no part is accepted any more: the reader closed the pipe
    ├── BrokerError                    -      nothing, or repairs the broker: the trigger reconnects
    └── ExchangeError                  -      nothing: one request to the API failed and is retried

Every message names the object and the next step. None contains a secret. Errors of libraries are translated once,
in the module that imports the library.

The second half of this module is the table from HTTP status to its meaning for a reading.
"""

from enum import Enum, IntEnum


def format_cause(cause: str) -> str:
    """Return a cause as text for people: ``connection refused``, ``status 502``."""
    return cause.replace("_", " ")


def install_hint(extra: str) -> str:
    """Return how to install an optional dependency from a clone; ``harvester`` on PyPI is a different project."""
    return f"in the clone of harvester, run: pip install -c locks/constraints.txt -e '.[{extra}]'"


class ExitCode(IntEnum):
    """The exit codes, a closed set."""

    COMPLETE = 0
    BUG = 1
    USAGE = 2
    PARTIAL = 3
    HALTED = 4
    STORAGE = 5
    INTERRUPTED = 130


class HarvesterError(Exception):
    """An expected failure; its message is for people."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, cause: str = "failed") -> None:
        """Keep the sentence for people, and the ``cause``, one of a closed set (see ``causes``), for labels."""
        super().__init__(message)
        self.cause = cause


class UsageError(HarvesterError):
    """The command, the configuration or the input is not usable."""

    exit_code = ExitCode.USAGE


class StorageError(HarvesterError):
    """A disk, folder, bucket or ledger that must keep data fails."""

    exit_code = ExitCode.STORAGE


class LedgerError(StorageError):
    """The ledger cannot be opened, read or written."""


class LedgerLost(LedgerError):  # noqa: N818 - a state of the disk, not of the program
    """The ledger's file was removed, renamed or replaced while it was in use: its content would be lost."""


class SinkError(StorageError):
    """A part cannot be created in its place."""


class PartConflict(SinkError):  # noqa: N818 - a conflict is a state of the place, not of the program
    """A part of the same name has different bytes, or the part's own bytes are damaged. Nothing was overwritten."""


class SinkRefused(SinkError):  # noqa: N818 - as above
    """A place must not be written to: it belongs to another ledger, its marker is damaged, or it overwrites."""


class SinkClosed(SinkError):  # noqa: N818 - as above
    """The place accepts no more parts."""


class BrokerError(HarvesterError):
    """A message broker, or the connection to it, failed. Unacknowledged messages are redelivered."""


class ExchangeError(HarvesterError):
    """A request to the API got no usable response. ``cause`` is a closed set, for counting."""

    def __init__(self, cause: str, detail: str) -> None:
        """Keep the cause for counters and the detail for the log."""
        super().__init__(format_cause(cause) + (f": {detail}" if detail else ""))
        self.cause = cause


class Meaning(Enum):
    """What the status of a response means for its reading."""

    SUCCESS = "success"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    REJECTED = "rejected"
    HALTED = "halted"


_MEANINGS = {200: Meaning.SUCCESS, 408: Meaning.TRANSIENT, 429: Meaning.THROTTLED} | dict.fromkeys(
    (401, 403, 415), Meaning.HALTED
)


def classify_status(status: int) -> Meaning:
    """Classify a status line as read from the wire.

    400, 404 and other 4xx end the reading; 401, 403 and 415 concern the key, so they halt the workspace (error pages
    of the API's documentation). Every unknown status is transient: it must never settle a pair.
    """
    if status in _MEANINGS:
        return _MEANINGS[status]
    return Meaning.REJECTED if 400 <= status < 500 else Meaning.TRANSIENT


def find_first_error(failures: BaseExceptionGroup[Exception]) -> Exception:
    """Return the first error inside nested groups."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    assert isinstance(failure, Exception)
    return failure
