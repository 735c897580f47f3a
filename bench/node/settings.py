"""What containerd, the network of pods, the kubelet and kube-proxy are told."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ADDRESS: Final = "10.88.0.1"
"""The first node's, in a network of their own; the name server listens there, too."""

SERVICES: Final = "10.96.0.1"
"""The first address of all Services: that of the API server."""

PODS: Final = "10.244.0.0/16"
"""Of all nodes."""

SANDBOX: Final = "localhost/jangada-sandbox:1"
CONTAINERD: Final = """version = 2
root = "{place}/containerd"
state = "{place}/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{place}/network"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options = {{ SystemdCgroup = false }}
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """One node: its name, its address, and those of its pods."""

    name: str
    address: str
    pods: str


FIRST: Final = Machine("node-0", ADDRESS, "10.244.0.0/24")
SECOND: Final = Machine("node-1", "10.88.0.2", "10.244.1.0/24")
"""A kubelet and a containerd of their own beside the first ones, in the same namespaces: so both
see the same volumes, and the way from pod to pod is as short as on one node."""

MACHINES: Final = (FIRST, SECOND)


def socket(place: Path) -> Path:
    """Where containerd listens whose files are in this folder."""
    return place / "containerd.sock"


def write(machine: Machine, place: Path, *, plugins: Path, group: str, authority: Path) -> None:
    """All of them, into the folder that goes with the node."""
    (place / "network").mkdir(parents=True)
    (place / "resolv.conf").touch()
    told = {"place": place, "socket": socket(place), "plugins": plugins, "sandbox": SANDBOX}
    (place / "containerd.toml").write_text(CONTAINERD.format(**told), "utf-8")
    _write_json(place / "network/10-pods.conflist", network(machine, place))
    _write_json(place / "kubelet.json", kubelet(machine, place, group, authority))


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), "utf-8")


def network(machine: Machine, place: Path) -> object:
    """A cable from the node to each pod: all that pods say to each other, the node routes."""
    addresses = {
        "type": "host-local",
        "dataDir": str(place / "addresses"),
        "ranges": [[{"subnet": machine.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": addresses}],
    }


def kubelet(machine: Machine, place: Path, group: str, authority: Path) -> object:
    """On a machine that it shares with others, whose disk and memory aren't its to watch."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{socket(place)}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{group}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "address": machine.address,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(place / "resolv.conf"),
        "podLogsDir": str(place / "logs"),
        "volumePluginDir": str(place / "plugins"),
        "makeIPTablesUtilChains": False,
        "evictionHard": {
            "memory.available": "100Mi",
            **dict.fromkeys(("nodefs.available", "imagefs.available", "nodefs.inodesFree"), "1%"),
        },
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
        "maxPods": 100,
    }


def proxy() -> list[str]:
    """kube-proxy, which leaves the machine's own settings for connections alone."""
    return [
        *("--proxy-mode=nftables", f"--hostname-override={FIRST.name}", f"--cluster-cidr={PODS}"),
        *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"),
        *("--conntrack-tcp-timeout-close-wait=0", "--oom-score-adj=0"),
        *("--healthz-bind-address=127.0.0.1", "--metrics-bind-address=127.0.0.1"),
    ]
