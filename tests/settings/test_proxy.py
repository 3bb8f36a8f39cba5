"""The proxy: where it comes from, which hosts are reached without it, and that its password is never shown."""

import os
from pathlib import Path

import pytest

from harvester.errors import UsageError
from harvester.observability.redaction import MASK, scrub
from harvester.settings import SettingsSource, changes, get_network
from harvester.settings.proxy import Credentials, find_environment_proxy, parse_proxy
from tests.support.secret_canary import KEY, PROXY_PASSWORD
from tests.support.settings import BRAZE, load_error, load_settings

PROXY = f"http://someone:{PROXY_PASSWORD}@proxy.example:3128"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    """Hide the variables of the developer's shell."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)


def load_text(tmp_path, text):
    """Load a configuration with the workspaces eu and us."""
    for name in ("eu", "us"):
        table = f"[workspaces.{name}]\n"
        text += "" if table in text else f"\n{table}"
        text = text.replace(table, f'{table}endpoint = "{BRAZE}"\napi_key = "{KEY}-{name}"\n')
    (tmp_path / "harvester.toml").write_text(text)
    return load_settings(tmp_path / "harvester.toml")


def get_addresses(settings):
    """Return the proxy of each workspace and of buckets."""
    proxies = [settings.load_proxy("eu"), settings.load_proxy("us"), settings.load_store_proxy()]
    return [proxy and proxy.address for proxy in proxies]


def test_one_proxy_is_for_everything_and_a_workspace_can_have_its_own(tmp_path):
    """The table of a workspace overrides the defaults of workspaces, which override the proxy for everything."""
    assert get_addresses(load_text(tmp_path, "")) == [None, None, None]
    everything = 'proxy = "http://all.example:1"\n'
    assert get_addresses(load_text(tmp_path, everything)) == ["http://all.example:1"] * 3
    (tmp_path / "us.key").write_text(f"{PROXY}\n")
    own = everything + f'[workspaces.eu]\nproxy = "none"\n[workspaces.us]\nproxy_file = "{tmp_path}/us.key"\n'
    settings = load_text(tmp_path, own)
    assert get_addresses(settings) == [None, "http://proxy.example:3128", "http://all.example:1"]
    assert settings.load_proxy("us").credentials == Credentials("someone", PROXY_PASSWORD)
    of_workspaces = '[workspace_defaults]\nproxy = "https://braze-only.example"\n'
    assert get_addresses(load_text(tmp_path, of_workspaces)) == ["https://braze-only.example"] * 2 + [None]


def test_a_stand_in_on_this_machine_is_reached_without_the_proxy(monkeypatch):
    """The key of a plain http endpoint never leaves the machine, and clouds' metadata services need no proxy."""
    monkeypatch.setenv("HARVESTER_PROXY", PROXY)
    for endpoint in ("http://127.0.0.1:8765", "http://localhost:8765", "https://[::1]:8765"):
        assert load_settings(endpoint=endpoint).load_proxy("default") is None
    assert load_settings(endpoint=BRAZE).load_proxy("default").url == PROXY
    assert not parse_proxy(PROXY).serves("http://169.254.169.254/latest")


def test_the_environment_is_used_only_if_the_setting_says_so(monkeypatch):
    """HTTPS_PROXY, or ALL_PROXY, with the exceptions in NO_PROXY: names, parent domains, addresses and networks."""
    monkeypatch.setenv("ALL_PROXY", "all.example:1")
    assert load_settings(endpoint=BRAZE).load_proxy("default") is None
    monkeypatch.setenv("HARVESTER_PROXY", "environment")
    assert load_settings(endpoint=BRAZE).load_proxy("default").address == "http://all.example:1"
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    assert load_settings(endpoint=BRAZE).load_proxy("default").url == PROXY
    monkeypatch.setenv("NO_PROXY", " .braze.com, *.lake.example ,10.0.0.0/8, minio,,")
    proxy = find_environment_proxy()
    direct = ("rest.iad-01.braze.com", "braze.com", "a.lake.example", "10.1.2.3", "minio", "MINIO")
    served = ("rest.fra-01.braze.eu", "notbraze.com", "11.1.2.3", "minio2")
    assert [host for host in direct + served if proxy.serves(f"https://{host}:443/x")] == list(served)
    assert proxy.direct_hosts[-4:] == ("braze.com", "lake.example", "10.0.0.0/8", "minio")
    monkeypatch.setenv("no_proxy", "*")
    assert load_settings(endpoint=BRAZE).load_proxy("default") is None


@pytest.mark.parametrize("host", ["a..b", ".example", f"{'a' * 64}.example"])
def test_a_proxy_whose_name_cannot_exist_is_refused(host):
    """A label of a name has 1 to 63 characters; any other name fails at each request."""
    with pytest.raises(ValueError, match="or a URL such as"):
        parse_proxy(f"http://{host}:3128")


def test_a_colon_in_the_user_of_a_proxy_is_refused():
    """Basic authentication ends the user at the first colon; a password may contain one."""
    with pytest.raises(ValueError, match="must not have a colon") as refused:
        parse_proxy(f"http://some%3Aone:{PROXY_PASSWORD}@proxy.example:3128")
    assert PROXY_PASSWORD not in str(refused.value)
    assert parse_proxy("http://someone:pass%3Aword@proxy.example").credentials == Credentials("someone", "pass:word")


