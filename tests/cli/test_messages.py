"""The messages of the command line for new users and for commands that cannot work."""

import asyncio
import json
import os
import re
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from harvester.__main__ import main as run_module
from harvester.books import Books
from harvester.cli import main
from harvester.cli.layout import wrap
from harvester.cli.output import unread_lines
from harvester.cli.plan import estimate_lines
from harvester.cli.summary import print_summary
from harvester.clock import SystemClock
from harvester.commands.estimate import estimate
from harvester.commands.summary import Summary
from harvester.ledger import Ledger
from harvester.model import Pair, SentPair, Verdict
from harvester.simulator import Simulator, SimulatorConfig
from tests.commands.test_capture import write_pairs
from tests.support.secret_canary import KEY

BRAZE = "https://rest.fra-01.braze.eu"


@pytest.fixture
async def braze():
    """Run a stand-in API with an unlimited quota."""
    async with Simulator(SimulatorConfig(pairs=40, limit=1_000_000, api_key=KEY)) as simulator:
        yield simulator


async def test_a_reader_that_closes_the_pipe_ends_the_run_quietly_and_nothing_is_lost(harvester, tmp_path, braze):
    """If ``| head`` closes the pipe, the run ends quietly, and the next run writes the rows that were not read."""
    harvester.env["PYTHONUNBUFFERED"] = "1"
    write_pairs(tmp_path / "pairs.csv", braze)
    arguments = ("run", "pairs.csv", "-o", "-", "--state", "ledger.db", "--endpoint", braze.url)
    process = harvester.start(*arguments)
    assert process.stdout is not None
    await asyncio.to_thread(process.stdout.read, 1000)
    process.stdout.close()
    process.stdout = None
    _, err = await asyncio.to_thread(process.communicate)
    assert (process.returncode, b"harvester: " in err) == (0, False), err
    code, out, err = await harvester.run(*arguments)
    assert code == 0, err
    assert sum(json.loads(line)["level"] == "capture" for line in out.splitlines()) == 40
    assert braze.responses.total() == 40


async def test_a_failed_start_leaves_nothing_behind(harvester, tmp_path):
    """A start without a key, or with an invalid trigger, creates no ledger and no folder."""
    (tmp_path / "pairs.csv").write_text("campaign_id,send_id\nc,s\n")
    trigger = '[triggers.sends]\nkind = "redis"\nstream = "s"\nurl = "http://x"\n'
    (tmp_path / "bad.toml").write_text(f'[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key = "{KEY}"\n{trigger}')
    assert (await harvester.run("serve", "--config", "bad.toml"))[0] == 2
    harvester.env["BRAZE_API_KEY"] = ""
    code, _, err = await harvester.run("run", "pairs.csv", "--endpoint", BRAZE)
    assert (code, "there is no API key" in err) == (2, True), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.toml", "pairs.csv"]


async def test_every_command_finds_ledger_and_workspaces_by_the_configuration(harvester, tmp_path, braze):
    """Every command that uses a ledger accepts --config and shows the counts of each workspace."""
    tables = "".join(f'[workspaces.{name}]\nendpoint = "{braze.url}"\napi_key = "{KEY}"\n' for name in ("eu", "us"))
    (tmp_path / "two.toml").write_text(f'out = "lake"\n{tables}')
    lines = [f"{each.pair.campaign_id},{each.pair.send_id},us" for each in braze.population[:2]]
    config = ("--config", "two.toml")
    (tmp_path / "pairs.csv").write_text("\n".join(["campaign_id,send_id,workspace", *lines]))
    assert (await harvester.run("enqueue", "pairs.csv", *config))[1].startswith("2 pairs are new, 0 were known\n")
    assert (await harvester.run("run", *config))[0] == 0
    (tmp_path / "pairs.csv").write_text("\n".join(["campaign_id,send_id,workspace", *lines, "nobody,s,eu"]))
    code, _, err = await harvester.run("run", "pairs.csv", *config)
    assert code == 3, err
    table = [
        "workspace  accepted  captured  rejected  expired  pending",
        "eu                1         0         1        0        0",
        "us                2         2         0        0        0",
    ]
    assert "\n".join(table) in err
    _, out, _ = await harvester.run("status", *config)
    assert "\n".join([f"{table[0]}  at risk", *(f"{line}        0" for line in table[1:])]) in out
    assert "2 stored; 1 without rows" in out
    code, out, err = await harvester.run("requeue", "--outcome", "rejected", "--reason", "status-400", *config)
    assert (code, out[:7], "the reasons in this ledger are: status_400 (1)" in err) == (0, "0 pairs", True)


