"""What keeps a pool from its size though its spec allows it, and what to do then.

These are the reasons of `Limited` that aren't the policy's. Messages hold no figures that always
move, so that a status isn't written for their sake.
"""

from jangada_operator.workerpool.cluster import Deployment
from jangada_operator.workerpool.draining import Target
from jangada_operator.workerpool.reasons import State
from jangada_operator.workerpool.status import Hindrance


def rolling_out(deployment: Deployment, target: Target) -> Hindrance:
    """Nobody goes during a rollout: its old pods would be deleted first, busy or not."""
    name = deployment.name
    overdue = ", and is past its progress deadline" if deployment.is_overdue else ""
    text = (
        f"{name} is being rolled out{overdue}: {deployment.updated} of {deployment.there} pods are "
        f"of {target.newest.name}, its newest ReplicaSet. Pods that are too many go when all are. "
        f"kubectl -n {target.namespace} rollout status deployment/{name} says what it waits for; "
        f"rollout undo ends one that is stuck."
    )
    return Hindrance(State.ROLLING_OUT, text)
