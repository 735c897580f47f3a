"""One look at one pool: observe, decide, act, report; each step a function, each repeatable."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from jangada_operator.kube import Json, Kube, KubeError, Refused, Unreachable
from jangada_operator.workerpool.cluster import Body, Deployment, Pod
from jangada_operator.workerpool.draining import Drains, Happened, Mandate, Target
from jangada_operator.workerpool.hindering import (
    Expected,
    missing_of,
    not_starting,
    rolling_out,
)
from jangada_operator.workerpool.observing import Look, Registered, observe, unidentified
from jangada_operator.workerpool.reasons import Happening, State, Trouble
from jangada_operator.workerpool.spec import Pool
from jangada_operator.workerpool.status import (
    Condition,
    Hindrance,
    Problem,
    Report,
    conditions_of,
    decision_of,
    figures_of,
    refused_of,
    told_of,
)
from jangada_operator.workerpool.telling import Voice, tell_happened
from jangada_queue.client import QueueClient
from jangada_queue.errors import QueueUnavailable
from jangada_queue.policy.decide import Decision, Reason, decide
from jangada_queue.policy.history import History
from jangada_queue.policy.observation import Observation, Stage
from jangada_queue.policy.reading import by_pod, workers_of

BLOCKED_AFTER: Final = 30.0
"""Seconds for which a scale-down waits before people are told."""

LATE: Final = 60.0
SLOW: Final = 3.0
"""So many seconds, and so many times what a start takes, a pod may take before people are told."""


@dataclass(slots=True)
class Counts:
    """What happened to a pool since we lead."""

    decisions: dict[str, int] = field(default_factory=dict)
    mispicked: int = 0
    interrupted: int = 0


@dataclass(slots=True)
class Managed:
    """What is remembered of a pool between two looks. All of it may be lost."""

    pool: Pool
    drains: Drains
    report: Report
    voice: Voice
    history: History = field(default_factory=History)
    registered: Registered = field(default_factory=Registered)
    counts: Counts = field(default_factory=Counts)
    latest: Decision | None = None
    observation: Observation | None = None
    url: str = field(default="", repr=False)
    """Of the server that was looked at last."""
    problem: Problem | None = None
    """Why it wasn't looked after the last time."""
    asked: int | None = None
    """The size that the Deployment has to our knowledge, or that we asked for."""
    seen: int | None = None
    """The size that it was seen with last."""
    held: str = ""
    held_since: float = 0.0
    missing_since: float | None = None
    """Since when fewer pods are there than were asked for."""
    going: set[str] = field(default_factory=set)
    """The pods that were being deleted when the queues were read last."""

    @property
    def is_in_trouble(self) -> bool:
        """Whether another URL may be what mends it."""
        has_signals = self.observation is not None and self.observation.signals is not None
        return self.problem is not None or not has_signals

    @classmethod
    def new(cls, pool: Pool, kube: Kube, mandate: Mandate, body: Body) -> Self:
        voice = Voice.of(body, time.monotonic())
        return cls(pool, Drains(pool, kube, mandate), Report.of(body), voice)

    def take(self, pool: Pool) -> None:
        """Its owner has changed it."""
        before, self.pool = self.pool, pool
        if (before.queues, before.prefix) != (pool.queues, pool.prefix):
            self._move()
        self.drains.pool = pool

    def use(self, url: str) -> None:
        """The server of its queues, which another secret may have made another."""
        if self.url not in {"", url}:
            self._move()
        self.url = url

    def _move(self) -> None:
        """Forget all that was known of the queues of before.

        Who works for those says nothing to the ones of now: it isn't idle, but out of sight.
        """
        self.registered.move()
        self.drains.forget()
        self.history = History(starts=self.history.starts)


@dataclass(slots=True)
class Unread:
    """What is remembered of a pool whose spec can't be read."""

    report: Report
    voice: Voice

    @classmethod
    def new(cls, body: Body) -> Self:
        return cls(Report.of(body), Voice.of(body, time.monotonic()))


@dataclass(frozen=True, slots=True)
class Sight:
    """What is there for one look: the target with its pods, and what the queues said."""

    deployment: Deployment
    target: Target
    pods: Mapping[str, Pod]
    look: Look
    queues: QueueClient


