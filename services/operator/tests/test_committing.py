"""The size is lowered only where a ReplicaSet would delete exactly those that are meant."""

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jangada_operator.workerpool.cluster import LOWEST_COST, Pod
from jangada_operator.workerpool.committing import why_not

NUMBERS = count()
READY = Pod(
    name="w",
    uid="",
    owner="rs",
    created=0.0,
    is_assigned=True,
    phase="Running",
    is_ready=True,
    cost=0,
    is_deleted=False,
    alive_since=None,
)
GOING = replace(READY, is_ready=False, cost=LOWEST_COST)


def pods(*found: Pod) -> list[Pod]:
    return [
        replace(each, uid=f"u{number}", name=f"w-{number}") for number, each in enumerate(found)
    ]


def test_empty_pods_that_are_not_ready_and_cheapest_go() -> None:
    assert why_not(pods(GOING, READY, GOING), {"u0", "u2"}, 3) is None
    assert why_not(pods(GOING, GOING), {"u0", "u1"}, 2) is None


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (replace(READY, is_assigned=False, phase="Pending"), "no node yet"),
        (replace(READY, phase="Pending", is_ready=False), "Pending and not ready"),
        (replace(READY, is_ready=False, cost=LOWEST_COST), "not ready"),
        (replace(READY, is_ready=False, cost=-5000), "not ready"),
    ],
)
def test_a_pod_that_would_go_first_is_in_the_way(other: Pod, why: str) -> None:
    told = why_not(pods(GOING, other), {"u0"}, 2)
    assert told is not None
    assert why in told
    assert "w-1" in told


def test_a_drained_pod_that_stays_ready_goes_by_its_cost_alone() -> None:
    """A worker without a readiness probe of ours."""
    cheap = replace(READY, cost=LOWEST_COST)
    assert why_not(pods(cheap, READY), {"u0"}, 2) is None
    told = why_not(pods(cheap, replace(READY, cost=-2000)), {"u0"}, 2)
    assert told is not None
    assert "deletion cost is -2000" in told
    busy_but_not_ready = replace(READY, is_ready=False)
    assert why_not(pods(cheap, busy_but_not_ready), {"u0"}, 2) is not None


def test_all_costed_pods_go_together_or_none() -> None:
    assert why_not(pods(GOING, GOING, READY), {"u0"}, 3) is not None


def test_pods_must_be_as_many_as_were_asked_for() -> None:
    assert why_not(pods(GOING, READY), {"u0"}, 3) == "2 pods are there of 3"
    assert why_not(pods(GOING, READY), {"u0", "u7"}, 2) == "1 of the drained pods are going already"


PODS = st.builds(
    lambda assigned, phase, ready, cost: replace(
        READY, is_assigned=assigned, phase=phase, is_ready=ready, cost=cost
    ),
    st.booleans(),
    st.sampled_from(["Pending", "Unknown", "Running"]),
    st.booleans(),
    st.sampled_from([0, 0, LOWEST_COST, 7]),
)


@given(st.lists(PODS, min_size=1, max_size=8), st.data())
def test_whom_a_replica_set_deletes_are_those_that_are_meant(
    found: list[Pod], data: st.DataObject
) -> None:
    """Whatever it compares after what it is sure to compare: the ties are broken at random."""
    there = pods(*found)
    meant = data.draw(st.sets(st.sampled_from([each.uid for each in there]), min_size=1))
    if why_not(there, meant, len(there)) is None:
        shuffled = data.draw(st.permutations(there))
        deleted = sorted(shuffled, key=lambda each: each.rank)[: len(meant)]
        assert {each.uid for each in deleted} == meant
