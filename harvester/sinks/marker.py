"""The marker: one small object in a dataset that names the dataset and the ledger it belongs to.

The ledger is the only copy of the plan, so an empty or another ledger pointed at a dataset is refused.
"""

import secrets

import orjson

from harvester.errors import SinkRefused
from harvester.model import DATASET

MARKER = f"{DATASET}/_ledger.json"


def marker_of(ledger_id: str) -> bytes:
    """Make the marker of a new dataset."""
    return orjson.dumps({"dataset": secrets.token_hex(16), "ledger": ledger_id}) + b"\n"


def owner_of(marker: bytes, *, place: str) -> tuple[str, str]:
    """Give the ledger's id and the dataset's own. Raises ``SinkRefused`` for a damaged marker."""
    try:
        written = orjson.loads(marker)
        return str(written["ledger"]), str(written["dataset"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise SinkRefused(f"{place}/{MARKER} is damaged; restore it, or harvest into a new place") from None


def dataset_of(marker: bytes, *, ledger_id: str, place: str) -> str:
    """Give the dataset's id. Raises ``SinkRefused`` for a damaged marker and for that of another ledger."""
    owner, dataset_id = owner_of(marker, place=place)
    if owner != ledger_id:
        raise SinkRefused(
            f"{place} was harvested with another ledger (its id is {owner}); "
            "name that ledger with --state; if it is lost, say --adopt; or harvest into a new place"
        )
    return dataset_id
