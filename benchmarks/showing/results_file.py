"""The JSON file of a run, of the CPU's benchmarks and the GPU's alike: what tables, pages and comparisons are made from.

A run may also lie in a folder, in several files whose rows belong together: `make gpu-check` writes one a stage.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
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
    """One line a row, so that a diff of two runs can be read. A file that was there stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"{json.dumps(key)}: {json.dumps(value, indent=1)}" for key, value in run.items() if key not in LINES]
    for key in LINES:
        lines = ",\n".join(json.dumps(item) for item in run.get(key, []))
        parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")
    os.replace(unfinished, path)


def write_json(path: Path, suite: str, environment: dict[str, Any], rows: Sequence[Row], verdicts: Sequence[Verdict]) -> None:
    """A run that took time only."""
    write(path, as_run(suite, environment, rows, verdicts))


def add_quality(path: Path, quality: Sequence[QualityRow]) -> None:
    """Adds findings to a file that exists."""
    run = read(path)
    write(path, run | {"quality": [row.as_json() for row in quality]})


def read(path: Path) -> Run:
    """A run from its file, or from a folder: all rows of the files there that are runs, under the first one's environment.

    Raises:
        ResultsError: there is none, or it is no run.
    """
    if path.is_dir():
        return _together(path, filter(_is_run, (_parsed(file) for file in sorted(path.glob("*.json")))))
    run: Run = _parsed(path)
    if not _is_run(run):
        raise ResultsError(f"{path} must have `environment` and `rows`. Measure again.")
    return run


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{path} must exist, and does not. `python -m benchmarks --json {path}` writes it.") from None
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path} must be JSON, got {error}. Measure again.") from None


def _is_run(run: Any) -> bool:
    return isinstance(run, dict) and {"environment", "rows"} <= set(run)


def _together(folder: Path, runs: Iterable[Run]) -> Run:
    """One run. Of a target that several files judge, the row that comes off worst counts, as everywhere."""
    runs = list(runs)
    if not runs:
        raise ResultsError(f"{folder} must have a file with `environment` and `rows`. Measure again.")
    verdicts: dict[str, dict[str, Any]] = {}
    for verdict in (verdict for run in runs for verdict in run.get("targets", ())):
        kept = verdicts.setdefault(json.dumps(verdict["target"]), verdict)
        if verdict["measured"] and (not kept["measured"] or verdict["measured"]["median"] < kept["measured"]["median"]):
            verdicts[json.dumps(verdict["target"])] = verdict  # more is better in all targets of a GPU, whose runs these are
    together = {key: [item for run in runs for item in run.get(key, ())] for key in ("rows", "quality")}
    return runs[0] | together | {"suite": "all", "targets": list(verdicts.values())}
