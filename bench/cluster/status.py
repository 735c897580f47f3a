"""What a kubelet says of a pod whose one container is a process."""

from datetime import UTC, datetime

from cluster.api import Object
from cluster.certificates import ADDRESS


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status_of(
    pod: Object,
    *,
    address: str,
    phase: str,
    ready: tuple[bool, str],
    restarts: int,
    state: Object,
    last_state: Object,
) -> Object:
    """A patch of its status; `ready` says since when."""
    is_ready, since = ready
    made, is_waiting = pod["metadata"]["creationTimestamp"], "waiting" in state
    if "terminated" in state and phase == "Running" and not is_deleted(pod):
        state = {"waiting": {"reason": "CrashLoopBackOff"}}
    container = pod["spec"]["containers"][0]
    said = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": is_ready,
        "started": "running" in state,
        "restartCount": restarts,
        "state": state,
        "lastState": {} if "terminated" in state else last_state,
    }
    return {
        "phase": "Pending" if is_waiting and not last_state else phase,
        "hostIP": ADDRESS,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": made,
        "conditions": [
            _condition("Initialized", True, made),
            _condition("Ready", is_ready, since),
            _condition("ContainersReady", is_ready, since),
        ],
        "containerStatuses": [said],
    }


def is_deleted(pod: Object) -> bool:
    """Whether it is on its way out."""
    return "deletionTimestamp" in pod["metadata"]


def _condition(name: str, holds: bool, since: str) -> Object:
    return {"type": name, "status": str(holds), "lastTransitionTime": since}