def test_a_command_without_settings_finds_the_proxy_of_buckets_in_the_environment(monkeypatch):
    """``harvester latest`` needs no workspace."""
    assert get_network().load_store_proxy() is None
    monkeypatch.setenv("HARVESTER_PROXY", PROXY)
    monkeypatch.setenv("HARVESTER_CA_FILE", "/etc/company.pem")
    assert (get_network().load_store_proxy().url, get_network().ca_file) == (PROXY, Path("/etc/company.pem"))


@pytest.mark.parametrize(
    "text",
    [
        f"http://someone:{PROXY_PASSWORD}@x@proxy.example:3128",
        f"http://someone:{PROXY_PASSWORD}/@proxy.example:3128",
        f"socks5://someone:{PROXY_PASSWORD}@proxy.example:1080",
        f"someone:{PROXY_PASSWORD}@proxy.example:3128",
        f"http://someone:{PROXY_PASSWORD}@proxy.example:99999",
        f"http://proxy.example:3128/{PROXY_PASSWORD}",
        PROXY_PASSWORD,
    ],
)
def test_an_unusable_proxy_is_refused_without_showing_it(tmp_path, monkeypatch, text):
    """The error says what a proxy looks like, whether it comes from a setting, a file or the environment."""
    monkeypatch.setenv("HARVESTER_PROXY", text)
    messages = [load_error(endpoint=BRAZE)]
    with pytest.raises(UsageError) as refused:
        get_network()
    messages.append(str(refused.value))
    monkeypatch.delenv("HARVESTER_PROXY")
    (tmp_path / "proxy.key").write_text(text)
    with pytest.raises(UsageError) as refused:
        load_text(tmp_path, f'proxy_file = "{tmp_path}/proxy.key"').load_proxies()
    messages.append(str(refused.value))
    for message in messages:
        assert "a URL such as http://proxy.example:3128" in message
        assert PROXY_PASSWORD[:8] not in message


def test_no_text_form_shows_the_password():
    """It is masked in every text from then on, also where it is escaped."""
    proxy = parse_proxy("http://someone:canary%2Dproxy%2Dpassword@proxy.example")
    assert proxy.url == f"http://someone:{PROXY_PASSWORD}@proxy.example"
    settings = load_settings(endpoint=BRAZE)
    assert PROXY_PASSWORD not in repr(proxy) + str(proxy) + proxy.address + repr(settings)
    assert scrub(f"{PROXY_PASSWORD} canary%2Dproxy%2Dpassword") == f"{MASK} {MASK}"


@pytest.mark.parametrize("place", ["", "[workspace_defaults]\n", "[workspaces.eu]\n"])
@pytest.mark.parametrize("proxy", ["http://proxy.example", "none"])
def test_proxy_and_proxy_file_exclude_each_other(tmp_path, place, proxy):
    """Two sources in the same place would hide a mistake; ``none`` is one, too."""
    with pytest.raises(UsageError, match="set either proxy or proxy_file"):
        load_text(tmp_path, f'{place}proxy = "{proxy}"\nproxy_file = "x"')


def test_either_source_of_a_proxy_replaces_an_inherited_one(tmp_path, monkeypatch):
    """A table overrides the defaults of workspaces, and a variable overrides the file, whichever source they use."""
    (tmp_path / "proxy.key").write_text("http://file.example:1")
    from_file, direct = f'proxy_file = "{tmp_path}/proxy.key"\n', 'proxy = "none"\n'
    settings = load_text(tmp_path, f"[workspace_defaults]\n{from_file}[workspaces.eu]\n{direct}")
    assert get_addresses(settings) == [None, "http://file.example:1", None]
    settings = load_text(tmp_path, f"[workspace_defaults]\n{direct}[workspaces.eu]\n{from_file}")
    assert get_addresses(settings) == ["http://file.example:1", None, None]
    monkeypatch.setenv("HARVESTER_PROXY", "none")
    assert get_addresses(load_text(tmp_path, from_file)) == [None, None, None]
    monkeypatch.delenv("HARVESTER_PROXY")
    monkeypatch.setenv("HARVESTER_PROXY_FILE", f"{tmp_path}/proxy.key")
    assert get_addresses(load_text(tmp_path, direct)) == ["http://file.example:1"] * 3


def test_a_new_password_in_the_file_is_noticed(tmp_path):
    """A service that reloads its files uses the new password: the workspaces are changed."""
    (tmp_path / "proxy.key").write_text(PROXY)
    old = load_text(tmp_path, f'proxy_file = "{tmp_path}/proxy.key"')
    old.load_proxies()
    old.load_keys()
    source = SettingsSource(tmp_path / "harvester.toml", {}, {})
    digest = source.digest(old)
    (tmp_path / "proxy.key").write_text(PROXY.replace("someone", "another"))
    assert source.digest(old) != digest
    new = source.load()
    new.load_keys()
    assert changes(old, new).changed == ("eu", "us")
    assert changes(old, new).ignored == ()
    assert new.keep(old, fields=(), workspaces=["us"]).load_proxy("us").credentials.user == "someone"
