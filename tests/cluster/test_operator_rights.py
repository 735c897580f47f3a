"""What an operator may not see it doesn't take for absent."""

from pathlib import Path
from typing import Any

import pytest
from cluster.bed import Bed
from cluster.field import Field
from cluster.operators import ACCOUNT, operator
from cluster.pools import pool, wait_condition

pytestmark = [pytest.mark.cluster, pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_without_the_right_to_list_pods_a_pool_says_so_until_it_is_granted(
    place: Field, installed: Bed, tmp_path: Path
) -> None:
    place.deploy("worker", replicas=2, grace=600)
    await place.wait_working("worker", 2)
    role: Any = place.api.get("clusterroles", ACCOUNT)
    less = [rule for rule in role["rules"] if "pods" not in rule["resources"]]
    place.api.patch("clusterroles", ACCOUNT, {"rules": less})
    try:
        with operator(installed, tmp_path) as running:
            place.api.apply(pool("adding", "worker", place.queue))
            found = wait_condition(place.api, "adding", "Ready", "False", "Forbidden")
            ready = next(each for each in found["status"]["conditions"] if each["type"] == "Ready")
            assert "may not list pods, watch pods" in ready["message"]
            assert len(place.pods("worker")) == 2
            place.api.patch("clusterroles", ACCOUNT, {"rules": role["rules"]})
            wait_condition(place.api, "adding", "Ready", "True", "Managed")
            assert running.child.is_running
    finally:
        place.api.patch("clusterroles", ACCOUNT, {"rules": role["rules"]})