@pytest.mark.parametrize("command", [("status",), ("run", "pairs.csv"), ("plan", "pairs.csv")])
async def test_a_missing_configuration_is_reported_in_a_sentence(harvester, tmp_path, command):
    """Every command names the file and the reason, and creates nothing."""
    message = "harvester: cannot read the configuration nope.toml: No such file or directory; name a readable file\n"
    assert await harvester.run(*command, "--config", "nope.toml") == (2, "", message)
    assert not list(tmp_path.iterdir())


async def test_one_workspace_under_two_names_is_reported(harvester, tmp_path):
    """``run`` and ``doctor`` warn about two names with the same endpoint and key, without the key."""
    (tmp_path / "pairs.csv").write_text("campaign_id,send_id,workspace\nc,s,eu\n")
    (tmp_path / "key").write_text(f"{KEY}\n")
    async with Simulator(SimulatorConfig(pairs=1, limit=1_000_000, api_key=KEY)) as simulator:
        eu, europe, us = (f'[workspaces.{name}]\nendpoint = "{simulator.url}"\n' for name in ("eu", "europe", "us"))
        (tmp_path / "once.toml").write_text(f'{eu}api_key = "{KEY}"\n{us}api_key = "{KEY}-us"\n')
        (tmp_path / "twice.toml").write_text(
            f'{eu}api_key = "{KEY}"\n{europe}api_key_file = "key"\n{us}api_key = "{KEY}-us"\n'
        )
        for command in (("run", "pairs.csv"), ("doctor",)):
            _, out, err = await harvester.run(*command, "--config", "twice.toml")
            warnings = [line for line in (out + err).splitlines() if "the same endpoint and API key" in line]
            named = [[line.count(name) for name in ("eu", "europe", "us")] for line in warnings]
            assert named == [[2, 1, 0]], out + err
            assert KEY not in out + err
            _, out, err = await harvester.run(*command, "--config", "once.toml")
            assert "same endpoint" not in out + err


def test_zeros_are_explained(capsys):
    """A plan without requests and a run without parts say why. Counts of a plan name the list or the ledger."""
    nothing = estimate([], now=0.0, limit=1000, reserve=0.2, max_rate=10.0)
    lines = ["in list    0 pairs: 0 new, 0 already in the ledger", "requests   0: no pair is due"]
    assert estimate_lines(nothing, settled=0, expired=0, limit=1000) == lines
    lines[0] = "in list    3 pairs: 1 new, 2 already in the ledger"
    total = "7 pairs are already settled, 1 pair has expired, 2 readings are not due yet"
    lines.insert(1, f"in total   {total} (of the ledger and the list together)")
    counts = {"settled": 7, "expired": 1, "list_new": 1, "list_known": 2, "planned_readings": 2}
    assert estimate_lines(nothing, **counts, limit=1000) == lines
    little = estimate([1e9], now=0.0, limit=250_000, reserve=0.2, max_rate=10.0)
    quota = "quota      less than 0.1% of an hour's 250000 requests"
    assert quota in estimate_lines(little, settled=0, expired=0, limit=250_000)
    lines = estimate_lines(little, **counts, limit=250_000, pending_before=1)
    assert lines[2] == "requests   1, including 1 pair pending in the ledger before"
    print_summary(Summary({"eu": Books(accepted=1, captured={}, rejected={"status_400": 1}, expired=0, pending=0)}))
    assert "wrote      nothing, since this run captured no pair" in capsys.readouterr().err


def test_the_summary_groups_requests_and_responses_and_lists_causes_only_when_asked(capsys):
    """With -v, it lists each cause, as the JSON does."""
    requests = Counter({"first": 3000, "retry_after_status_502": 2, "after_429": 1})
    responses = Counter({"status_200": 2990, "status_502": 2, "unparsable": 1, "status_429": 1, "status_404": 10})
    done = Summary({"eu": Books(0, {}, {}, 0, 0)}, requests=requests, responses=responses)
    print_summary(done)
    lines = capsys.readouterr().err.splitlines()
    assert "requests   3000 first, 3 repeated" in lines
    assert "responses  2990 usable, 10 rejected, 3 failed, 1 rate limited" in lines
    print_summary(done, verbose=True)
    assert "requests   1 after_429, 3000 first, 2 retry_after_status_502" in capsys.readouterr().err.splitlines()


