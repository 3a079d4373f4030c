"""The JSON file of a run, of the CPU's benchmarks and the GPU's alike: what tables, pages and comparisons are made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..measuring.row import Row
from .targets import Verdict

if TYPE_CHECKING:
    from ..quality import QualityRow  # needs scipy

__all__ = ["SCHEMA", "ResultsError", "Run", "add_quality", "as_run", "read", "write", "write_json"]

SCHEMA = 2
Run = dict[str, Any]
LINES = ("rows", "targets", "quality")  # one line an item


class ResultsError(Exception):
    """A file is no run; the message says what to do."""


def as_run(
    suite: str,
    environment: dict[str, Any],
    rows: Sequence[Row],
    verdicts: Sequence[Verdict],
    quality: Sequence[QualityRow] = (),
) -> Run:
    """The whole run as plain data."""
    items = {"rows": rows, "targets": verdicts, "quality": quality}
    plain = {key: [item.as_json() for item in list_of] for key, list_of in items.items()}  # type: ignore[attr-defined]
    return {"schema": SCHEMA, "suite": suite, "environment": environment} | plain


def write(path: Path, run: Run) -> None:
    """One line a row, so that a diff of two runs can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"{json.dumps(key)}: {json.dumps(value, indent=1)}" for key, value in run.items() if key not in LINES]
    for key in LINES:
        lines = ",\n".join(json.dumps(item) for item in run.get(key, []))
        parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
    path.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def write_json(path: Path, suite: str, environment: dict[str, Any], rows: Sequence[Row], verdicts: Sequence[Verdict]) -> None:
    """A run that took time only."""
    write(path, as_run(suite, environment, rows, verdicts))


def add_quality(path: Path, quality: Sequence[QualityRow]) -> None:
    """Adds findings to a file that exists."""
    run = read(path)
    write(path, run | {"quality": [row.as_json() for row in quality]})


def read(path: Path) -> Run:
    """A run from its file.

    Raises:
        ResultsError: there is none, or it is no run.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{path} must exist, and does not. `python -m benchmarks --json {path}` writes it.") from None
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path} must be JSON, got {error}. Measure again.") from None
    if not isinstance(run, dict) or not {"environment", "rows"} <= set(run):
        raise ResultsError(f"{path} must have `environment` and `rows`. Measure again.")
    return run
