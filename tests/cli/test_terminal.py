"""A whole run on a terminal: progress, warnings, summary and the end of the screen."""

import re
import sys

from harvester.simulator import Simulator, SimulatorConfig
from tests.commands.test_capture import write_pairs
from tests.support.secret_canary import KEY

TERMINAL = (
    sys.executable,
    "-c",
    "import pty, sys; pty.spawn(['sh', '-c', 'stty columns 60; exec \"$@\"', 'sh', *sys.argv[1:]])",
)
CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


async def test_a_run_on_a_terminal_shows_progress_then_short_warnings_and_a_summary(harvester, tmp_path):
    """Each is on lines of its own, the progress is one line of 60 columns that is erased, and NO_COLOR is respected."""
    harvester.env |= {"TERM": "xterm", "NO_COLOR": "1"}
    config = SimulatorConfig(pairs=38, limit=1_000_000, api_key=KEY, latency_seconds=0.1)
    async with Simulator(config) as simulator:
        write_pairs(tmp_path / "pairs.csv", simulator)
        with (tmp_path / "pairs.csv").open("a") as file:
            for fault in ("nosuccess", "html"):
                file.write(f"{simulator.population[0].pair.campaign_id},fault-{fault}x1,\n")
        _, out, err = await harvester.run("run", "pairs.csv", "--endpoint", simulator.url, inside=TERMINAL)
    lines = [CODES.sub("", line) for line in re.split(r"[\r\n]+", out)]
    progress = [line for line in lines if " of 40 pairs" in line]
    assert progress, out + err
    assert {len(line) <= 60 and line.startswith("\u2501") for line in progress} == {True}, progress
    warnings = [line for line in lines if "warning" in line]
    assert sorted(warnings) == [
        "warning: response unusable: no success",
        "warning: response unusable: unparsable",
    ], out
    assert lines.index("accepted   40 pairs") > max(map(lines.index, [*progress, *warnings]))
    assert out.rindex("\x1b[2K") < out.index("accepted")  # the progress is erased
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", out)
