"""The help and the completion of the command line."""

import re

import pytest
from click.shell_completion import ShellComplete

from harvester.cli import GROUPS, main


async def test_help_describes_each_command_in_a_whole_sentence(harvester):
    """Commands are in groups, and no description is truncated in a terminal of 80 columns."""
    code, out, _ = await harvester.run("--help")
    sections = dict(re.findall(r"^(\w+):\n((?:  .*\n)+)", out, re.MULTILINE))
    assert (code, [*GROUPS]) == (0, [name for name in sections if name in GROUPS])
    lines = [line for name in GROUPS for line in sections[name].splitlines()]
    assert [line.split()[0] for line in lines] == list(main.commands)
    assert [line for line in lines if not line.endswith(".")] == []


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "req", [("requeue", "plain")]),
        (["run"], "--comp", [("--compression", "plain")]),
        (["run", "--compression"], "", [("zstd", "plain"), ("gzip", "plain")]),
        (["run"], "sends", [("sends", "file")]),
        (["run", "-o"], "har", [("har", "file")]),
        (["latest"], "har", [("har", "file")]),
        (["doctor", "--config"], "x", [("x", "file")]),
    ],
)
def test_the_shell_completes_commands_options_values_and_files(words, incomplete, expected):
    """The shell itself completes names of files."""
    found = ShellComplete(main, {}, "harvester", "_HARVESTER_COMPLETE").get_completions(words, incomplete)
    assert [(each.value, each.type) for each in found] == expected


async def test_the_documented_variable_prints_the_completion_of_each_shell(harvester):
    """The lines of the documentation work as they are."""
    for shell, word in (("bash", "complete -o nosort"), ("zsh", "compdef"), ("fish", "complete --no-files")):
        harvester.env["_HARVESTER_COMPLETE"] = f"{shell}_source"
        code, out, err = await harvester.run()
        assert (code, err, word in out) == (0, "", True), out
