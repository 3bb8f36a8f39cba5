"""``harvester run`` under torture: lists of pairs are files, and a process ends when nothing is left that it can do."""

import csv
from pathlib import Path

from benchmarks.torture.chaos import LIST_PAIRS, Torture
from benchmarks.torture.check_output import Wrong


class OfRuns(Torture):
    """Historical captures, one after the other."""

    jumps = (0.0, 0.0, 0.0, 3600.0, -3600.0, 3 * 86_400.0, -3 * 86_400.0, 20 * 86_400.0, -20 * 86_400.0)
    last_reading = "once"
    lists: tuple[Path, ...] = ()
    """Those that may not have been read to their end."""

    def arguments(self) -> list[str]:
        """Take up all lists that may not have been read to their end."""
        options = [
            "--endpoint",
            f"http://127.0.0.1:{self.port}",
            "--api-key-file",
            "valid.key",
            "--json",
            "--concurrency",
            str(self.draw.choice([2, 8, 64])),
            "--patience-seconds",
            "1",
        ]
        return ["run", *(path.name for path in self.lists), "-o", self.place.out, *options]

    async def hand_in(self) -> None:
        """Write another list of pairs for the next process to read."""
        path = self.disk / f"list-{self.done['lists']}.csv"
        self.done["lists"] += 1
        pairs = self.new_pairs(LIST_PAIRS)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("campaign_id", "send_id"), *pairs])
        self.lists += (path,)
        self.enqueued_pairs |= set(pairs)

    def ended_well(self) -> None:
        """Take note that it has read its lists to their end."""
        self.lists = ()

    async def at_rest(self) -> None:
        """Run again until nothing is left."""
        for _ in range(20):
            process = self.start(right=True)
            await self.ended(process, within=120.0)
            if process.exitcode == 0:
                return
        raise Wrong(f"twenty runs did not come to the end: the last one ended with {process.exitcode}")
