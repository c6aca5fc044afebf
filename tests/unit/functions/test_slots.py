"""Who may train: as many as the limit says, first come first served."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fine_tuning.slots import Slots


def queue(*names: str) -> Slots:
    """Runs that were dropped in this order."""
    slots = Slots()
    for number, name in enumerate(names):
        slots = slots.requested(name, f"2026-11-24T12:00:{number:02}")
    return slots


def test_the_first_come_are_served_first() -> None:
    slots = queue("c", "a", "b").granted(2)
    assert slots.holders == {"c", "a"}
    assert (slots.position("b"), slots.position("a")) == (1, None)
    assert slots.without("c").granted(2).holders == {"a", "b"}


def test_the_order_is_that_of_the_drops_not_of_the_requests() -> None:
    slots = Slots().requested("late", "2026-11-24T12:00:01").requested("early", "2026-11-24T12:00:00")
    assert slots.order() == ["early", "late"]


def test_a_request_is_made_once() -> None:
    slots = queue("a", "b").granted(1)
    assert slots.requested("a", "x").requested("b", "x") == slots


def test_who_gives_up_leaves_the_queue() -> None:
    assert queue("a", "b", "c").granted(1).without("b").order() == ["c"]


def test_a_lowered_limit_takes_no_slot_away() -> None:
    slots = queue("a", "b", "c", "d").granted(3)
    assert slots.granted(1) == slots
    assert slots.without("a").granted(1).holders == {"b", "c"}


@given(
    st.lists(st.tuples(st.sampled_from("+-"), st.sampled_from("abcdefgh")), max_size=60),
    st.integers(min_value=1, max_value=4),
)
def test_whatever_happens_the_limit_is_kept_and_nobody_is_lost_or_served_twice(
    moves: list[tuple[str, str]], limit: int
) -> None:
    slots, present = Slots(), set()
    for number, (move, name) in enumerate(moves):
        if move == "+":
            present.add(name)
            slots = slots.requested(name, f"{number:04}").granted(limit)
        else:
            present.discard(name)
            slots = slots.without(name).granted(limit)
        assert len(slots.holders) <= limit
        assert slots.holders.isdisjoint(slots.queue)
        assert slots.holders | set(slots.queue) == present
        assert len(slots.holders) == limit or not slots.queue
