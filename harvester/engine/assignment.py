"""Which process serves which workspace: rendezvous hashing, pure.

Every process computes the same answer from the same owners, so nothing is negotiated or stored. If an owner leaves,
only its workspaces move. The assignment saves requests and quota; correctness never depends on it.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from hashlib import blake2b


def find_server(workspace: str, owners: Collection[str]) -> str:
    """Return the owner that a workspace is assigned to. Raises ``ValueError`` for an empty ``owners``."""
    return max(owners, key=lambda owner: (_score(owner, workspace), owner))


def assign(workspaces: Iterable[str], owners: Collection[str], me: str) -> set[str]:
    """Return the workspaces that the owner ``me`` serves; none if it is not among the ``owners``."""
    if me not in owners:
        return set()
    return {name for name in workspaces if find_server(name, owners) == me}


def count_assigned(workspaces: Collection[str], owners: Collection[str]) -> dict[str, int]:
    """Return how many workspaces each owner serves."""
    if len(owners) == 1:
        return dict.fromkeys(owners, len(workspaces))
    found = Counter(find_server(name, owners) for name in workspaces) if owners else Counter[str]()
    return {owner: found[owner] for owner in owners}


def _score(owner: str, workspace: str) -> bytes:
    """Return the weight of an owner for a workspace, the same in every process and version of Python."""
    return blake2b(f"{owner} {workspace}".encode(), digest_size=8).digest()
