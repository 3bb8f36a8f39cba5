"""The ledger: the durable table of pairs, outcomes, batches and parts. The single source of truth."""

from harvester.ledger.ledger import Ledger

__all__ = ["Ledger"]