async def reconcile(kube: Kube, managed: Managed, sight: Sight) -> None:
    """One look. Raises `KubeError` where the API server refused or was absent."""
    now, managed.problem = time.time(), None
    await _note_foreign_writer(kube, managed, sight)
    observation = observe(
        sight.deployment.replicas,
        sight.pods,
        sight.look,
        drains=managed.drains,
        registered=managed.registered,
    )
    decision = decide(managed.pool.wanted, observation, managed.history, now)
    managed.history, managed.latest, managed.observation = decision.history, decision, observation
    _count(managed, sight, observation, decision)
    happened = Happened()
    if not managed.pool.is_dry_run and managed.drains.mandate.is_held:
        happened = await _act(kube, managed, sight, decision)
    happened.draining, happened.serving = managed.drains.parted(sight.pods.values())
    conditions = conditions_of(
        None,
        decision,
        hindrance=_hindrance(managed, sight, decision, happened),
        trouble=sight.look.trouble,
        is_paused=managed.pool.wanted.is_paused,
    )
    await _report(kube, managed, decision, happened, conditions=conditions)


async def refuse(kube: Kube, managed: Managed, problem: Problem, replicas: int | None) -> None:
    """Say why nothing can be done; the target is left as it is."""
    managed.problem = problem
    generation, is_paused = managed.pool.generation, managed.pool.wanted.is_paused
    found = conditions_of(problem, None, is_paused=is_paused)
    status: Json = {
        "observedGeneration": generation,
        **refused_of(problem),
        "decisions": managed.report.decisions,
        "conditions": managed.report.conditions(found, generation),
    }
    if replicas is not None:
        status["replicas"] = replicas
    await managed.report.write(kube, status)
    await managed.voice.tell_conditions(kube, found, generation)


async def refuse_unreadable(kube: Kube, unread: Unread, body: Body, why: str) -> None:
    """Say what is wrong with a spec that can't be read."""
    generation = body["metadata"].get("generation", 0)
    problem = Problem(Trouble.INVALID_SPEC, why)
    found = conditions_of(problem, None, is_paused=False)
    status: Json = {
        "observedGeneration": generation,
        **refused_of(problem),
        "decisions": unread.report.decisions,
        "conditions": unread.report.conditions(found, generation),
    }
    await unread.report.write(kube, status)
    await unread.voice.tell_conditions(kube, found, generation)


async def _note_foreign_writer(kube: Kube, managed: Managed, sight: Sight) -> None:
    """What we asked for ourselves may be heard of later: until then the size is the one before."""
    before, found = managed.asked, sight.deployment.replicas
    was_seen, managed.seen = managed.seen, found
    if before is None or found == before:
        managed.asked = found
        return
    if found == was_seen:
        return
    managed.asked = found
    text = f"Somebody else changed the size of {sight.deployment.name} from {before} to {found}."
    if managed.voice.may_tell(Happening.CONFLICT, time.monotonic()):
        await managed.voice.tell(kube, Happening.CONFLICT, text, is_warning=True)


def _count(managed: Managed, sight: Sight, observation: Observation, decision: Decision) -> None:
    """Jobs of pods that went away while they ran are interrupted ones.

    A worker that ends in order leaves the queue before its pod goes; what one that is killed said
    last is there for some seconds.
    """
    counts, reason = managed.counts, str(decision.reason)
    counts.decisions[reason] = counts.decisions.get(reason, 0) + 1
    if sight.look.stats is None:
        return
    if gone := [uid for uid in managed.going if uid not in sight.pods]:
        said = by_pod(workers_of(sight.look.stats))
        counts.interrupted += sum(len(said[uid].running) for uid in gone if uid in said)
    managed.going = {each.id for each in observation.pool if each.stage is Stage.TERMINATING}


async def _act(kube: Kube, managed: Managed, sight: Sight, decision: Decision) -> Happened:
    happened = Happened()
    unknown = unidentified(sight.pods, managed.registered, managed.history.start_seconds)
    strangers = {pod.uid for pod in unknown}
    spared = strangers | _awaited(sight)
    wanted = [uid for uid in decision.drain if uid not in spared]
    if decision.reason is not Reason.STALE:
        try:
            happened = await managed.drains.step(
                sight.queues, sight.target, wanted=wanted, overdue=decision.interrupt
            )
        except QueueUnavailable as error:
            happened.held = str(error)
    if strangers.intersection(decision.drain):
        happened.held = (
            f"no worker has reported the UID of {unknown[0].name}, so it can't be drained: set "
            f"JANGADA_WORKER__POD_UID from metadata.uid"
        )
    managed.counts.mispicked += happened.mispicked
    if happened.committed and managed.asked is not None:
        managed.asked -= happened.committed
    # A rollout takes old pods away as far as the size allows it, be they busy: so not then.
    elif decision.replicas > sight.deployment.replicas or not sight.deployment.is_rolling_out:
        await _scale(kube, managed, sight, decision)
    return happened


def _awaited(sight: Sight) -> set[str]:
    """Pods whose readiness a rollout waits for: one that drains is not ready, and it never ends."""
    return set(sight.target.pods) if sight.deployment.is_rolling_out else set()


