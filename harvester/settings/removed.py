"""Settings that earlier versions had, and what to do instead."""

from collections.abc import Mapping

_DELETE = "Delete it"

REMOVED: Mapping[str, str] = {
    "length": f"each call requests the last 15 days. {_DELETE}",
    "request_timeout_seconds": f"each call may take 30 seconds. {_DELETE}",
    "max_deferrals": "set patience_seconds, or delete it",
    "store_patience_seconds": "set patience_seconds, or delete it",
}
WORKSPACE_REMOVED: Mapping[str, str] = {
    "urgent_reserve": "all calls leave the reserve free. Set reserve, or delete it",
    "retention_days": f"Braze keeps analytics for 14 days. {_DELETE}",
    "margin_days": f"a send is at risk 6 hours before its 14 days end. {_DELETE}",
}
