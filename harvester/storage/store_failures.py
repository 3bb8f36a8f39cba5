"""Maps the errors of object stores to causes and to advice for the user.

The text of an error can contain signatures and keys, so only its status and its code are shown.
"""

import re

from obstore.exceptions import (
    AlreadyExistsError,
    InvalidPathError,
    NotModifiedError,
    NotSupportedError,
    PreconditionError,
)

_STATUS = re.compile(r"status code: (\d{3})")
_RETRYABLE_CODES = r"ExpiredToken|TokenRefreshRequired|RequestTimeTooSkewed"
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
        "it is full; free some space",
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
        "the credentials are not accepted; check them and the region (AWS_REGION)",
    ),
    (
        "wrong_region",
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|status code: 30[127]|BareRedirect",
        "the bucket is in another region; set AWS_REGION",
    ),
    (
        "permission_denied",
        r"AccessDenied|AuthorizationPermissionMismatch|status code: 403",
        "the credentials have no permission to create, read and list there (or, on S3, the object does not exist)",
    ),
    (
        "invalid_name",
        r"object with invalid path",
        "an object there has a name that contains //, /./ or /../; rename it",
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
        "certificate",
        r"InvalidCertificate",
        "its certificate is not trusted; if a private authority or a proxy that inspects TLS signed it, set ca_file",
    ),
    (
        "proxy_authentication",
        r"ProxyAuthRequired",
        "the proxy requires a user and a password; correct them in proxy or proxy_file",
    ),
    (
        "proxy_refused",
        r"Tunnel(Unsuccessful|UnexpectedEof)",
        "the proxy does not connect to it; check whether the proxy allows this host",
    ),
    (
        "proxy_unreachable",
        r"ConnectFailed",
        "the proxy cannot be reached; check its address and the network, and use http:// unless it speaks TLS itself",
    ),
    (
        "timeout",
        r"kind: Timeout|TimedOut|timed out",
        "it does not respond in time; check the network and the endpoint",
    ),
    (
        "unreachable",
        r"kind: Connect|error sending request",
        "it cannot be reached; check the network and the endpoint",
    ),
)
"""For each failure: its cause, the pattern that identifies it, and the advice. The first match counts."""


def is_permanent(error: Exception) -> bool:
    """Return whether the store refuses only this request, as opposed to overload, an outage or expired credentials."""
    if isinstance(
        error, (AlreadyExistsError, InvalidPathError, NotModifiedError, NotSupportedError, PreconditionError)
    ):
        return True
    status = _STATUS.search(str(error))
    if status is None or re.search(_RETRYABLE_CODES, str(error)):
        return False
    return 300 <= int(status[1]) < 500 and int(status[1]) not in (401, 408, 425, 429)


def find_advice(text: str) -> str | None:
    """Return what to do about a failure; None if no pattern matches its text."""
    return next((advice for _, pattern, advice in _ADVICE if re.search(pattern, text)), None)


def classify_failure(text: str) -> str:
    """Return the cause of a failure: a cause of ``_ADVICE``, the status, or ``failed``."""
    status = _STATUS.search(text)
    cause = next((cause for cause, pattern, _ in _ADVICE if re.search(pattern, text)), None)
    return cause or (f"status_{status[1]}" if status else "failed")


def describe_failure(text: str) -> str:
    """Return what to do about a failure, with the store's status and code."""
    status, code = _STATUS.search(text), _CODE.search(text)
    details = " ".join(match[1] for match in (status, code) if match)
    advice = find_advice(text) or "it failed; check the store's own logs"
    return f"{advice} ({details})" if details else advice