def test_lines_are_wrapped_at_words_and_aligned_with_the_text():
    """A long word is not broken, and what fits stays as it is, its spaces too."""
    line = "note       the list repeats a send; the earliest time counts"
    assert wrap(line, 34, indent=11) == [
        "note       the list repeats a",
        "           send; the earliest time",
        "           counts",
    ]
    assert wrap(line, 80, indent=11) == wrap(line, None) == [line]
    assert wrap("see https://rest.fra-01.braze.eu/x", 20) == ["see", "https://rest.fra-01.braze.eu/x"]


def test_a_count_of_one_has_a_singular_noun(capsys):
    """No summary and no plan contains "1 pairs"."""
    one = estimate([0.0], now=0.0, limit=1, reserve=0.0, max_rate=10.0)
    lines = estimate_lines(one, settled=1, expired=1, limit=1) + unread_lines(1, 1, [])
    lines += estimate_lines(estimate([], now=0.0, limit=1, reserve=0.0, max_rate=1.0), settled=1, expired=1, limit=1)
    books = Books(accepted=1, captured={Verdict.ZERO: 1}, rejected={}, expired=0, pending=0)
    done = {"lines": 1, "bad_lines": 1, "naive_times": 1, "rows": 1, "parts": 1, "unstored": 1, "planned": 1}
    print_summary(Summary({"eu": books, "us": books}, **done, skipped=Counter({"events without send_id": 1})))
    lines += capsys.readouterr().err.splitlines()
    assert [line for line in lines if re.search(r"(?<![.\d])1 [a-z]+s\b", line)] == []


def test_the_summary_names_an_endpoint_that_does_not_respond(capsys):
    """If the endpoint does not respond, the summary tells the user to check it before the next run."""
    books = Books(accepted=2, captured={}, rejected={}, expired=0, pending=2)
    print_summary(Summary({"eu": books}, unreachable={"eu": "cannot connect to http://127.0.0.1:9"}))
    assert "pending: check the endpoint and the network (harvester doctor " in capsys.readouterr().err


async def test_show_prints_the_history_of_a_send(harvester, tmp_path):
    """A user sees the readings of a send. An unknown send is an error with a next step and exit code 3."""
    async with await Ledger.open(tmp_path / "ledger.db", clock=SystemClock()) as ledger:
        await ledger.intake.enqueue([SentPair(Pair("eu", "c", "autumn\x1b-1"), None)])
        code, out, err = await harvester.run("show", "c", "autumn\x1b-1", "--state", "ledger.db", "--json")
        assert (code, err) == (0, "")
        (send,) = json.loads(out)["sends"]
        assert (send["send_id"], send["state"], send["wait_cause"]) == ("autumn\x1b-1", "pending", "no_process")
        code, out, err = await harvester.run("show", "nope", "--state", "ledger.db")
        assert (code, out, "'nope'; check the id; harvester enqueue adds a send" in err) == (3, "", True)
        code, out, err = await harvester.run("show", "c", "--state", "ledger.db")
        assert (code, out, "it is the id of a campaign: add the id of one of its sends" in err) == (3, "", True)


