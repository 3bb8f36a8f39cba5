"""Environment variables that libraries read: proxies, trusted certificates, and secrets. Checks them beforehand."""

import os
import re
import ssl
import stat
from pathlib import Path

from harvester.errors import UsageError
from harvester.observability.redaction import register_secret, register_url_secrets

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SECRETS = re.compile(
    r"(AWS|AZURE|GOOGLE|BRAZE|HARVESTER|OTEL|ARM|GCP)_.*(SECRET|TOKEN|PASSWORD|KEY|SAS|HEADERS)\w*|PGPASSWORD"
)
_NO_SECRETS = re.compile(r".*(_FILE|_ID|_PATH|_URI|_URL|_NAME)")


PROXY_HINT = (
    'requests to Braze and to buckets ignore them and connect directly; to use them, set proxy = "environment". '
    "The clients of SQS and OpenTelemetry use them"
)
"""What proxy variables do without the setting ``proxy``."""


def hide_environment_secrets() -> None:
    """Mask the values of secret variables of clouds, collectors, proxies and databases from now on."""
    for name, value in os.environ.items():
        if name.upper() in _PROXIES or name.upper().endswith(("_URL", "_ENDPOINT", "HARVESTER_STATE")):
            register_url_secrets(value)
        elif _SECRETS.fullmatch(name.upper()) and not _NO_SECRETS.fullmatch(name.upper()):
            register_secret(value.strip())


def list_proxy_variables() -> list[str]:
    """Return the names of the proxy variables that are set; ``NO_PROXY`` only beside another one.

    Their values may contain a password, so they are not returned.
    """
    named = sorted(name for name, value in os.environ.items() if name.upper() in _PROXIES and value.strip())
    excepting = sorted(name for name, value in os.environ.items() if name.upper() == "NO_PROXY" and value.strip())
    return named + excepting if named else []


def check_certificates(ca_file: Path | None = None) -> None:
    """Raise ``UsageError`` if the trusted certificates of the environment or in ``ca_file`` cannot be read.

    OpenSSL would not report it, and would trust other certificates, or none.
    """
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file:
        read_certificates("SSL_CERT_FILE", file)
    if folders and not any(_can_be_listed(each) for each in folders.split(os.pathsep)):
        raise UsageError(f"SSL_CERT_DIR names {folders!r}, which is not a readable folder; name one, or unset it")
    if ca_file is not None:
        read_certificates("ca_file", str(ca_file))


def read_certificates(setting: str, file: str) -> str:
    """Return the text of a regular file of PEM certificates. Raises ``UsageError``, which names the setting.

    It is read twice, and to open a named pipe may block forever.
    """
    try:
        if not stat.S_ISREG(Path(file).stat().st_mode):
            raise UsageError(f"{setting} names {file!r}, which is not a regular file; name one, or unset it")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
        return Path(file).read_text()
    except ssl.SSLError:
        raise UsageError(
            f"{setting} names {file!r}, which contains no PEM certificate; name a file that does, or unset it"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a valid file name"
        raise UsageError(
            f"{setting} names {file!r}, which cannot be read: {reason}; name a readable file, or unset it"
        ) from None


def _can_be_listed(folder: str) -> bool:
    return bool(folder) and Path(folder).is_dir() and os.access(folder, os.R_OK | os.X_OK)


def get_certificates_hint() -> str:
    """Return a hint about trusted certificates, for a certificate that could not be verified."""
    named = [f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
    trusted = f"only the authorities in {' and '.join(named)} and in ca_file are trusted; " if named else ""
    return (
        f"{trusted}if a private authority or a proxy that inspects TLS signed it, set ca_file to a file with that "
        "authority's certificate"
    )
