"""``harvester run`` as the program under test: pairs come from list files, and each process ends by itself."""

import csv
from pathlib import Path

from benchmarks.torture.chaos import LIST_PAIRS, Torture
from benchmarks.torture.check_output import CheckFailed


class CaptureTarget(Torture):
    """Runs one ``harvester run`` after the other on the same output."""

    jumps = (0.0, 0.0, 0.0, 3600.0, -3600.0, 3 * 86_400.0, -3 * 86_400.0, 20 * 86_400.0, -20 * 86_400.0)
    last_reading = "once"
    lists: tuple[Path, ...] = ()
    """The lists that no process has read completely yet."""

    def arguments(self) -> list[str]:
        """Return the command that captures all lists that are not completely read."""
        options = [
            "--endpoint",
            f"http://127.0.0.1:{self.port}",
            "--api-key-file",
            "valid.key",
            "--json",
            "--concurrency",
            str(self.rng.choice([2, 8, 64])),
            "--patience-seconds",
            "1",
        ]
        return ["run", *(path.name for path in self.lists), "-o", self.place.out, *options]

    async def enqueue_pairs(self) -> None:
        """Write a list of new pairs, which the next process reads."""
        path = self.disk / f"list-{self.counts['lists']}.csv"
        self.counts["lists"] += 1
        pairs = self.new_pairs(LIST_PAIRS)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("campaign_id", "send_id"), *pairs])
        self.lists += (path,)
        self.enqueued_pairs |= set(pairs)

    def record_success(self) -> None:
        """Forget the lists: the process has read them completely."""
        self.lists = ()

    async def settle_all(self) -> None:
        """Run until a process captures everything and ends with 0. Raises ``CheckFailed``."""
        for _ in range(20):
            process = self.start(right_clock=True)
            await self.wait_for_end(process, timeout_seconds=120.0)
            if process.exitcode == 0:
                return
        raise CheckFailed(f"20 runs did not capture everything: the last one ended with exit code {process.exitcode}")
