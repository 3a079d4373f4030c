"""``python -m benchmarks compare a.json b.json``: which rows changed by more than their spread, and on what.

A change counts if the quartiles of the two runs do not overlap and the medians differ by more than LEAST. Ratios to
torch.nn.init, taken within each run, are compared first: they do not move with the machine. Seconds of ours come with them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..contestants import BASELINE, EAGER, OURS
from .results_file import Run, read

__all__ = ["Change", "changes", "run"]

PLAIN_WIDTH = 140  # of the table in a pipe or a file
LEAST = 0.03  # relative: two runs on a quiet machine differ by less
ENVIRONMENT = ("cpu", "gpu", "cores", "isa", "versions", "python", "parallel_runtime", "huge_pages", "commit", "format")


class Change(NamedTuple):
    """A quantity of a row before and after; ``better`` is None where neither direction is."""

    row: str
    what: str
    before: float
    after: float
    better: bool | None

    @property
    def factor(self) -> float:
        return self.after / self.before if self.before else float("inf")


def run(before: Path, after: Path) -> int:
    """Prints all changes: 0, or 1 if something is slower or worse beyond the spread."""
    from rich.console import Console
    from rich.table import Table

    a, b = read(before), read(after)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    for name in ENVIRONMENT:
        if a["environment"].get(name) != b["environment"].get(name):
            console.print(f"{name}: {a['environment'].get(name)} -> {b['environment'].get(name)}", style="dim", highlight=False)
    found = list(changes(a, b))
    table = Table("row", "what", "before", "after", "after / before", "", title=f"beyond the spread: {len(found)} changes")
    for change in found:
        verdict = {True: "[green]better[/]", False: "[red]worse[/]", None: "changed"}[change.better]
        table.add_row(change.row, change.what, f"{change.before:.4g}", f"{change.after:.4g}", f"{change.factor:.3f}", verdict)
    console.print(table)
    names = [{row["name"] for row in of["rows"]} for of in (a, b)]
    console.print(f"{len(names[0] & names[1])} rows in both, {len(names[0] ^ names[1])} in one of them only")
    return int(any(change.better is False for change in found))


def changes(a: Run, b: Run) -> Iterator[Change]:
    """What differs in the rows that both runs have: time first, then quality."""
    after = {row["name"]: row for row in b["rows"]}
    for row in (row for row in a["rows"] if row["name"] in after):
        yield from _timed(row, after[row["name"]])
    found = {row["name"]: row for row in b.get("quality", [])}
    for row in (row for row in a.get("quality", []) if row["name"] in found):
        yield from _found(row, found[row["name"]])


def _timed(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Change]:
    for ours in (name for name in a["ratios"] if name in b["ratios"]):
        for usual in (BASELINE, EAGER):
            pair = a["ratios"][ours].get(usual), b["ratios"][ours].get(usual)
            if pair[0] and pair[1] and _differ(*pair):
                before, now = pair[0]["median"], pair[1]["median"]
                yield Change(a["name"], f"{usual} / {ours}", before, now, now > before)
    if OURS in a["seconds"] and OURS in b["seconds"] and _differ(a["seconds"][OURS], b["seconds"][OURS]):
        before, now = a["seconds"][OURS]["median"], b["seconds"][OURS]["median"]
        yield Change(a["name"], "seconds of ours", before, now, now < before)


def _differ(a: dict[str, float], b: dict[str, float]) -> bool:
    apart = a["p75"] < b["p25"] or b["p75"] < a["p25"]
    return apart and abs(b["median"] / a["median"] - 1.0) > LEAST


def _found(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Change]:
    """Statistics that see something in one run only. For a control it is worse not to be seen."""
    for name in sorted(set(a["seen"]) ^ set(b["seen"])):
        before, now = (_p(of, name) for of in (a, b))
        worse = (name in b["seen"]) != bool(a["control"])
        yield Change(a["name"], f"p of {name}", before, now, not worse)


def _p(row: dict[str, Any], name: str) -> float:
    return float(row["findings"].get(name, {}).get("p", 1.0))
