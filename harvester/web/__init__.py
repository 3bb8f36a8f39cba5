"""The web face: what the service shows of itself to people and to machines. Nothing here changes anything."""

from harvester.monitor.history import BudgetHistory
from harvester.monitor.snapshot import Snapshot, Store, Trigger, Window, WorkspaceNow
from harvester.web.server import Face

__all__ = [
    "BudgetHistory",
    "Face",
    "Snapshot",
    "Store",
    "Trigger",
    "Window",
    "WorkspaceNow",
]
