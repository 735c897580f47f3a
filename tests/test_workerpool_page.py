"""Nothing of a WorkerPool gets into its reference without a word about it."""

from copy import deepcopy
from enum import StrEnum
from typing import Any

import pytest
import workerpool_page
from toolchain import ROOT
from workerpool_page import Undescribed, definition, fields, kind_of

from jangada_operator.workerpool.reasons import Happening, State, Trouble
from jangada_queue.policy.decide import Limit, Reason

FINE: set[StrEnum] = {
    *(State.MANAGED, State.FRESH, State.UNLIMITED, State.ACTIVE),
    *(Happening.SCALED_UP, Happening.SCALED_DOWN),
    *(Happening.DRAIN_STARTED, Happening.DRAIN_CANCELLED),
}
SPEC: dict[str, Any] = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_every_field_of_the_definition_is_in_the_page() -> None:
    page = workerpool_page.page()
    paths = [each.path.partition(".")[2] for each in fields(SPEC, "")]
    assert {"floors[].cron", "conditions[].reason", "broker.secretKeyRef.key"} <= set(paths)
    missing = [path for path in paths if path and f"| `{path}` |" not in page]
    assert [path for path in missing if not path.startswith("decisions[].")] == []


@pytest.mark.parametrize(
    "path", [("spec", "replicas"), ("spec", "floors"), ("status", "conditions")]
)
def test_a_field_without_a_description_is_refused(path: tuple[str, ...]) -> None:
    changed = deepcopy(SPEC)
    parent: dict[str, Any] = changed
    for name in path:
        parent = parent["properties"][name]
    parent.get("items", parent)["properties"]["fresh"] = {"type": "string"}
    with pytest.raises(Undescribed, match=r"fresh has no description"):
        list(fields(changed, ""))


def test_a_word_that_nobody_explained_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Words(StrEnum):
        NEW = "New"

    monkeypatch.setattr(workerpool_page, "Trouble", Words)
    with pytest.raises(Undescribed, match=r"Words\.NEW isn't explained"):
        workerpool_page.page()


def test_the_runbook_has_a_line_for_all_that_goes_wrong() -> None:
    page = (ROOT / "docs/runbooks/pool-does-not-scale.md").read_text("utf-8")
    words = {*Trouble, *State, *Happening, *Limit, Reason.STALE} - FINE
    assert (
        sorted(
            word for word in words if f"`{word}`" not in page and f"`limitedBy: {word}`" not in page
        )
        == []
    )


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 10000}, "integer, 1 to 10,000"),
        ({"type": "integer", "minimum": 1}, "integer, at least 1"),
        ({"type": "string", "enum": ["a", "b"]}, "`a` or `b`"),
        ({"type": "string", "minLength": 1, "maxLength": 9}, "string, 1 to 9 letters"),
        (
            {"type": "array", "maxItems": 3, "items": {"type": "object"}},
            "list of object, at most 3",
        ),
    ],
)
def test_a_type_is_told_with_its_bounds(schema: dict[str, Any], kind: str) -> None:
    assert kind_of(schema) == kind