async def _scale(kube: Kube, managed: Managed, sight: Sight, decision: Decision) -> None:
    """Ask for more, or for none of those that never came.

    Unless the size is another one by now: then the next look decides anew. A pod that is created
    in just this moment is the first that a ReplicaSet deletes: it isn't assigned or doesn't run.
    """
    name, before = sight.deployment.name, sight.deployment.replicas
    if decision.replicas == before:
        return
    path = f"/apis/apps/v1/namespaces/{managed.pool.key.namespace}/deployments/{name}/scale"
    scale = await kube.get(path)
    if scale["spec"].get("replicas", 0) != before:
        return
    wanted = decision.replicas
    if wanted < before:
        there = await managed.drains.active(sight.target, scale["status"]["selector"])
        wanted = max(wanted, len(there))
    if wanted == before:
        return
    version = scale["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": wanted}}
    try:
        await kube.merge(path, body)
    except Refused as error:
        if not error.is_conflict:
            raise
        return
    managed.asked = wanted
    what = Happening.SCALED_UP if wanted > before else Happening.SCALED_DOWN
    text = f"From {before} to {wanted}. {decision.message}"
    await managed.voice.tell(kube, what, text, is_warning=False)


async def _report(
    kube: Kube,
    managed: Managed,
    decision: Decision,
    happened: Happened,
    *,
    conditions: Sequence[Condition],
) -> None:
    report, pool, observation = managed.report, managed.pool, managed.observation
    if observation is None:
        return
    before = report.said.get("desiredReplicas", observation.replicas)
    report.note(decision, before)
    status: Json = {
        "observedGeneration": pool.generation,
        **told_of(decision, conditions, is_dry_run=pool.is_dry_run),
        **figures_of(observation, decision),
        "lastDecision": decision_of(decision, before),
        "decisions": report.decisions,
        "conditions": report.conditions(conditions, pool.generation),
    }
    await report.write(kube, status)
    await managed.voice.tell_conditions(kube, conditions, pool.generation)
    await tell_happened(kube, managed.voice, decision, happened, size=observation.replicas)


def _hindrance(
    managed: Managed, sight: Sight, decision: Decision, happened: Happened
) -> Hindrance | None:
    """What keeps the pool from the size that was decided, if anything does; causes come last."""
    found = []
    blocked, expected = _blocked(managed, happened), _expected(managed, sight)
    is_surplus = decision.drain and not managed.pool.is_dry_run
    is_waiting = happened.held or not sight.target.may_shrink
    if is_surplus and is_waiting and sight.deployment.is_rolling_out:
        found.append(rolling_out(sight.deployment, sight.target))
    if (absent := not_starting(expected)) is not None:
        found.append(absent)
    if blocked:
        found.append(
            Hindrance(State.SCALE_DOWN_BLOCKED, f"Pods that are too many stay: {blocked}.")
        )
    if not found:
        return None
    return Hindrance(found[0].reason, " ".join(each.message for each in found))


def _expected(managed: Managed, sight: Sight) -> Expected:
    """Who should have started long ago. Without the queues' word who is ready may well work."""
    now, newest = time.time(), sight.target.newest
    patience = max(LATE, SLOW * managed.history.start_seconds)
    replicas = () if managed.observation is None else managed.observation.pool
    starting = [sight.pods[each.id] for each in replicas if each.stage is Stage.STARTING]
    late = [
        pod
        for pod in sorted(starting, key=lambda each: each.created)
        if now - pod.created > patience and not (pod.is_ready and sight.look.stats is None)
    ]
    missing = missing_of(sight.deployment, sight.target, sight.pods.values())
    if not missing:
        managed.missing_since = None
    elif managed.missing_since is None:
        managed.missing_since = now
    since = newest.failed_since if newest.failure else managed.missing_since or now
    return Expected(
        deployment=sight.deployment,
        target=sight.target,
        late=late,
        missing=missing if now - since > patience else 0,
        missing_since=since,
    )


def _blocked(managed: Managed, happened: Happened) -> str:
    """Why drained pods aren't deleted, once that has lasted."""
    now = time.monotonic()
    if not happened.held:
        managed.held = ""
        return ""
    if not managed.held:
        managed.held_since = now
    managed.held = happened.held
    return happened.held if now - managed.held_since >= BLOCKED_AFTER else ""


def problem_of(error: KubeError) -> Problem:
    """What the API server's refusal means for a pool."""
    if isinstance(error, Unreachable):
        return Problem(Trouble.API_UNREACHABLE, str(error))
    if isinstance(error, Refused) and error.is_forbidden:
        return Problem(Trouble.FORBIDDEN, f"{error.message}. Grant the operator's role this verb.")
    return Problem(Trouble.API_REFUSED, str(error))
