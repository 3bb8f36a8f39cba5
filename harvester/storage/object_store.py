"""Object stores: S3 and stores with its API, GCS, Azure.

The only module, with ``store_failures``, that imports obstore.

Every request is bounded in time and attempts. Credentials come from each cloud's usual places, which obstore searches:
environment, web identity, the role of the instance or container, and AWS profiles and SSO if boto3 is installed (the
extra ``aws``). ``store_failures`` turns failures into sentences.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError
from obstore.store import from_url

from harvester.causes import find_cause
from harvester.errors import SinkError, UsageError, install_hint
from harvester.place import classify_place
from harvester.settings import get_store_variables
from harvester.storage.store_failures import classify_failure, describe_failure, find_advice, is_permanent

_CLIENT: Any = {"timeout": timedelta(seconds=30), "connect_timeout": timedelta(seconds=5)}
_RETRIES: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=45),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}
_SPOOLED_BYTES = 8 * 1024 * 1024
MAX_OBJECT_BYTES = 4 << 30
"""Objects above this size, or above half of the free space for temporary files, are not copied."""


class NameTaken(Exception):  # noqa: N818 - a result, not a fault
    """An object of that name exists already."""


class ObjectRefused(SinkError):  # noqa: N818 - a result, not a fault of the store
    """The object does not exist, or we lack permission. Another attempt would not help."""


class ObjectTooLarge(ObjectRefused):
    """An object is too large to be copied to this machine."""


class RequestRefused(SinkError):  # noqa: N818 - likewise
    """The store works but refuses this request, probably for good. It is not an outage."""


class ObjectStore:
    """The objects below one place, such as ``s3://bucket/prefix``. Names are relative to it."""

    def __init__(self, url: str) -> None:
        """Open a place; nothing is sent yet. Raises ``UsageError`` for an unusable one."""
        classify_place(url, "a place in a bucket", buckets=True)
        self.url = url.rstrip("/")
        try:
            self._store: Any = from_url(self.url, **_build_options(self.url))
        except (BaseError, ValueError) as error:
            advice = "set AZURE_STORAGE_ACCOUNT_NAME" if "Account must" in str(error) else "check its variables"
            raise UsageError(f"{url}: the settings of this store are not usable; {advice}") from None

    async def create(self, name: str, data: bytes) -> None:
        """Create an object if its name is free. Raises ``NameTaken`` if it is not, ``SinkError`` on failure.

        A lost response is retried, so a name may be taken by our own bytes.
        """
        with self._clear_errors(f"write {name} to"):
            try:
                await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                raise NameTaken from None
            except PermissionDeniedError:
                # Without the permission to overwrite, a store may refuse before it checks the precondition.
                if await self.exists(name):
                    raise NameTaken from None
                raise

    async def read(self, name: str) -> bytes | None:
        """Return an object's bytes, None if it does not exist. Raises ``SinkError`` on failure."""
        with self._clear_errors(f"read {name} from"):
            try:
                return bytes(await (await obstore.get_async(self._store, name)).bytes_async())
            except FileNotFoundError as missing:
                if find_advice(str(missing)) is None:
                    return None
                raise

    async def exists(self, name: str) -> bool:
        """Return whether an object exists. Raises ``SinkError`` on failure.

        It lists instead of reading: with minimal permissions S3 returns 403 for a missing object, as for a forbidden
        one.
        """
        with self._clear_errors("list"):
            folder = name.rpartition("/")[0]
            async for page in obstore.list(self._store, prefix=folder or None, offset=name[:-1], chunk_size=1):
                return any(entry["path"] == name for entry in page)
            return False

    def list_names(self, below: str = "") -> Iterator[str]:
        """List the objects below a folder in the order of their names, page by page. Raises ``SinkError``."""
        with self._clear_errors("list"):
            for page in obstore.list(self._store, prefix=below or None, chunk_size=1000):
                yield from (entry["path"] for entry in page)

    def download(self, name: str, to: Path) -> None:
        """Copy an object to a file, in pieces. Raises ``SinkError``, also if it does not exist."""
        with self._clear_errors(f"read {name} from"), to.open("wb") as file:
            self._copy(name, file, to.parent)

    def open_copy(self, name: str) -> BinaryIO:
        """Open a copy of an object as a file, a large one on disk. Raises ``SinkError`` as ``download`` does."""
        copy: Any = tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES)  # noqa: SIM115 - the caller closes it
        with self._clear_errors(f"read {name} from"):
            self._copy(name, copy, Path(tempfile.gettempdir()))
            copy.seek(0)
        return cast("BinaryIO", copy)

    def _copy(self, name: str, file: BinaryIO, folder: Path) -> None:
        """Copy an object after checking its size. Raises ``ObjectTooLarge``, also if it is larger than reported."""
        found = obstore.get(self._store, name)
        size = found.meta["size"]
        if size > MAX_OBJECT_BYTES:
            raise ObjectTooLarge(f"{self.url}/{name} has {size} bytes; at most {MAX_OBJECT_BYTES} are read; split it")
        if size > shutil.disk_usage(folder).free // 2:
            raise ObjectTooLarge(
                f"{self.url}/{name} has {size} bytes, more than half of the free space for temporary files; "
                "split it, or set TMPDIR to a folder with more space"
            )
        for piece in found.stream(min_chunk_size=1 << 20):
            size -= len(piece)
            if size < 0:
                raise ObjectTooLarge(
                    f"{self.url}/{name} is larger than the size that its store reports; upload it again"
                )
            file.write(piece)

    @contextmanager
    def _clear_errors(self, action: str) -> Iterator[None]:
        """Turn an error of obstore into a sentence that says what to do."""
        try:
            yield
        except (BaseError, OSError) as error:
            kind: type[SinkError] = ObjectRefused if isinstance(error, PermissionDeniedError) else SinkError
            cause = find_cause(error) or classify_failure(str(error))
            if isinstance(error, OSError) and error.errno is not None:  # this machine's: obstore's have no number
                advice = f"{error.strerror} on this machine; set TMPDIR to a folder with more space"
            elif isinstance(error, FileNotFoundError):
                kind, advice = ObjectRefused, find_advice(str(error)) or "no such object; check its name"
            else:
                advice = describe_failure(str(error))
                kind = RequestRefused if kind is SinkError and is_permanent(error) else kind
            raise kind(f"cannot {action} {self.url}: {advice}", cause=cause) from None


