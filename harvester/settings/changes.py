"""What differs between two settings, and what of it a running process can use. Pure."""

from dataclasses import dataclass

from harvester.settings.model import Settings

RELOADED = frozenset({"workspaces", "workspace_defaults", "api_key_dir", "concurrency", "proxy", "proxy_file"})
"""The settings that a running process can change. Buckets keep their proxy until a restart."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The names of workspaces by what happened to them, and of the settings that only a restart can change."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def changes(old: Settings, new: Settings) -> Changes:
    """Compare two settings whose keys, proxies and state are loaded. Keys and proxies are part of their workspaces."""
    both = [name for name in new.workspaces if name in old.workspaces]
    return Changes(
        added=tuple(name for name in new.workspaces if name not in old.workspaces),
        removed=tuple(name for name in old.workspaces if name not in new.workspaces),
        changed=tuple(
            name
            for name in both
            if old.workspaces[name] != new.workspaces[name]
            or old.load_key(name) != new.load_key(name)
            or old.load_proxy(name) != new.load_proxy(name)
        ),
        ignored=tuple(name for name in Settings.model_fields if name not in RELOADED and _differs(name, old, new)),
    )


def _differs(name: str, old: Settings, new: Settings) -> bool:
    """Return whether a setting differs; that of a file also differs if the file has a new URL."""
    if name == "state_file" and None not in (old.state_file, new.state_file):
        return old.state_file != new.state_file or old.load_state() != new.load_state()
    return bool(getattr(old, name) != getattr(new, name))
