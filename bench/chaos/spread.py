"""Seconds that something took, many times."""

from dataclasses import dataclass, field
from typing import override


@dataclass(slots=True)
class Spread:
    """All values are kept, so that percentiles are exact."""

    values: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        self.values.append(seconds)

    def __len__(self) -> int:
        return len(self.values)

    def at(self, part: float) -> float:
        ordered = sorted(self.values)
        return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0

    @property
    def p99(self) -> float:
        return self.at(0.99)

    @override
    def __str__(self) -> str:
        return f"p50 {self.at(0.5):.1f} s, p99 {self.p99:.1f} s, most {self.at(1.0):.1f} s"
