"""Where the settings of a process come from, to load them again while it runs."""

import hashlib
from pathlib import Path
from typing import Any

from harvester.settings.layers import MAX_CONFIG_BYTES, list_key_files, load
from harvester.settings.model import Settings
from harvester.settings.secret_files import MAX_FILE_BYTES, read_start


class SettingsSource:
    """The configuration file, the options of the command line, and the environment."""

    def __init__(self, config: Path | None, options: dict[str, Any], workspace_options: dict[str, Any]) -> None:
        """Take the arguments of ``load``."""
        self._config = config
        self._options = options
        self._workspace_options = workspace_options

    def load(self) -> Settings:
        """Load the settings. Raises ``UsageError`` with all problems."""
        return load(self._config, self._options, self._workspace_options)

    def digest(self, settings: Settings) -> bytes:
        """Return a digest of the configuration file and of the secret files that ``settings`` names.

        It is made of their content: Kubernetes replaces a mounted file by changing a symbolic link to its folder.
        """
        digest = hashlib.sha256()
        if self._config is not None:
            digest.update(_hash_file(self._config, MAX_CONFIG_BYTES))
        digest.update(repr(list_key_files(settings.api_key_dir)).encode())
        secret_files = [settings.proxy_file, settings.state_file]
        for each in settings.workspaces.values():
            secret_files += [each.api_key_file, each.proxy_file]
        for file in secret_files:
            if file is not None:
                digest.update(_hash_file(file, MAX_FILE_BYTES))
        return digest.digest()


def _hash_file(file: Path, max_bytes: int) -> bytes:
    """Return a digest of a file, or of the reason why it cannot be read."""
    try:
        content = read_start(file, max_bytes)
    except OSError as error:
        content = str(error.errno).encode()
    return hashlib.sha256(content).digest()
