"""`helm test` on real pods: it passes where all works, and else says what doesn't."""

from collections.abc import Callable

import pytest
from node.release import NAME, PART, WORKERS, Release, ReleaseFailed

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]

MADE = ("pods", "serviceaccounts", "roles", "rolebindings", "networkpolicies")


def checked(shop: Release, *options: str) -> str:
    return shop.helm("test", NAME, "--timeout=300s", *options)


def left(shop: Release) -> list[str]:
    found = [each for kind in MADE for each in shop.api.list(kind, selector=f"{PART}=test")]
    return [f"{each['metadata']['name']}: {each.get('status')}" for each in found]


def accounts(shop: Release) -> int:
    said = shop.sql("SELECT count(*) FROM users WHERE email LIKE 'check-%'")
    return int(said)


def test_it_passes_and_leaves_nothing(shop: Release, say: Callable[[str], None]) -> None:
    said = checked(shop, "--logs")
    say(f"`helm test` said:\n{said}")
    for what in ("a job runs to its end", "the account is erased", "leads", "is looked after"):
        assert what in said
    assert left(shop) == []
    assert accounts(shop) == 0


def test_without_an_api_it_says_so(shop: Release) -> None:
    with shop.scaled({"api": 0}), pytest.raises(ReleaseFailed) as failed:
        checked(shop)
    assert f"http://{NAME}-api cannot be reached" in str(failed.value)
    assert "docs/runbooks/api-fails.md" in str(failed.value)


def test_without_an_operator_it_says_so(shop: Release) -> None:
    with shop.scaled({"operator": 0}), pytest.raises(ReleaseFailed) as failed:
        checked(shop, f"--filter=name={NAME}-operator-test")
    assert "no operator leads" in str(failed.value)


def test_without_workers_it_says_so_and_passes_again(shop: Release) -> None:
    """Without an operator nobody makes them. What failed doesn't stand in the way later."""
    with shop.scaled({"operator": 0}):
        shop.api.scale("deployments", f"{NAME}-{WORKERS}", 0)
        shop.wait_count(WORKERS, 0)
        with pytest.raises(ReleaseFailed) as failed:
            checked(shop)
    assert "No worker has taken the job after 120 s" in str(failed.value)
    assert "docs/runbooks/jobs-wait.md" in str(failed.value)
    assert accounts(shop) == 0
    checked(shop)
    assert left(shop) == []
