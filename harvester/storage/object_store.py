"""Object stores: S3 and stores with its API, GCS, Azure.

Only this module and ``store_failures`` import obstore.

Every request has a limit on its time and attempts. obstore looks for credentials in each cloud's usual places:
environment, web identity, the role of the instance or container. AWS profiles and SSO need boto3 (the extra ``aws``).
``store_failures`` turns failures into sentences.
"""

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
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
from harvester.settings import NetworkSettings, get_network, get_store_variables
from harvester.settings.environment import read_certificates
from harvester.storage.store_failures import classify_failure, describe_failure, find_advice, is_permanent

_CLIENT: Any = {"timeout": timedelta(seconds=30), "connect_timeout": timedelta(seconds=5)}
_RETRIES: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=45),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}
_NO_PROXY, _ALL_HOSTS = "http://127.0.0.1:9", ("*", "0.0.0.0/0", "::/0")
"""obstore has no option to ignore the proxy of the environment, but one for hosts that are reached without a proxy."""

# A thread of obstore that returns to Python after the interpreter has begun to end aborts the process (PyO3). A thread
# that has a result returns within a millisecond if the interpreter is idle.
atexit.register(time.sleep, 0.05)

_SPOOLED_BYTES = 8 * 1024 * 1024
MAX_OBJECT_BYTES = 4 << 30
"""Objects above this size, or above half of the free space for temporary files, are not copied."""


class NameTaken(Exception):  # noqa: N818 - a result, not a fault
    """An object of that name exists already."""


class ObjectRefused(SinkError):  # noqa: N818 - a result, not a fault of the store
    """The object does not exist, or we lack permission. Another attempt would not help."""


class ObjectTooLarge(ObjectRefused):
    """An object is too large to be copied to this machine."""


class RequestRefused(SinkError):  # noqa: N818 - a result, not a fault
    """The store works but refuses this request, probably permanently. It is not an outage."""


class ObjectStore:
    """The objects below one place, such as ``s3://bucket/prefix``. Names are relative to it."""

    def __init__(self, url: str, clients: dict[str, Any] | None = None) -> None:
        """Open a place without sending anything. Raises ``UsageError`` for an invalid URL or invalid settings.

        Places that get the same ``clients`` share one for each bucket, with its connections and credentials. Making one
        takes 10 ms of CPU, mostly to load the certificates of the system.
        """
        classify_place(url, "a place in a bucket", buckets=True)
        self.url = url.rstrip("/ ")  # obstore ignores blanks at the end of a URL
        bucket, self._prefix = _split(self.url)
        clients = {} if clients is None else clients
        if bucket not in clients:
            clients[bucket] = _make_client(bucket, url)
        self._client = clients[bucket]

    async def create(self, name: str, data: bytes) -> None:
        """Create an object if its name is free. Raises ``NameTaken`` if it is not, ``SinkError`` on failure.

        A lost response is retried, so ``NameTaken`` may be caused by our own first attempt.
        """
        with self._describe_errors(f"write {name} to"):
            try:
                await obstore.put_async(self._client, self._prefix + name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                raise NameTaken from None
            except PermissionDeniedError:
                # Without the permission to overwrite, a store may refuse before it checks the precondition.
                if await self.exists(name):
                    raise NameTaken from None
                raise

    async def read(self, name: str) -> bytes | None:
        """Return an object's bytes, None if it does not exist. Raises ``SinkError`` on failure."""
        with self._describe_errors(f"read {name} from"):
            try:
                return bytes(await (await obstore.get_async(self._client, self._prefix + name)).bytes_async())
            except FileNotFoundError as missing:
                if find_advice(str(missing)) is None:
                    return None
                raise

    async def exists(self, name: str) -> bool:
        """Return whether an object exists. Raises ``SinkError`` on failure.

        It lists instead of reading: with minimal permissions S3 returns 403 for a missing object, as for a forbidden
        one.
        """
        with self._describe_errors("list"):
            path = self._prefix + name
            folder = path.rpartition("/")[0]
            async for page in obstore.list(self._client, prefix=folder or None, offset=path[:-1], chunk_size=1):
                return any(entry["path"] == path for entry in page)
            return False

    async def contains(self, folder: str, is_wanted: Callable[[str], bool]) -> bool:
        """Return whether the name of an object below a folder is wanted. Raises ``SinkError``."""
        with self._describe_errors("list"):
            async for page in obstore.list(self._client, prefix=self._prefix + folder, chunk_size=1000):
                if any(is_wanted(entry["path"].removeprefix(self._prefix)) for entry in page):
                    return True
            return False

    def list_names(self, folder: str = "") -> Iterator[str]:
        """List the objects below a folder in the order of their names, page by page. Raises ``SinkError``."""
        with self._describe_errors("list"):
            for page in obstore.list(self._client, prefix=self._prefix + folder or None, chunk_size=1000):
                yield from (entry["path"].removeprefix(self._prefix) for entry in page)

    def download(self, name: str, target: Path) -> None:
        """Copy an object to a file, in chunks. Raises ``SinkError``, also if the object does not exist."""
        with self._describe_errors(f"read {name} from"), target.open("wb") as file:
            self._copy(name, file, target.parent)

    def replace(self, name: str, file: Path) -> None:
        """Write a file as an object, and replace an existing one. Raises ``SinkError``. Never use it for parts."""
        with self._describe_errors(f"write {name} to"):
            obstore.put(self._client, self._prefix + name, file)

    def open_copy(self, name: str) -> BinaryIO:
        """Open a copy of an object, on disk if it is large. Raises ``SinkError`` as ``download`` does."""
        copy: Any = tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES)  # noqa: SIM115 - the caller closes it
        with self._describe_errors(f"read {name} from"):
            self._copy(name, copy, Path(tempfile.gettempdir()))
            copy.seek(0)
        return cast("BinaryIO", copy)

    def _copy(self, name: str, file: BinaryIO, folder: Path) -> None:
        """Copy an object after checking its size. Raises ``ObjectTooLarge``, also if it is larger than reported."""
        response = obstore.get(self._client, self._prefix + name)
        size = response.meta["size"]
        if size > MAX_OBJECT_BYTES:
            raise ObjectTooLarge(f"{self.url}/{name} has {size} bytes; the limit is {MAX_OBJECT_BYTES}; split it")
        if size > shutil.disk_usage(folder).free // 2:
            raise ObjectTooLarge(
                f"{self.url}/{name} has {size} bytes, more than half of the free space for temporary files; "
                "split it, or set TMPDIR to a folder with more space"
            )
        for chunk in response.stream(min_chunk_size=1 << 20):
            size -= len(chunk)
            if size < 0:
                raise ObjectTooLarge(
                    f"{self.url}/{name} is larger than the size that its store reports; upload it again"
                )
            file.write(chunk)

    @contextmanager
    def _describe_errors(self, action: str) -> Iterator[None]:
        """Turn an error of obstore into a sentence that says what to do."""
        try:
            yield
        except (BaseError, OSError) as error:
            kind: type[SinkError] = ObjectRefused if isinstance(error, PermissionDeniedError) else SinkError
            cause = find_cause(error) or classify_failure(str(error))
            # Only errors of this machine have a number; those of obstore have none.
            if isinstance(error, OSError) and error.errno is not None:
                advice = f"{error.strerror} on this machine; set TMPDIR to a folder with more space"
            elif isinstance(error, FileNotFoundError):
                kind, advice = ObjectRefused, find_advice(str(error)) or "no such object; check its name"
            else:
                advice = describe_failure(str(error))
                kind = RequestRefused if kind is SinkError and is_permanent(error) else kind
            raise kind(f"cannot {action} {self.url}: {advice}", cause=cause) from None


