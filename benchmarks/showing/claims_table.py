"""The suite ``claims`` as a table: in the terminal, and as docs/claims.md, from the same committed JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..measuring.environment import environment
from ..suites.claims import CLAIMS, Claim, measure

__all__ = ["PAGE", "RESULTS", "page", "run", "update"]

RESULTS = Path(__file__).parents[1] / "results" / "claims.json"
PAGE = Path(__file__).parents[2] / "docs" / "claims.md"
INTRODUCTION = """# What papers say, measured again

`python -m benchmarks --suite claims --json benchmarks/results/claims.json` measures each of these claims with this library on
small nets, and `make readme-table` writes this page. One thread, fixed seeds, plain SGD but for muP (Adam); code:
`benchmarks/suites/claims.py`.
"""
HEADERS = ("claim", "source", "expected", "measured", "agrees", "seconds")


def run(file: Path | None, claims: Sequence[Claim] = CLAIMS) -> int:
    """Measures, shows each line as it comes, writes the file; 1 if a claim does not hold here."""
    rows = []
    for row in measure(claims):
        rows.append(row)
        print(f"{'holds' if row['holds'] else 'NOT SO'}: {row['claim']}: {row['measured']} ({row['seconds']} s)", flush=True)
    if file is not None:
        found = {"suite": "claims", "environment": environment([1]), "claims": rows}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"written: {file}")
    return 0 if all(row["holds"] for row in rows) else 1


def page(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    at = found["environment"]
    lines = ["| " + " | ".join(HEADERS) + " |", "|---" * len(HEADERS) + "|"]
    for row in found["claims"]:
        cells = {**row, "agrees": "yes" if row["holds"] else "no"}
        lines.append("| " + " | ".join(str(cells[header]) for header in HEADERS) + " |")
    where = f"Seconds of CPU on {at['cpu']}, torch {at['versions']['torch']}, {at['time'][:10]}."
    return "\n".join([INTRODUCTION, *lines, "", where, ""])


def update(check: bool = False) -> bool:
    """Writes the page, or only compares; whether it was there already."""
    wanted = page(json.loads(RESULTS.read_text(encoding="utf-8")))
    same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted
    if not check and not same:
        PAGE.write_text(wanted, encoding="utf-8")
    return same
