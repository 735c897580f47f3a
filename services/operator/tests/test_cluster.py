from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jangada_operator.simulation.cluster import Cluster, Terms, victims
from jangada_operator.simulation.outcome import Outcome
from jangada_operator.simulation.trace import Trace
from jangada_queue.policy.observation import Stage

type Act = Callable[[Cluster], None]


class Scripted:
    """Does at each second what it is told for it."""

    interval = 1.0

    def __init__(self, initial: int, acts: dict[int, Act]) -> None:
        self.initial = initial
        self.acts = acts

    def look(self, cluster: Cluster) -> None:
        self.acts.get(round(cluster.now), lambda _: None)(cluster)


def ran(jobs: Sequence[tuple[float, float]], initial: int, acts: dict[int, Act]) -> Outcome:
    arrivals, services = [at for at, _ in jobs], [seconds for _, seconds in jobs]
    trace = Trace("small", 20.0, arrivals, services)
    return Cluster(trace, Terms(slots=2)).run(Scripted(initial, acts))


def test_jobs_start_in_turn_as_slots_become_free() -> None:
    outcome = ran([(0, 4), (0, 6), (1, 1), (1, 1)], 1, {})
    assert outcome.waits == [0, 0, 3, 4]


def test_pod_seconds_are_counted_until_the_run_is_over() -> None:
    outcome = ran([(0, 25)], 3, {})
    assert outcome.ended_at == 25
    assert outcome.pod_seconds == 75


def test_a_new_replica_takes_jobs_once_it_has_started() -> None:
    outcome = ran([(0, 1)], 0, {2: lambda cluster: cluster.scale_up(1)})
    assert outcome.waits == [7]
    assert outcome.sizes == [(0, 0), (2, 1)]


def test_a_draining_replica_takes_no_job_until_it_is_undrained() -> None:
    acts: dict[int, Act] = {
        2: lambda cluster: cluster.drain(["000001"]),
        6: lambda cluster: cluster.undrain(["000001"]),
    }
    outcome = ran([(0, 3), (3, 1), (4, 1)], 1, acts)
    assert outcome.waits == [0, 3, 2]
    assert outcome.sizes == [(0, 1), (2, 0), (6, 1)]


def test_a_replica_that_is_drained_while_it_starts_takes_jobs_after_it_is_undrained() -> None:
    acts: dict[int, Act] = {
        0: lambda cluster: cluster.scale_up(1),
        1: lambda cluster: cluster.drain(["000001"]),
        9: lambda cluster: cluster.undrain(["000001"]),
    }
    assert ran([(0, 1)], 0, acts).waits == [9]


def test_an_empty_replica_is_committed_and_then_gone() -> None:
    """The proof takes three seconds, and so does the end; whoever is committed stays drained."""
    acts: dict[int, Act] = {2: lambda cluster: cluster.drain(["000001"])}
    acts |= {second: lambda cluster: cluster.remove_empty() for second in range(3, 20)}
    acts[6] = lambda cluster: cluster.undrain(["000001"])
    outcome = ran([], 1, acts)
    assert outcome.pod_seconds == 8
    assert outcome.sizes == [(0, 1), (2, 0)]


def test_a_deleted_replica_ends_with_its_last_job() -> None:
    outcome = ran([(0, 5)], 1, {2: lambda cluster: cluster.scale_down(cluster.pods.values())})
    assert outcome.pod_seconds == 5
    assert outcome.interrupted == 0


def test_a_job_that_outlives_the_grace_starts_over() -> None:
    acts: dict[int, Act] = {
        2: lambda cluster: cluster.scale_down(cluster.serving()),
        3: lambda cluster: cluster.scale_up(1),
    }
    outcome = ran([(0, 40), (4, 1)], 1, acts)
    assert outcome.interrupted == 1
    assert outcome.starts == 3
    assert outcome.waits == [0, 4]
    assert outcome.ended_at == 72
    assert outcome.pod_seconds == 32 + 69


