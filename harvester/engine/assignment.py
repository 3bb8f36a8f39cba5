"""Which replica each workspace is assigned to: rendezvous hashing, pure.

Every process computes the same assignment from the same owners, so nothing is negotiated or stored. If an owner leaves,
only its workspaces move. The assignment saves requests and quota; correctness never depends on it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b


def find_owner(workspace: str, owners: Collection[str]) -> str:
    """Return the owner that a workspace is assigned to. Raises ``ValueError`` for an empty ``owners``."""
    if len(owners) == 1:
        return next(iter(owners))
    return max(owners, key=lambda owner: (_score(owner, workspace), owner))


def assign(workspaces: Iterable[str], owners: Collection[str], me: str) -> set[str]:
    """Return the workspaces that are assigned to the owner ``me``; none if it is not among the ``owners``."""
    return set(list_assigned(tuple(workspaces), tuple(owners)).get(me, ()))


@lru_cache(maxsize=2)
def list_assigned(workspaces: tuple[str, ...], owners: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    """Return the workspaces that are assigned to each owner.

    The last results are cached: 10,000 workspaces of 20 owners take 0.2 s, and each snapshot of the service needs them.
    """
    assigned: dict[str, list[str]] = {owner: [] for owner in owners}
    for name in workspaces if owners else ():
        assigned[find_owner(name, owners)].append(name)
    return assigned


def _score(owner: str, workspace: str) -> bytes:
    """Return the weight of an owner for a workspace, the same in every process and version of Python."""
    return blake2b(f"{owner} {workspace}".encode(), digest_size=8).digest()
