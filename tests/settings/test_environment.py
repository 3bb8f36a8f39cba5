"""Proxies, certificates and open files of the environment: what changes the behaviour is reported or refused."""

import os
import resource

import pytest

from harvester.cli import _allow_open_files
from harvester.commands.doctor import check_process
from harvester.errors import UsageError
from harvester.observability.redaction import MASK, scrub
from harvester.settings import load
from harvester.settings.environment import check_certificates, get_certificates_hint, list_proxy_variables

BRAZE = "https://rest.fra-01.braze.eu"
PASSWORD = "proxy-pass-word-1"
PROXY = f"http://someone:{PASSWORD}@proxy.example:3128"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    """Hide the variables of the developer's shell."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)


def test_proxy_variables_are_listed_in_any_case_and_no_proxy_alone_is_not(monkeypatch):
    """Only the names of proxy variables are listed, because their values may contain a password."""
    monkeypatch.setenv("NO_PROXY", "braze.eu")
    assert list_proxy_variables() == []
    monkeypatch.setenv("HTTPS_PROXY", " ")
    assert list_proxy_variables() == []
    for name in ("http_proxy", "HTTPS_PROXY", "All_Proxy"):
        monkeypatch.setenv(name, PROXY)
    assert list_proxy_variables() == ["All_Proxy", "HTTPS_PROXY", "http_proxy", "NO_PROXY"]


async def test_a_proxy_is_reported_once_and_named_as_ignored_for_braze(harvester, tmp_path, monkeypatch):
    """The start and doctor report it, without the proxy's password."""
    (tmp_path / "p.csv").write_text("campaign_id,send_id\n")
    harvester.env |= {"https_proxy": PROXY, "NO_PROXY": "x"}
    code, out, err = await harvester.run("run", "p.csv", "--endpoint", "http://127.0.0.1:1")
    assert code == 0, err
    monkeypatch.setenv("https_proxy", PROXY)
    monkeypatch.setenv("NO_PROXY", "x")
    (finding,) = check_process(load(None, {}, {"endpoint": BRAZE, "api_key_file": "key"}))
    for messages in ([line for line in (out + err).splitlines() if "https_proxy" in line], [finding.text]):
        assert len(messages) == 1, out + err
        for word in ("NO_PROXY", "requests to Braze and to buckets ignore them", "set proxy = "):
            assert word in messages[0]
        assert PASSWORD not in out + err + messages[0]
        assert "proxy.example" not in out + err + messages[0]


def test_unreadable_certificates_are_refused(monkeypatch, tmp_path):
    """OpenSSL would ignore the problem, and every connection would fail for a hidden reason."""
    (tmp_path / "empty.pem").write_text("no certificate")
    os.mkfifo(tmp_path / "pipe")  # to open it would block forever
    for value in (tmp_path / "none.pem", tmp_path, tmp_path / "empty.pem", tmp_path / "pipe"):
        monkeypatch.setenv("SSL_CERT_FILE", str(value))
        with pytest.raises(UsageError, match=f"SSL_CERT_FILE names '{value}', which .*, or unset it"):
            check_certificates()
    monkeypatch.setenv("SSL_CERT_FILE", "")
    check_certificates()
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'none'}:{tmp_path}")
    check_certificates()
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"SSL_CERT_DIR names .* not a readable folder"):
        check_certificates()


def test_the_hint_for_a_failed_certificate_names_the_trusted_authorities(monkeypatch):
    """The hint names the variable that is set, and the setting to use."""
    assert "set ca_file to" in get_certificates_hint()
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/own.pem")
    trusted = "only the authorities in SSL_CERT_FILE=/etc/own.pem and in ca_file are trusted; if "
    assert get_certificates_hint().startswith(trusted)


@pytest.mark.parametrize("command", [("run", "p.csv"), ("serve",), ("doctor",)])
async def test_a_start_with_unreadable_certificates_ends_with_exit_code_2(harvester, tmp_path, command):
    """A start with unreadable certificates ends with exit code 2 before anything is created or requested."""
    (tmp_path / "p.csv").write_text("campaign_id,send_id\n")
    harvester.env["SSL_CERT_FILE"] = "/nope.pem"
    code, out, err = await harvester.run(*command, "--endpoint", "http://127.0.0.1:1")
    assert (code, "SSL_CERT_FILE names '/nope.pem', which cannot be read" in out + err) == (2, True), out + err
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_the_limit_of_open_files_is_raised_and_doctor_reports_a_low_one(monkeypatch):
    """64 requests, the page and the ledger need more than 100 files."""
    limits = [50, 100]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.__setitem__(slice(None), wanted))
    _allow_open_files()
    assert limits == [100, 100]
    settings = load(None, {}, {"endpoint": BRAZE, "api_key_file": "key"})
    (found,) = check_process(settings)
    assert (found.ok, found.text.partition(";")[0]) == (False, "the limit is 100, but up to 214 may be needed")
    limits[0] = 1024
    assert check_process(settings) == []


def test_doctor_counts_the_open_files_of_a_process_and_not_of_each_workspace(monkeypatch):
    """For a hundred workspaces, doctor expects 4 * max_in_flight connections, not 100 * concurrency."""
    for number in range(100):
        monkeypatch.setenv(f"HARVESTER_WORKSPACES__W{number}__ENDPOINT", BRAZE)
    settings = load(None, {}, {})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1100, 1100))
    (found,) = check_process(settings)
    assert (found.ok, found.text.partition(";")[0]) == (False, "the limit is 1100, but up to 1174 may be needed")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1200, 1200))
    assert check_process(settings) == []


def test_secret_variables_of_clouds_are_masked_and_names_of_keys_are_not(monkeypatch):
    """Secrets in the variables of clouds are masked, and values that only name a key or a file are shown."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG-example-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2024&sig=abcdefghijkl-example-2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://k:endpoint-pass-3@minio")
    load(None, {}, {"endpoint": BRAZE, "api_key_file": "key"})
    text = "wJalrXUtnFEMI/K7MDENG-example-1 AKIAIOSFODNN7EXAMPLE sv=2024&sig=abcdefghijkl-example-2 endpoint-pass-3"
    assert scrub(text) == f"{MASK} AKIAIOSFODNN7EXAMPLE {MASK} {MASK}"


def test_a_variable_of_a_workspace_that_names_none_is_refused(monkeypatch):
    """It would not apply: a reserve that does not apply costs live messages."""
    monkeypatch.setenv("HARVESTER_RESERVE", "0.5")
    with pytest.raises(UsageError, match=r"HARVESTER_RESERVE is a setting of a workspace.*__DEFAULT__RESERVE"):
        load(None, {}, {})