def is_available(url: str) -> bool:
    """Return whether the store responds to a listing. If it does, a failure affects only the object."""
    try:
        next(ObjectStore(url.rpartition("/")[0]).list_names(), None)
    except ObjectRefused:
        return True
    except SinkError:
        return False
    return True


def _split(url: str) -> tuple[str, str]:
    """Return the URL of a place's bucket, and the prefix of all names there; it ends with a slash or is empty."""
    scheme, _, rest = url.partition("://")
    bucket, slash, path = rest.partition("/")
    return f"{scheme}://{bucket}", path + slash


def _make_client(bucket: str, place: str) -> Any:
    """Return obstore's client for the URL of a bucket. Raises ``UsageError``, which names the place."""
    try:
        return from_url(bucket, **_build_options(bucket))
    except (BaseError, ValueError) as error:
        account_missing = "Account must" in str(error)
        advice = "set AZURE_STORAGE_ACCOUNT_NAME" if account_missing else "check its environment variables"
        raise UsageError(f"{place}: the settings of this store are invalid; {advice}") from None


def _build_options(url: str) -> dict[str, Any]:
    """Return what obstore does not find by itself: limits, proxy, certificates, plain http, AWS profiles."""
    profile, plain_http = get_store_variables()
    client = _CLIENT | {"allow_http": plain_http} | _build_network_options(get_network())
    options: dict[str, Any] = {"client_options": client, "retry_config": _RETRIES}
    if profile and url.startswith("s3://"):
        options["credential_provider"] = _load_profile_credentials(profile)
    return options


def _build_network_options(network: NetworkSettings) -> dict[str, Any]:
    """Return the proxy, even if there is none: otherwise obstore would use the environment's. Raises ``UsageError``."""
    proxy = network.load_store_proxy()
    options: dict[str, Any] = {
        "proxy_url": _NO_PROXY if proxy is None else proxy.url,
        "proxy_excludes": ",".join(_ALL_HOSTS if proxy is None else proxy.direct_hosts),
    }
    if network.ca_file is not None:
        # Despite its name, the option adds authorities for all connections, and only beside a proxy.
        options["proxy_ca_certificate"] = read_certificates("ca_file", str(network.ca_file))
    return options


def _load_profile_credentials(profile: str) -> Any:
    try:
        import boto3  # noqa: PLC0415 - only installed where profiles are used
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 - as above
    except ImportError:
        raise UsageError(f"AWS_PROFILE is set, but profiles need boto3; {install_hint('aws')}") from None
    return Boto3CredentialProvider(boto3.Session(profile_name=profile))