def download_object(url: str, folder: Path) -> Path:
    """Copy the object at a URL into a folder, under its own name.

    Raises ``UsageError`` if the store refuses it, another ``SinkError`` if the store fails.
    """
    place, _, name = url.rpartition("/")
    to = folder / name
    try:
        ObjectStore(place).download(name, to)
    except ObjectRefused as error:
        raise UsageError(str(error)) from None
    return to


def is_available(url: str) -> bool:
    """Return whether the store can list the folder of an object. If so, a failure concerns only the object."""
    try:
        next(ObjectStore(url.rpartition("/")[0]).list_names(), None)
    except ObjectRefused:
        return True
    except SinkError:
        return False
    return True


def _build_options(url: str) -> dict[str, Any]:
    """Return what obstore does not find by itself: limits, plain http, AWS profiles."""
    profile, plain_http = get_store_variables()
    options: dict[str, Any] = {"client_options": _CLIENT | {"allow_http": plain_http}, "retry_config": _RETRIES}
    if profile and url.startswith("s3://"):
        options["credential_provider"] = _load_profile_credentials(profile)
    return options


def _load_profile_credentials(profile: str) -> Any:
    try:
        import boto3  # noqa: PLC0415 - only installed where profiles are used
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 - as above
    except ImportError:
        raise UsageError(f"AWS_PROFILE is set, but profiles need boto3; {install_hint('aws')}") from None
    return Boto3CredentialProvider(boto3.Session(profile_name=profile))
