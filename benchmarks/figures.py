"""A measured figure beside its reference and its goal; how they are summed up, shown and written."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Figure:
    name: str
    measured: float
    unit: str
    #: What it is compared with, in the same unit; None for a figure that stands alone.
    reference: float | None = None
    reference_name: str = ""
    #: Goal for the ratio where there is a reference, else for the figure.
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.measured / self.reference if self.reference else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        value = self.measured if self.ratio is None else self.ratio
        if self.at_most is not None:
            return value <= self.at_most
        if self.at_least is not None:
            return value >= self.at_least
        return None

    @property
    def goal(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return ""

    def as_row(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile."""
    ranked = sorted(values)
    rank = max(1, -(-len(ranked) * percent // 100))
    return ranked[int(rank) - 1]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(figures: Sequence[Figure]) -> str:
    """Lay the figures out for a terminal."""
    rows = [("figure", "measured", "reference", "ratio", "goal", "")]
    for f in figures:
        reference = f"{f.reference:,.1f} {f.reference_name}" if f.reference is not None else ""
        ratio = f"{f.ratio:.2f}" if f.ratio is not None else ""
        verdict = {True: "met", False: "MISSED", None: ""}[f.met]
        rows.append((f.name, f"{f.measured:,.1f} {f.unit}", reference, ratio, f.goal, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def write(figures: Sequence[Figure], *, quick: bool, begun: str) -> Path:
    """Write the figures with the machine they were measured on; return the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{begun}{'-quick' if quick else ''}.json"
    document = {
        "begun": begun,
        "quick": quick,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "figures": [figure.as_row() for figure in figures],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path
