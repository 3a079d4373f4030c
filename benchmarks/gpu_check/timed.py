"""The stages that take time: rows of the benchmarks, against all peers that are installed, in files that ``showing`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..contestants import BASELINE, OURS
from ..cuda import cases, session
from ..measuring.correctness import WrongValuesError
from ..showing import results_file
from .stages import Status

__all__ = ["fill_2_26", "fill_2_28", "models", "sizes"]

Answer = tuple[Status, str]
LARGE, MIDDLE = (2**28,), (2**26,)
OTHERS = (2**30, 2**32, *(2**power for power in (10, 14, 18, 20, 22, 24)))


def fill_2_28(file: Path, seconds: float) -> Answer:
    """One tensor of 2^28 values: every distribution, float32 and bfloat16."""
    return _measured("fill", file, seconds, LARGE)


def fill_2_26(file: Path, seconds: float) -> Answer:
    """The same with 2^26 values."""
    return _measured("fill", file, seconds, MIDDLE)


def models(file: Path, seconds: float) -> Answer:
    """Whole models."""
    return _measured("model", file, seconds, None)


def sizes(file: Path, seconds: float) -> Answer:
    """Huge tensors, then small ones."""
    return _measured("fill", file, seconds, OTHERS)


def _measured(suite: str, file: Path, seconds: float, of: Sequence[int] | None) -> Answer:
    wanted = len(cases.cases(suite, of))
    try:
        if session.run(suite, file, of, seconds=seconds):
            return Status.UNUSABLE, session.why_not()
    except WrongValuesError as error:
        return Status.WRONG, str(error)
    if not file.exists():
        return Status.CUT_SHORT, f"no row of {wanted} in time"
    run = results_file.read(file)
    status = Status.FINE if len(run["rows"]) == wanted else Status.CUT_SHORT
    return status, f"{len(run['rows'])} of {wanted} rows; {_headline(run)}"


def _headline(run: results_file.Run) -> str:
    """How many targets are met, and the row in which ours comes off worst against torch.nn.init."""
    judged = [verdict["met"] for verdict in run["targets"] if verdict["measured"]]
    ratios = [(row["ratios"].get(OURS, {}).get(BASELINE), row["name"]) for row in run["rows"]]
    known = [(spread["median"], name) for spread, name in ratios if spread]
    worst = f"; least against {BASELINE}: {min(known)[0]:.3g} x in {min(known)[1]}" if known else ""
    return f"{sum(met in ('yes', 'stretch') for met in judged)} of {len(judged)} targets met{worst}"
