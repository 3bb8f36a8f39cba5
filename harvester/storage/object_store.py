"""Object stores: S3 and what speaks like it, GCS, Azure. The only door to obstore.

Every call is bounded in time and tries. Credentials come from each cloud's usual places, which obstore knows:
environment, web identity, the instance's or the container's role; AWS profiles and SSO where boto3 is installed
(the extra ``aws``). What a store says of a failure may quote signatures and keys, so nothing of it is passed on
but its status and its code.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotModifiedError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
)
from obstore.store import from_url

from harvester.errors import SinkError, UsageError, install_hint
from harvester.health import cause_of
from harvester.place import kind_of
from harvester.settings import of_stores

_CLIENT: Any = {"timeout": timedelta(seconds=30), "connect_timeout": timedelta(seconds=5)}
_RETRIES: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=45),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}
_SPOOLED_BYTES = 8 * 1024 * 1024
MAX_OBJECT_BYTES = 4 << 30
"""Objects above this size, or above half of the free space for temporary files, are not copied."""

_STATUS = re.compile(r"status code: (\d{3})")
_RENEWABLE = r"ExpiredToken|TokenRefreshRequired|RequestTimeTooSkewed"
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")

_ADVICE = (
    (
        "no_credentials",
        r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google|MissingCredential",
        "there are no credentials; set those of your cloud, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    (
        "not_found",
        r"NoSuchBucket|ContainerNotFound|bucket does not exist",
        "there is no such bucket; check its name and endpoint",
    ),
    (
        "full",
        r"QuotaExceeded|InsufficientStorage|StorageFull|status code: 507",
        "it is full; make room",
    ),
    (
        "clock",
        r"RequestTimeTooSkewed",
        "the clock of this machine is wrong; set it",
    ),
    (
        "credentials_expired",
        r"ExpiredToken|TokenRefreshRequired",
        "the credentials have expired; renew them",
    ),
    (
        "credentials_refused",
        r"InvalidAccessKeyId|SignatureDoesNotMatch|AuthenticationFailed|InvalidToken|status code: 401",
        "the credentials are not accepted; check them, and the region (AWS_REGION) too",
    ),
    (
        "wrong_region",
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|status code: 30[127]|BareRedirect",
        "the bucket is in another region; set AWS_REGION",
    ),
    (
        "permission_denied",
        r"AccessDenied|AuthorizationPermissionMismatch|status code: 403",
        "the credentials have no permission to create, read and list below it (S3 says so too of what is not there)",
    ),
    (
        "invalid_name",
        r"object with invalid path",
        "an object there has a name with an empty part, . or .. in it; move it away",
    ),
    (
        "conflict",
        r"status code: 409",
        "another writer used the same name; try again",
    ),
    (
        "plain_http",
        r"builder error",
        "plain http is allowed only for this machine; use https, or set AWS_ALLOW_HTTP=true (AZURE_, GOOGLE_)",
    ),
    (
        "timeout",
        r"kind: Timeout|TimedOut|timed out",
        "it does not answer in time; check the network and the endpoint",
    ),
    (
        "unreachable",
        r"kind: Connect|error sending request",
        "it cannot be reached; check the network and the endpoint",
    ),
)
"""For each failure: its cause, the pattern that identifies it (most reliable first), and what to do."""


class Taken(Exception):  # noqa: N818 - a taken name is an answer, no fault
    """A name in a store has an object already."""


class Refused(SinkError):  # noqa: N818 - an answer of the store, no fault of it
    """The store has no object of that name, or none for us: asking again would not help."""


class TooLarge(Refused):
    """An object is too large to be copied to this machine."""


class Unwilling(SinkError):  # noqa: N818 - as above
    """The store answers, but refuses this request, probably for good. It is not an outage."""


class Store:
    """What lies below one place, such as ``s3://bucket/prefix``; names are relative to it."""

    def __init__(self, url: str) -> None:
        """Open a place; nothing is sent yet. Raises ``UsageError`` for one that cannot be."""
        kind_of(url, "a place in a bucket", buckets=True)
        self.url = url.rstrip("/")
        try:
            self._store: Any = from_url(self.url, **_options(self.url))
        except (BaseError, ValueError) as error:
            missing = "set AZURE_STORAGE_ACCOUNT_NAME" if "Account must" in str(error) else "check the variables of it"
            raise UsageError(f"{url}: the settings of this store are not usable; {missing}") from None

    async def create(self, name: str, data: bytes) -> None:
        """Make an object if its name is free. Raises ``Taken`` where it is not, ``SinkError`` on failure.

        A reply that is lost is asked for again within, so a name may be found taken by our own bytes.
        """
        with self._translated(f"write {name} to"):
            try:
                await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                raise Taken from None
            except PermissionDeniedError:
                # To one who must not overwrite, a store may say so before it looks at the precondition.
                if await self.has(name):
                    raise Taken from None
                raise

    async def read(self, name: str) -> bytes | None:
        """Give an object's bytes, None where there is none. Raises ``SinkError`` on failure."""
        with self._translated(f"read {name} from"):
            try:
                return bytes(await (await obstore.get_async(self._store, name)).bytes_async())
            except FileNotFoundError as missing:
                if _advice(str(missing)) is None:
                    return None
                raise

    async def has(self, name: str) -> bool:
        """Tell whether there is an object of that name. Raises ``SinkError`` on failure.

        It is asked by listing: with least permissions S3 refuses to read a missing object (403), as it would a
        forbidden one.
        """
        with self._translated("list"):
            folder = name.rpartition("/")[0]
            async for page in obstore.list(self._store, prefix=folder or None, offset=name[:-1], chunk_size=1):
                return any(entry["path"] == name for entry in page)
            return False

    def names(self, below: str = "") -> Iterator[str]:
        """List the objects below a folder in the order of their names, page by page. Raises ``SinkError``."""
        with self._translated("list"):
            for page in obstore.list(self._store, prefix=below or None, chunk_size=1000):
                yield from (entry["path"] for entry in page)

    def fetch(self, name: str, to: Path) -> None:
        """Copy an object into a file, in pieces. Raises ``SinkError``, also where there is none."""
        with self._translated(f"read {name} from"), to.open("wb") as file:
            self._copy(name, file, to.parent)

    def open(self, name: str) -> BinaryIO:
        """Give an object to be read like a file: a copy of it, a large one on disk. Raises ``SinkError`` as above."""
        copy: Any = tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES)  # noqa: SIM115 - the caller closes it
        with self._translated(f"read {name} from"):
            self._copy(name, copy, Path(tempfile.gettempdir()))
            copy.seek(0)
        return cast("BinaryIO", copy)

    def _copy(self, name: str, file: BinaryIO, folder: Path) -> None:
        """Copy an object after checking its size. Raises ``TooLarge``, also if it is larger than reported."""
        found = obstore.get(self._store, name)
        size = found.meta["size"]
        if size > MAX_OBJECT_BYTES:
            raise TooLarge(f"{self.url}/{name} has {size} bytes; at most {MAX_OBJECT_BYTES} are read; split it")
        if size > shutil.disk_usage(folder).free // 2:
            raise TooLarge(
                f"{self.url}/{name} has {size} bytes, more than half of the free space for temporary files; "
                "split it, or set TMPDIR to a folder with more space"
            )
        for piece in found.stream(min_chunk_size=1 << 20):
            size -= len(piece)
            if size < 0:
                raise TooLarge(f"{self.url}/{name} is larger than the size that its store reports; upload it again")
            file.write(piece)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn an error of obstore into a sentence that tells what to do."""
        try:
            yield
        except (BaseError, OSError) as error:
            kind: type[SinkError] = Refused if isinstance(error, PermissionDeniedError) else SinkError
            cause = cause_of(error) or _cause(str(error))
            if isinstance(error, OSError) and error.errno is not None:  # this machine's own: obstore's have no number
                told = f"{error.strerror} on this machine; let TMPDIR name a roomier folder"
            elif isinstance(error, FileNotFoundError):
                kind, told = Refused, _advice(str(error)) or "there is nothing of that name; check it"
            else:
                told = _told(str(error))
                kind = Unwilling if kind is SinkError and _is_unwilling(error) else kind
            raise kind(f"cannot {what} {self.url}: {told}", cause=cause) from None


def fetched(url: str, folder: Path) -> Path:
    """Copy one object, named by its URL, into a folder under its own name.

    Raises ``UsageError`` for one that the store refuses, another ``SinkError`` while the store fails.
    """
    place, _, name = url.rpartition("/")
    to = folder / name
    try:
        Store(place).fetch(name, to)
    except Refused as error:
        raise UsageError(str(error)) from None
    return to


def answers(url: str) -> bool:
    """Return whether the store answers a listing beside an object. If so, the failure concerns only the object."""
    try:
        next(Store(url.rpartition("/")[0]).names(), None)
    except Refused:
        return True
    except SinkError:
        return False
    return True


def _is_unwilling(error: Exception) -> bool:
    """Return whether only this request is refused, as opposed to overload, an outage or expired credentials."""
    if isinstance(
        error, (AlreadyExistsError, InvalidPathError, NotModifiedError, NotSupportedError, PreconditionError)
    ):
        return True
    status = _STATUS.search(str(error))
    if status is None or re.search(_RENEWABLE, str(error)):
        return False
    return 300 <= int(status[1]) < 500 and int(status[1]) not in (401, 408, 425, 429)


def _options(url: str) -> dict[str, Any]:
    """Give what obstore does not find out by itself: bounds, plain http, AWS profiles."""
    profile, plain_http = of_stores()
    options: dict[str, Any] = {"client_options": _CLIENT | {"allow_http": plain_http}, "retry_config": _RETRIES}
    if profile and url.startswith("s3://"):
        options["credential_provider"] = _of_profile(profile)
    return options


def _of_profile(profile: str) -> Any:
    try:
        import boto3  # noqa: PLC0415 - only installed where profiles are used
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 - as above
    except ImportError:
        raise UsageError(f"AWS_PROFILE is set, but profiles need boto3; {install_hint('aws')}") from None
    return Boto3CredentialProvider(boto3.Session(profile_name=profile))


def _advice(text: str) -> str | None:
    return next((advice for _, sign, advice in _ADVICE if re.search(sign, text)), None)


def _cause(text: str) -> str:
    """Return the cause of a failure: one of ``_ADVICE``, or the status."""
    status = _STATUS.search(text)
    known = next((cause for cause, sign, _ in _ADVICE if re.search(sign, text)), None)
    return known or (f"status_{status[1]}" if status else "failed")


def _told(text: str) -> str:
    """Say what a failure's text means, without its words."""
    status, code = _STATUS.search(text), _CODE.search(text)
    seen = " ".join(match[1] for match in (status, code) if match)
    advice = _advice(text) or "it failed; look at the store's own logs"
    return f"{advice} ({seen})" if seen else advice
