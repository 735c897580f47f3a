"""A pod that comes back costs what its owner said."""

import pytest

from jangada_operator.workerpool.cluster import COST, PREVIOUS
from jangada_operator.workerpool.pricing import lowered, restored


@pytest.mark.parametrize("own", [{}, {COST: "7"}, {COST: "-1000"}, {COST: "", "other": "x"}])
def test_what_was_lowered_comes_back_as_it_was(own: dict[str, str]) -> None:
    there = merged(own, lowered(own))
    assert there[COST] == "-1000"
    assert there[PREVIOUS] == own.get(COST, "")
    assert lowered(there) == {}, "twice is once"
    expected = {name: value for name, value in own.items() if value}
    assert merged(there, restored(there)) == expected


def test_what_is_not_ours_stays() -> None:
    assert restored({COST: "-1000"}) == {}
    assert restored({}) == {}


def test_a_cost_that_the_owner_set_meanwhile_stays_and_is_kept_when_it_is_lowered_again() -> None:
    there = {COST: "9", PREVIOUS: "7"}
    assert merged(there, restored(there)) == {COST: "9"}
    assert lowered(there) == {COST: "-1000", PREVIOUS: "9"}


def merged(annotations: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    """As an API server applies a merge patch."""
    found = {**annotations, **changes}
    return {name: value for name, value in found.items() if value is not None}
