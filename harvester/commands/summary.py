"""The result of a run, and its exit code."""

from collections import Counter
from dataclasses import dataclass, field

from harvester.books import Books
from harvester.errors import ExitCode, HarvesterError


@dataclass(slots=True)
class Summary:
    """The result of a run, and the state of the ledger after it.

    ``places`` are those of the parts. ``lists_read`` is whether all lists were read to their end. ``problem`` is what
    ended the run early.
    """

    workspaces: dict[str, Books]
    lines: int = 0
    bad_lines: int = 0
    reasons: list[str] = field(default_factory=list)
    rejects_file: str | None = None
    formats: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    naive_times: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    rows: int = 0
    part_bytes: int = 0
    places: list[str] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    waited_seconds: float = 0.0
    halted: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    lists_read: bool = True
    unstored: int = 0
    planned: int = 0
    clock_difference_seconds: float | None = None
    clock_problem: str | None = None
    in_question: int = 0
    retention_unconfirmed: bool = False
    problem: HarvesterError | None = None

    @property
    def books(self) -> Books:
        """The balance of all workspaces together."""
        return Books.sum(self.workspaces.values())

    @property
    def exit_code(self) -> ExitCode:
        """The exit code: if several apply, that of the most serious problem."""
        if not all(books.balanced for books in self.workspaces.values()):
            return ExitCode.BUG
        if self.problem is not None:
            return self.problem.exit_code
        if self.halted:
            return ExitCode.HALTED
        if self.interrupted and (self.books.pending or not self.lists_read):
            return ExitCode.INTERRUPTED
        if (
            self.books.pending
            or self.books.rejected
            or self.books.expired
            or self.bad_lines
            or self.retention_unconfirmed
        ):
            return ExitCode.PARTIAL
        return ExitCode.COMPLETE
