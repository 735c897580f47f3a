"""Writes the chart's README from its `values.yaml`: a row for each key that has a comment `# --`.

Raises `Unexplained` for a key at the top that has none, nor any inside of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from chart import CHART

PREFACE: Final = """\
# jangada

A secure multi-tenant API, durable background jobs, and workers that follow their queues.

```
helm install shop charts/jangada --namespace shop --create-namespace --set dev.enabled=true
```

tries it out, with a PostgreSQL and a Valkey of its own in single pods.
[Install](../../docs/guides/install.md) says how it is done for good,
[Upgrade, and back](../../docs/guides/upgrade.md) how it is upgraded, and
[Argo CD and Flux](../../docs/guides/gitops.md) how those do it. What has changed, and what to do
before an upgrade: [CHANGELOG.md](CHANGELOG.md). All images of a release: [images.txt](images.txt).
`values.schema.json` refuses what [values.yaml](values.yaml) doesn't have; each row below is a key
that is explained there.

## Values

Generated from `values.yaml`.

| value | default | |
|---|---|---|
"""
KEY: Final = re.compile(r"^(?P<indent> *)(?:- )?(?P<name>[A-Za-z]+):")
EXPLAINED: Final = "# -- "


class Unexplained(Exception):
    """A value that nobody has said anything about."""


@dataclass(slots=True)
class Reader:
    """Goes through the lines: where it is, and what was said about what comes next."""

    path: list[tuple[int, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def read(self, line: str) -> tuple[str, str] | None:
        """A key and what is said of it, when the line holds one that something is said of."""
        text = line.strip().removeprefix("- ")
        if text.startswith(EXPLAINED):
            self.said = [text.removeprefix(EXPLAINED)]
        elif text.startswith("# ") and self.said:
            self.said.append(text.removeprefix("# "))
        elif found := KEY.match(line):
            return self._take(found)
        elif not text:
            self.said = []
        return None

    def _take(self, found: re.Match[str]) -> tuple[str, str] | None:
        depth = len(found["indent"]) + 2 * found[0].lstrip().startswith("- ")
        self.path = [each for each in self.path if each[0] < depth]
        self.path.append((depth, found["name"]))
        explained, self.said = " ".join(self.said), []
        return (".".join(name for _, name in self.path), explained) if explained else None


def page() -> str:
    """The README."""
    text = (CHART / "values.yaml").read_text("utf-8")
    rows = dict(explained(text))
    values = yaml.safe_load(text)
    for name in values:
        if not any(key == name or key.startswith(f"{name}.") for key in rows):
            raise Unexplained(f"charts/jangada/values.yaml says nothing of {name}: add `# --`.")
    return PREFACE + "".join(row(key, said, values) for key, said in rows.items())


def explained(text: str) -> Iterator[tuple[str, str]]:
    reader = Reader()
    for line in text.splitlines():
        if found := reader.read(line):
            yield found


def row(key: str, said: str, values: Any) -> str:  # noqa: ANN401 - of many types
    for part in key.split("."):
        values = values[0] if isinstance(values, list) else values
        values = values[part]
    shown = f"`{default(values)}`" if is_short(values) else ""
    name = key.replace("workers.", "workers[].")
    return f"| `{name}` | {shown} | {said} |\n"


def default(value: Any) -> str:  # noqa: ANN401 - as above
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def is_short(value: Any) -> bool:  # noqa: ANN401 - as above
    return not isinstance(value, dict | list) or len(default(value)) <= 60  # noqa: PLR2004 - a table's column