async def test_the_port_of_the_page_is_an_option_of_serve(harvester, tmp_path):
    """``--web-port`` overrides the file, and the error about a port in use names the option."""
    (tmp_path / "h.toml").write_text(f'web_port = 1\n[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key = "{KEY}"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = await harvester.run("serve", "--config", "h.toml", "--web-port", str(port))
    assert (code, f"cannot listen on 127.0.0.1:{port}" in err, "--web-port" in err) == (2, True, True), err


def test_windows_is_refused_with_a_sentence(monkeypatch, capsys):
    """A user there learns what to use instead, before an import of a module of Unix fails."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as ended:
        run_module()
    assert (ended.value.code, capsys.readouterr().err.startswith("harvester: Windows is not supported; use ")) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "-"),
        ("run", "p.csv", "-o", "-"),
        ("run", "p.csv", "--json"),
        ("latest", "harvest"),
        ("enqueue", "p.csv"),
        ("requeue", "--outcome", "expired"),
        ("remove", "p.csv"),
        ("audit", "p.csv", "--enqueue"),
        ("demo",),
    ],
)
def test_a_closed_stream_that_a_command_needs_is_refused(arguments, monkeypatch, tmp_path):
    """Rows written to a closed standard output would be lost, and a closed standard input is not an empty list.

    The command has changed nothing.
    """
    (tmp_path / "p.csv").write_text("campaign_id,send_id\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "__stdin__", None)
    monkeypatch.setattr(sys, "__stdout__", None)
    done = CliRunner().invoke(main, arguments, env={"BRAZE_API_KEY": KEY, "BRAZE_ENDPOINT": BRAZE})
    assert done.exit_code == 2
    assert "is closed; open it, or" in done.output
    assert [each.name for each in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize("arguments", [["plan", "p.csv", "--json"], ["schema", "--for", "duckdb"], ["--version"]])
def test_what_a_closed_standard_output_would_lose_is_an_error(arguments, tmp_path, monkeypatch, capsys):
    """A script that closed it by mistake does not get exit code 0."""
    (tmp_path / "p.csv").write_text("campaign_id,send_id\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # the number 1 is not closed in this process
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert (ended.value.code, "standard output is closed; open it" in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize(("listed", "code"), [("p.csv", 0), ("none.csv", 2)])
def test_a_standard_error_that_cannot_be_written_does_not_change_the_exit_code(listed, code, tmp_path, monkeypatch):
    """A full disk under the log loses messages, and the command ends as it would with them."""
    (tmp_path / "p.csv").write_text("campaign_id,send_id\n")
    monkeypatch.chdir(tmp_path)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        monkeypatch.setattr(sys, "__stderr__", full)
        with pytest.raises(SystemExit) as ended:
            main(["plan", listed])
    assert ended.value.code == code


def test_the_heading_of_invalid_settings_is_not_a_check_of_doctor(monkeypatch):
    """Each failed check in the JSON of doctor is one problem to correct."""
    monkeypatch.setenv("HARVESTER_PROXY", "socks5://proxy.example")
    done = CliRunner().invoke(main, ["doctor", "--endpoint", BRAZE, "--json"])
    checks = json.loads(done.stdout)
    assert [each["text"].split(":")[0] for each in checks["checks"]] == ["proxy"]


@pytest.mark.parametrize("moment", ["_escape_invalid", "_allow_open_files"])
def test_a_signal_before_the_work_ends_the_command_with_130(monkeypatch, moment):
    """Ctrl-C gives exit code 130 even while arguments are parsed or before the event loop runs; 1 means a bug."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"harvester.cli.{moment}", interrupt)
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, "interrupted" in result.stderr) == (130, True)


@pytest.mark.parametrize(
    ("mistake", "failed", "text"),
    [
        ('proxy_file = "none.key"', "proxy", "cannot read the file of the proxy"),
        ('ca_file = "none.pem"', "certificates", "ca_file names 'none.pem', which cannot be read"),
    ],
)
def test_doctor_names_a_mistake_of_the_process_once_and_continues(mistake, failed, text, tmp_path, monkeypatch):
    """Workspaces and places that share the mistake do not repeat it."""
    monkeypatch.chdir(tmp_path)
    tables = "".join(f'[workspaces.{name}]\nendpoint = "{BRAZE}"\napi_key = "{KEY}-{name}"\n' for name in ("eu", "us"))
    (tmp_path / "h.toml").write_text(f'{mistake}\nout = "s3://lake/x"\n{tables}')
    done = CliRunner().invoke(main, ["doctor", "--config", "h.toml", "--json"])
    checks = json.loads(done.stdout)["checks"]
    assert [(each["check"], text in each["text"]) for each in checks if not each["ok"]] == [(failed, True)]
    assert "ledger" in [each["check"] for each in checks]


def test_doctor_says_to_check_a_proxy_that_does_not_respond(tmp_path, monkeypatch):
    """The proxy of a workspace is named with its endpoint; nothing is said about buckets, since there are none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARVESTER_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("BRAZE_API_KEY", KEY)
    done = CliRunner().invoke(main, ["doctor", "--endpoint", BRAZE, "--json"])
    (first, *_) = json.loads(done.stdout)["checks"]
    assert first["check"] == "endpoint"
    assert first["text"].endswith("connection refused); check the proxy")
