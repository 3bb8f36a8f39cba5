"""Settings of earlier versions, and what to do instead."""

from collections.abc import Mapping

REMOVED: Mapping[str, str] = {
    "length": "each request covers 15 days. Delete it",
    "request_timeout_seconds": "the timeout of a request is 30 seconds. Delete it",
    "max_deferrals": "set patience_seconds, or delete it",
    "store_patience_seconds": "set patience_seconds, or delete it",
}
REMOVED_FROM_WORKSPACE: Mapping[str, str] = {
    "urgent_reserve": "no request uses the reserve. Set reserve, or delete it",
    "retention_days": "Braze keeps analytics for 14 days. Delete it",
    "margin_days": "a pair is at risk 6 hours before its 14 days end. Delete it",
}
