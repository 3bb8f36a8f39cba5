"""The web face: what the service shows of itself to people and to machines. Nothing here changes anything."""

from harvester.web.face import Face
from harvester.web.history import BudgetHistory
from harvester.web.snapshot import Snapshot, Store, Trigger, Window, WorkspaceNow

__all__ = [
    "BudgetHistory",
    "Face",
    "Snapshot",
    "Store",
    "Trigger",
    "Window",
    "WorkspaceNow",
]
