"""How requests reach Braze and buckets: through which proxy, and which certificates they trust."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, model_validator

from harvester.errors import UsageError
from harvester.settings.places import LocalPath
from harvester.settings.proxy import DIRECT, FROM_ENVIRONMENT, Proxy, find_environment_proxy, parse_proxy
from harvester.settings.secret_files import name_source, read_secret


def _check_proxy(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if text not in (DIRECT, FROM_ENVIRONMENT):
        parse_proxy(text)
    return SecretStr(text)


ProxySetting = Annotated[SecretStr, AfterValidator(_check_proxy)]


def load_proxy(proxy: SecretStr | None, proxy_file: Path | None) -> Proxy | None:
    """Return the proxy that the settings name; None for none. Raises ``UsageError``, which never contains the URL."""
    if proxy_file is not None:
        what = f"the proxy ({name_source('proxy_file', proxy_file)})"
        try:
            return parse_proxy(read_secret(proxy_file, what))
        except ValueError as error:
            raise UsageError(f"the content of the file of {what} {error}") from None
    text = proxy.get_secret_value() if proxy is not None else DIRECT
    if text == FROM_ENVIRONMENT:
        return find_environment_proxy()
    return None if text == DIRECT else parse_proxy(text)


class NetworkSettings(BaseModel):
    """The settings that commands without workspaces need, too."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False, validate_default=True
    )

    proxy: ProxySetting = SecretStr(DIRECT)
    proxy_file: LocalPath | None = None
    ca_file: LocalPath | None = None

    @model_validator(mode="after")
    def _check_proxy_source(self) -> Self:
        """Refuse both sources of the proxy; a proxy that is not set has a default, so its value does not tell."""
        if self.proxy_file is not None and "proxy" in self.model_fields_set:
            raise ValueError("set either proxy or proxy_file")
        return self

    def load_store_proxy(self) -> Proxy | None:
        """Return the proxy of requests to buckets; None for none. Raises ``UsageError``."""
        return load_proxy(self.proxy, self.proxy_file)
