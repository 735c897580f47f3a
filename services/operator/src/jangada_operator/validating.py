"""The definition of `WorkerPool`, and what it refuses, said without an API server.

Bounds and types are read from the definition itself. Its rules are in CEL: each is known here by
its message, and one that nobody put here is an error, not a rule that is passed over.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from jangada_operator import definition
from jangada_operator.durations import parse_duration
from jangada_operator.workerpool.spec import InvalidSpec

type Schema = Mapping[str, Any]

KINDS: Final[Mapping[str, tuple[type, str]]] = {
    "string": (str, "text"),
    "integer": (int, "a whole number"),
    "boolean": (bool, "true or false"),
    "array": (list, "a list"),
    "object": (dict, "an object with fields"),
}
SPAN: Final = re.compile(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+")


BOUNDS: Final[Mapping[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "enum": (lambda value, names: value in names, "must be one of {}"),
    "minimum": (lambda value, least: value >= least, "must be at least {}"),
    "maximum": (lambda value, most: value <= most, "must be at most {}"),
    "minLength": (lambda value, least: len(value) >= least, "must have at least {} letters"),
    "maxLength": (lambda value, most: len(value) <= most, "must have at most {} letters"),
    "pattern": (lambda value, form: re.search(form, value) is not None, "must be like {}"),
    "minItems": (lambda value, least: len(value) >= least, "must have at least {} items"),
    "maxItems": (lambda value, most: len(value) <= most, "must have at most {} items"),
}


def _is_span(least: str, most: str) -> Callable[[Any], bool]:
    def check(text: str) -> bool:
        if SPAN.fullmatch(text) is None:
            return False
        try:
            span = parse_duration(text)
        except ValueError:  # longer than any can be
            return False
        return parse_duration(least) <= span <= parse_duration(most)

    return check


LONGEST: Final = "876000h"
"""What CEL's durations can be is longer still, and ours can't."""

RULES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "min must not be above max": lambda it: it.get("min", 0) <= it["max"],
    "no floor may be above replicas.max": lambda it: all(
        each["min"] <= it["replicas"]["max"] for each in it.get("floors", ())
    ),
    "startWithin must be a duration of at least 100ms: 5s or 1m30s, for example": _is_span(
        "100ms", LONGEST
    ),
    "after must be a duration: 60s or 5m, for example": _is_span("0s", LONGEST),
    "drainDeadline must be a duration: 1h or 90m, for example": _is_span("0s", LONGEST),
    "duration must be at most 7 days: 10h, for example": _is_span("0.001ms", "168h"),
    # What it was before isn't to be seen here: `check_change` looks.
    "the target can't be changed: create another WorkerPool": lambda _: True,
}


def spec_schema() -> Schema:
    """What `.spec` may be."""
    found: Schema = definition.schema()["properties"]["spec"]
    return found


def schema_of(path: str) -> Schema:
    """Of a field of the spec, `replicas.max`. Raises `InvalidSpec` where there is none."""
    schema, walked = spec_schema(), ""
    for name in path.split("."):
        if schema["type"] == "array":
            raise InvalidSpec(f"{walked} is a list, which is given as a whole, in JSON")
        known = schema.get("properties") or {}
        if name not in known:
            raise InvalidSpec(_unknown(walked, name, known))
        walked = f"{walked}.{name}".removeprefix(".")
        schema = known[name]
    return schema


def check_spec(spec: Any) -> None:  # noqa: ANN401 - as it was written
    """Raises `InvalidSpec` with all that an API server would refuse of a new pool."""
    if found := problems_of(spec):
        raise InvalidSpec("; ".join(found))


def problems_of(spec: Any) -> list[str]:  # noqa: ANN401 - as above
    """Each with its field."""
    return list(_problems(spec, spec_schema(), ""))


def check_change(before: Schema, after: Schema) -> None:
    """As `check_spec`, for a pool that is there."""
    check_spec(after)
    if after["scaleTargetRef"]["name"] != before["scaleTargetRef"]["name"]:
        raise InvalidSpec("scaleTargetRef: the target can't be changed: create another WorkerPool")


def _problems(value: Any, schema: Schema, path: str) -> Iterator[str]:  # noqa: ANN401 - as it was written
    """Of a value and all in it. Rules are asked of what has no other problem."""
    kind, words = KINDS[schema["type"]]
    name = path or "spec"
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield f"{name} must be {words}, and is {value!r}"
        return
    found = [*_out_of_bounds(value, schema, name), *_below(value, schema, path)]
    yield from found
    if found:
        return
    for rule in schema.get("x-kubernetes-validations") or ():
        if not RULES[rule["message"]](value):
            is_text = isinstance(value, str)
            yield f"{name}: {rule['message']}" + (f"; it is {value!r}" if is_text else "")


def _out_of_bounds(value: Any, schema: Schema, name: str) -> Iterator[str]:  # noqa: ANN401 - as above
    for word, (is_kept, text) in BOUNDS.items():
        if word in schema and not is_kept(value, schema[word]):
            bound = schema[word]
            told = ", ".join(bound) if isinstance(bound, list) else bound
            yield f"{name} {text.format(told)}, and is {value!r}"
    if schema.get("x-kubernetes-list-type") == "set" and len(set(map(str, value))) < len(value):
        yield f"{name} has something twice: {value!r}"


def _below(value: Any, schema: Schema, path: str) -> Iterator[str]:  # noqa: ANN401 - as above
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from _problems(each, schema["items"], f"{path}[{number}]")
    elif isinstance(value, dict):
        known = schema.get("properties") or {}
        for name in schema.get("required") or ():
            if name not in value:
                yield f"{path}.{name} is missing".removeprefix(".")
        for name, each in value.items():
            if name not in known:
                yield _unknown(path, name, known)
            else:
                yield from _problems(each, known[name], f"{path}.{name}".removeprefix("."))


def _unknown(path: str, name: str, known: Schema) -> str:
    full = f"{path}.{name}".removeprefix(".")
    if not known:
        return f"{full} is no field: {path} has none"
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{full} is no field: {hint}{path or 'the spec'} has {', '.join(known)}"