def test_a_replica_set_deletes_who_is_not_ready_and_then_the_youngest() -> None:
    found: list[list[str]] = []

    def note(cluster: Cluster) -> None:
        found.append([pod.id for pod in victims(cluster.serving(), 3)])

    acts: dict[int, Act] = {
        1: lambda cluster: cluster.scale_up(2),
        7: lambda cluster: cluster.scale_up(3),
        8: note,
    }
    ran([], 1, acts)
    assert found == [["000003", "000002", "000001"]]


def test_a_job_that_nobody_runs_never_starts() -> None:
    outcome = ran([(0, 1)], 0, {})
    assert outcome.waits == [float("inf")]
    assert outcome.starts == 0


@pytest.mark.parametrize("terms", [{"slots": 0}, {"start": -1}, {"grace": -1}])
def test_impossible_terms_are_refused(terms: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"a slot|negative"):
        Terms(**terms)


class Erratic:
    """Does anything at all, and sees that the cluster stays sound. At last everybody serves."""

    interval = 1.0
    initial = 1

    def __init__(self, orders: Sequence[tuple[str, int]]) -> None:
        self._orders = iter(orders)
        self._drained: dict[str, set[int]] = {}
        self._alive: set[str] = set()
        self.at_least = self.at_most = 0.0

    def look(self, cluster: Cluster) -> None:
        self._check(cluster)
        self._obey(cluster, *next(self._orders, ("recover", 1)))
        self._drained = {
            pod.id: set(pod.jobs) for pod in cluster.pods.values() if not pod.is_serving
        }
        self._alive = set(cluster.pods)
        self.at_most += len(self._alive)

    def _check(self, cluster: Cluster) -> None:
        pods = cluster.pods.values()
        assert all(pod.held <= pod.slots for pod in pods)
        assert cluster.in_flight == sum(pod.held for pod in pods)
        assert cluster.replicas == sum(pod.stage is not Stage.TERMINATING for pod in pods)
        for pod in pods:
            if pod.id in self._drained:
                assert set(pod.jobs) <= self._drained[pod.id]
        self.at_least += len(self._alive & set(cluster.pods))

    @staticmethod
    def _obey(cluster: Cluster, order: str, number: int) -> None:
        ids = list(cluster.pods)
        if order == "recover":
            cluster.undrain(ids)
            cluster.scale_up(len(cluster.pods) if cluster.serving() else cluster.replicas + 1)
        elif order == "grow":
            cluster.scale_up(number)
        elif order == "delete":
            cluster.scale_down(list(cluster.pods.values())[:number])
        elif order == "drain":
            cluster.drain(ids[-number:])
        elif order == "undrain":
            cluster.undrain(ids[:number])
        else:
            cluster.remove_empty()


ORDERS = st.tuples(
    st.sampled_from(["grow", "delete", "drain", "undrain", "remove"]), st.integers(1, 5)
)
JOBS = st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 60)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(jobs=JOBS, orders=st.lists(ORDERS, max_size=40), slots=st.integers(1, 3))
def test_whatever_is_ordered_each_job_starts_once_or_was_interrupted(
    jobs: list[tuple[float, float]], orders: list[tuple[str, int]], slots: int
) -> None:
    ordered = sorted(jobs)
    trace = Trace("any", 40.0, [at for at, _ in ordered], [seconds for _, seconds in ordered])
    autoscaler = Erratic(orders)
    outcome = Cluster(trace, Terms(slots=slots, grace=5.0)).run(autoscaler)
    assert all(0 <= wait < float("inf") for wait in outcome.waits)
    assert outcome.starts == len(jobs) + outcome.interrupted
    assert outcome.pod_seconds <= autoscaler.at_most + 1e-6
    assert outcome.pod_seconds >= autoscaler.at_least - 1e-6
    assert outcome.pod_seconds * slots >= trace.work - 1e-6
