"""How the room for claimed readings is shared among workspaces."""

from hypothesis import given
from hypothesis import strategies as st

from harvester.engine.capacity import MAX_LEASED, Capacity, share_room


def test_everyone_gets_what_it_wants_if_there_is_room():
    """If there is room for all, each workspace claims what it wants."""
    assert share_room({"a": 10, "b": 2000}, {"a": 2.0, "b": 1.0}, 5000) == {"a": 10, "b": 2000}


def test_half_is_shared_evenly_and_the_rest_goes_to_the_nearest_deadline():
    """A backfill with the nearest deadlines leaves the others their share of the first half."""
    wanted = {"backfill": 2000, **{f"w{number}": 100 for number in range(9)}}
    deadlines = {"backfill": 1.0, **{f"w{number}": 2.0 + number for number in range(9)}}
    limits = share_room(wanted, deadlines, 1000)
    assert limits == {"backfill": 550, **{f"w{number}": 50 for number in range(9)}}


@given(
    workspaces=st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 30)), max_size=30),
    room=st.integers(0, 3000),
)
def test_the_room_is_used_and_never_exceeded(workspaces, room):
    """No workspace gets more than it wants, and the room is used as far as the workspaces need it."""
    wanted = {f"w{number}": count for number, (count, _) in enumerate(workspaces)}
    limits = share_room(wanted, {f"w{number}": float(at) for number, (_, at) in enumerate(workspaces)}, room)
    assert all(0 < limit <= wanted[name] for name, limit in limits.items())
    assert sum(limits.values()) == min(room, sum(wanted.values()))


def test_the_capacity_counts_what_is_neither_sealed_nor_released():
    """The free room is never negative, even if a claim leased what another process released."""
    capacity = Capacity()
    capacity.take(MAX_LEASED + 5)
    assert capacity.room == 0
    capacity.free(105)
    assert capacity.room == 100
