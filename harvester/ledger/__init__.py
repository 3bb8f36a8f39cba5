"""The ledger: the single source of truth. What is due, leased, sealed, stored; the only room with SQL.

Other rooms import from here, never from a module below.
"""

from harvester.ledger.books import StoredPart
from harvester.ledger.braze_time import ClockDifference
from harvester.ledger.database import LEASE_SECONDS
from harvester.ledger.enqueue import EnqueueCount
from harvester.ledger.leases import Lease, SealedBatch
from harvester.ledger.ledger import Ledger
from harvester.ledger.outlook import DayOfDeadlines, Outlook, Rejection
from harvester.ledger.reports import LedgerStatus
from harvester.ledger.sqlite import copy as copy_ledger

__all__ = [
    "LEASE_SECONDS",
    "ClockDifference",
    "DayOfDeadlines",
    "EnqueueCount",
    "Lease",
    "Ledger",
    "LedgerStatus",
    "Outlook",
    "Rejection",
    "SealedBatch",
    "StoredPart",
    "copy_ledger",
]
