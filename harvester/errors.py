"""What can go wrong, and what is to be done about it.

The base class says what the process does, the leaf says what happened::

    HarvesterError                 exit code  what the user does
    ├── UsageError                     2      mends the command, the configuration or the input
    ├── StorageError                   5      mends the disk, the folder or the bucket, then runs again
    │   ├── LedgerError                       ... the ledger cannot be opened, read or written
    │   │   └── LedgerLost                    ... its file was removed or replaced while it was in use
    │   └── SinkError                         ... a part cannot be created; it is tried again
    │       ├── PartConflict                  ... a part's bytes are not those that were sealed: never written over
    │       ├── SinkRefused                   ... the place must not be used: another ledger's, damaged, overwriting
    │       └── SinkClosed                    ... nobody takes parts any more: the reader of a pipe has gone
    ├── BrokerError                    -      nothing, or mends the broker: the trigger connects again
    └── ExchangeError                  -      nothing: one exchange with the API failed, the harvest tries again

Every message is one sentence that names the thing and says what to do. None holds a secret.
Errors of foreign libraries are translated at the door of the library, once.

The second half of this page is the table from HTTP status to what it means for a reading.
"""

from enum import Enum, IntEnum


def cause_text(cause: str) -> str:
    """Return a cause in words for people: ``connection refused``, ``status 502``."""
    return cause.replace("_", " ")


def install_hint(extra: str) -> str:
    """Return how to install an optional dependency from a clone; ``harvester`` on PyPI is another project."""
    return f"in the clone of harvester, run: pip install -c locks/constraints.txt -e '.[{extra}]'"


class ExitCode(IntEnum):
    """The closed list of exit codes."""

    COMPLETE = 0
    BUG = 1
    USAGE = 2
    PARTIAL = 3
    HALTED = 4
    STORAGE = 5
    INTERRUPTED = 130


class HarvesterError(Exception):
    """Something the harvester expects to go wrong; its message is meant for people."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, cause: str = "failed") -> None:
        """Keep the sentence for people, and the ``cause``, one of a closed set (see ``causes``), for labels."""
        super().__init__(message)
        self.cause = cause


class UsageError(HarvesterError):
    """The command, the configuration or the input is not usable as given."""

    exit_code = ExitCode.USAGE


class StorageError(HarvesterError):
    """A place that must keep data does not."""

    exit_code = ExitCode.STORAGE


class LedgerError(StorageError):
    """The ledger cannot be opened, read or written."""


class LedgerLost(LedgerError):  # noqa: N818 - a state of the disk, not of the program
    """The ledger's file was removed, renamed or replaced while it was in use: what is written is gone with it."""


class SinkError(StorageError):
    """A part cannot be created where it belongs."""


class PartConflict(SinkError):  # noqa: N818 - a conflict is a state of the place, not of the program
    """A part's name is taken by other bytes, or its own are damaged. Nothing was overwritten."""


class SinkRefused(SinkError):  # noqa: N818 - as above
    """A place must not be written to: it is another ledger's, its mark is damaged, or it overwrites."""


class SinkClosed(SinkError):  # noqa: N818 - as above
    """Nothing will ever be taken again."""


class BrokerError(HarvesterError):
    """A message broker, or the connection to it, failed. What was not acknowledged comes again."""


class ExchangeError(HarvesterError):
    """One exchange with the API brought no usable answer. ``cause`` is a closed set, for counting."""

    def __init__(self, cause: str, detail: str) -> None:
        """Keep the cause for the books and the detail for the log."""
        super().__init__(cause_text(cause) + (f": {detail}" if detail else ""))
        self.cause = cause


class Meaning(Enum):
    """What an answer's status means for the reading that asked."""

    ANSWER = "answer"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    REJECTED = "rejected"
    HALTED = "halted"


_MEANINGS = {200: Meaning.ANSWER, 408: Meaning.TRANSIENT, 429: Meaning.THROTTLED} | dict.fromkeys(
    (401, 403, 415), Meaning.HALTED
)


def meaning_of(status: int) -> Meaning:
    """Classify a status line as read from the wire.

    400, 404 and other 4xx end the reading; 401, 403 and 415 speak of the key, so they halt the workspace
    (error pages of the API's documentation). Everything unknown is transient: a status nobody documents
    must never settle a pair.
    """
    if status in _MEANINGS:
        return _MEANINGS[status]
    return Meaning.REJECTED if 400 <= status < 500 else Meaning.TRANSIENT
