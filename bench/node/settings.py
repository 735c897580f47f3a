"""What containerd, the network of pods, the kubelet and kube-proxy are told."""

import json
from pathlib import Path
from typing import Final

NODE: Final = "node-0"
ADDRESS: Final = "10.88.0.1"
"""The node's, in its own network; its name server listens there, too."""

SERVICES: Final = "10.96.0.1"
"""The first address of all Services: that of the API server."""

PODS: Final = "10.244.0.0/24"
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


def write(place: Path, *, socket: Path, plugins: Path, group: str, authority: Path) -> None:
    """All of them, into the folder that goes with the node."""
    (place / "network").mkdir(parents=True)
    (place / "resolv.conf").touch()
    told = {"place": place, "socket": socket, "plugins": plugins, "sandbox": SANDBOX}
    (place / "containerd.toml").write_text(CONTAINERD.format(**told), "utf-8")
    _write_json(place / "network/10-pods.conflist", network(place))
    _write_json(place / "kubelet.json", kubelet(place, socket, group, authority))


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), "utf-8")


def network(place: Path) -> object:
    """A cable from the node to each pod: all that pods say to each other, the node routes."""
    addresses = {
        "type": "host-local",
        "dataDir": str(place / "addresses"),
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": addresses}],
    }


def kubelet(place: Path, socket: Path, group: str, authority: Path) -> object:
    """On a machine that it shares with others, whose disk and memory aren't its to watch."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{group}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "address": "0.0.0.0",  # noqa: S104 - inside of a network of its own
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
        *("--proxy-mode=nftables", f"--hostname-override={NODE}", f"--cluster-cidr={PODS}"),
        *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"),
        *("--conntrack-tcp-timeout-close-wait=0", "--oom-score-adj=0"),
        *("--healthz-bind-address=127.0.0.1", "--metrics-bind-address=127.0.0.1"),
    ]
