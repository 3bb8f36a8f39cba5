"""The assignment of workspaces to the processes that serve them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.engine.assignment import assign, find_owner, list_assigned

WORKSPACES = st.lists(st.text(max_size=12), unique=True, max_size=20)
OWNERS = st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=6)


@given(WORKSPACES, OWNERS)
def test_each_workspace_has_exactly_one_owner(workspaces, owners):
    """The shares of all owners are disjoint, and together they are all workspaces."""
    shares = {owner: assign(workspaces, owners, owner) for owner in owners}
    assert sorted(name for share in shares.values() for name in share) == sorted(workspaces)
    assert list_assigned(tuple(workspaces), tuple(owners)) == {
        owner: [name for name in workspaces if name in share] for owner, share in shares.items()
    }


@given(WORKSPACES, OWNERS, st.randoms(use_true_random=False))
def test_all_processes_agree(workspaces, owners, random):
    """The order in which a process sees owners and workspaces does not matter."""
    shuffled = random.sample(owners, len(owners))
    for owner in owners:
        expected = assign(workspaces, owners, owner)
        assert assign(reversed(workspaces), shuffled, owner) == expected


@given(WORKSPACES, OWNERS, st.data())
def test_only_the_workspaces_of_an_owner_that_leaves_move(workspaces, owners, data):
    """The others keep their workspaces. Likewise, an owner that joins takes only its own share from them."""
    leaver = data.draw(st.sampled_from(owners))
    rest = [each for each in owners if each != leaver]
    for name in workspaces if rest else ():
        before = find_owner(name, owners)
        assert before == leaver or find_owner(name, rest) == before


@given(WORKSPACES, OWNERS)
def test_a_process_that_is_not_an_owner_serves_nothing(workspaces, owners):
    """A process whose registration has ended leaves its workspaces to the others."""
    assert assign(workspaces, owners, "not among " + "".join(owners)) == set()
    assert assign(workspaces, [], owners[0]) == set()


@pytest.mark.parametrize("workspace", ["w{}", "client-{}-production", "{:08}"])
def test_shares_are_nearly_even(workspace):
    """Of 2,000 workspaces, each of four owners serves 500, within five standard deviations."""
    owners = ["3f9c2a7d1b", "harvester-0", "harvester-1", "harvester-2"]
    shares = Counter(find_owner(workspace.format(number), owners) for number in range(2000))
    assert set(shares) == set(owners)
    assert all(400 <= share <= 600 for share in shares.values())


def test_the_assignment_never_changes():
    """Two versions of harvester agree on the assignment while one replaces the other."""
    servers = [find_owner(f"w{number}", ["a", "b", "c"]) for number in range(12)]
    assert "".join(servers) == "cacababcbacc"
