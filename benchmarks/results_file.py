"""The JSON file of a run, of the CPU's benchmarks and the GPU's alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .row import Row
from .targets import Verdict

__all__ = ["SCHEMA", "write_json"]

SCHEMA = 1


def write_json(path: Path, suite: str, environment: dict[str, Any], rows: Sequence[Row], verdicts: Sequence[Verdict]) -> None:
    """The whole run, one line a row, so that a diff of two runs can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"schema": SCHEMA, "suite": suite, "environment": environment}
    parts = [f"{json.dumps(key)}: {json.dumps(value, indent=1)}" for key, value in head.items()]
    for key, items in (("rows", rows), ("targets", verdicts)):
        lines = ",\n".join(json.dumps(item.as_json()) for item in items)
        parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
    path.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")
