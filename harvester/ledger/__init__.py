"""The ledger: what is due, leased, sealed and stored. The only package that imports SQLAlchemy.

Other packages import from this package, never from its modules.
"""

from harvester.ledger.braze_time import ClockDifference
from harvester.ledger.database import LEASE_SECONDS
from harvester.ledger.due import DueCount
from harvester.ledger.enqueue import EnqueueResult
from harvester.ledger.failures import FailedPair
from harvester.ledger.leases import SealedBatch
from harvester.ledger.ledger import Ledger
from harvester.ledger.outlook import DayOfDeadlines, Outlook, Rejection
from harvester.ledger.reports import LedgerStatus, Reports
from harvester.ledger.sends import MAX_AHEAD, NextReading, PastReading, SendHistory, SendSearch
from harvester.ledger.serving import UNSERVED_SECONDS, Replicas
from harvester.ledger.sqlite import back_up as back_up_ledger
from harvester.ledger.stored_parts import PartsPage, PrunedParts, StoredPart

__all__ = [
    "LEASE_SECONDS",
    "MAX_AHEAD",
    "UNSERVED_SECONDS",
    "ClockDifference",
    "DayOfDeadlines",
    "DueCount",
    "EnqueueResult",
    "FailedPair",
    "Ledger",
    "LedgerStatus",
    "NextReading",
    "Outlook",
    "PartsPage",
    "PastReading",
    "PrunedParts",
    "Rejection",
    "Replicas",
    "Reports",
    "SealedBatch",
    "SendHistory",
    "SendSearch",
    "StoredPart",
    "back_up_ledger",
]
