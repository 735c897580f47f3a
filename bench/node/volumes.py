"""Gives each claim a folder: `volumes.py KUBECONFIG FOLDER NODE…`, a StorageClass of its own.

Volumes are of the kind `local`, so a kubelet gives them to a pod's `fsGroup`, as it does disks. All
nodes have them at the same place.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cluster.api import Api, ApiError, Object

CLASS: Final = "folders"
CONFLICT: Final = 409


def storage_class() -> Object:
    """The class of all claims that name none."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": default},
        "provisioner": "jangada.test/folders",
        "volumeBindingMode": "Immediate",
    }


def volume(claim: Object, folder: Path, nodes: Sequence[str]) -> Object:
    """A volume for this claim, and for no other."""
    head, spec = claim["metadata"], claim["spec"]
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [*nodes]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": folder.name},
        "spec": {
            "capacity": spec["resources"]["requests"],
            "accessModes": spec["accessModes"],
            "storageClassName": CLASS,
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                **{name: head[name] for name in ("name", "namespace", "uid")},
            },
        },
    }


def is_waiting(claim: Object) -> bool:
    return claim["spec"].get("storageClassName") == CLASS and not claim["spec"].get("volumeName")


def provide(api: Api, claim: Object, place: Path, nodes: Sequence[str]) -> None:
    folder = place / f"pvc-{claim['metadata']['uid']}"
    folder.mkdir(exist_ok=True)
    try:
        api.create(volume(claim, folder, nodes))
    except ApiError as error:
        if error.status != CONFLICT:
            raise


def main(arguments: Sequence[str]) -> None:
    place, nodes = Path(arguments[1]), arguments[2:]
    place.mkdir(parents=True, exist_ok=True)
    with Api(Path(arguments[0])) as api:
        api.apply(storage_class())
        for claims in api.states("persistentvolumeclaims", everywhere=True):
            for claim in filter(is_waiting, list(claims.values())):
                provide(api, claim, place, nodes)


if __name__ == "__main__":
    main(sys.argv[1:])
