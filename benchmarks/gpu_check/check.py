"""One stage after the other within the budget; check.json says after each what became of it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

from . import module
from .files import write_json
from .processes import Ended, run
from .stages import STAGES, Stage, State, Status, granted

__all__ = ["Check", "Outcome"]

ROOT = Path(__file__).resolve().parents[2]
LEAST = 2.0  # seconds with which a stage is begun
OF_A_STAGE = 0.9  # of its limit: until then it begins something new
AT_THE_END = 3.0  # seconds kept for the table
STATES: dict[int, State] = {
    Status.FINE: State.FINE,
    Status.WRONG: State.WRONG,
    Status.CUT_SHORT: State.CUT_SHORT,
    Status.LEFT_OUT: State.LEFT_OUT,
    Status.UNUSABLE: State.UNUSABLE,
}


@dataclass
class Outcome:
    """What became of a stage.

    Args:
        limit: the seconds that it was granted.
        said: in a line, what it found, or why it found nothing.
        output: the end of what it printed.
    """

    stage: Stage
    state: State = State.NOT_BEGUN
    seconds: float = 0.0
    limit: float = 0.0
    said: str = ""
    output: str = ""


@dataclass
class Check:
    """All stages, what became of them, and what those that write no file found.

    Args:
        seconds: the budget, from now on.
        out: the folder; made if it is not there.
        emulated: with the CPU in the GPU's place.
        show: is told of each stage before it begins and after it ended.
    """

    seconds: float
    out: Path
    emulated: bool = False
    stages: Sequence[Stage] = STAGES
    show: Callable[[str], object] = print
    found: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(init=False)
    begin: float = field(init=False, default_factory=perf_counter)

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.outcomes = [Outcome(stage) for stage in self.stages]

    @property
    def passed(self) -> bool:
        """A GPU was seen, no bit differs, and no stage was lost."""
        return all(outcome.state in (State.FINE, State.LEFT_OUT) for outcome in self.outcomes)

    def run(self) -> bool:
        """Runs all stages, whatever becomes of one of them, unless there is nothing to run them on."""
        unusable = ""
        for number, outcome in enumerate(self.outcomes):
            if unusable:
                outcome.said = unusable
                continue
            self._run(outcome, self.stages[number:])
            self.show("\n".join(_lines_about(outcome)))
            self._write()
            if outcome.state is State.UNUSABLE:
                unusable = outcome.said
        self._write()
        return self.passed

    def interrupted(self) -> None:
        """Says so of the stage that was running, and of all after it."""
        for outcome in self.outcomes:
            if outcome.state is State.NOT_BEGUN:
                outcome.state, outcome.said = State.LOST, "the whole check was interrupted"
        self._write()

    def _run(self, outcome: Outcome, stages: Sequence[Stage]) -> None:
        stage = outcome.stage
        left = self.seconds - AT_THE_END - (perf_counter() - self.begin)
        if left < LEAST:
            outcome.state, outcome.said = State.LOST, f"the budget of {self.seconds:g} s was spent before it"
            return
        limit = outcome.limit = granted(stages, left)
        self.show(f"== {perf_counter() - self.begin:.0f} s: {stage.name}, {limit:.0f} s at most: {stage.what}")
        with tempfile.TemporaryDirectory() as folder:
            file = self.out / stage.file if stage.file else Path(folder, "found.json")
            file.unlink(missing_ok=True)  # of a run before: nothing old may look new
            ended = run(stage.command or self._command(stage, file, limit), limit, ROOT, _environment())
            if not stage.file and file.exists():
                self.found[stage.name] = json.loads(file.read_text(encoding="utf-8"))
        outcome.seconds, outcome.output = ended.seconds, ended.output
        outcome.state, outcome.said = _judged(ended, limit)

    def _command(self, stage: Stage, file: Path, limit: float) -> list[str]:
        of_its_own = ["--seconds", f"{OF_A_STAGE * limit:.1f}", *(["--emulate"] if self.emulated else [])]
        return [sys.executable, "-m", "benchmarks.gpu_check.work", stage.name, str(file.resolve()), *of_its_own]

    def _write(self) -> None:
        stages = [
            {
                "name": outcome.stage.name,
                "state": outcome.state.value,
                "seconds": round(outcome.seconds, 2),
                "limit": round(outcome.limit, 1),
                "file": outcome.stage.file,
                "said": outcome.said,
                "output": outcome.output,
            }
            for outcome in self.outcomes
        ]
        whole = {
            "program": "benchmarks.gpu_check",
            "passed": self.passed,
            "emulated": self.emulated,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": [round(perf_counter() - self.begin, 1), self.seconds],
            "found": self.found,
            "stages": stages,
        }
        write_json(self.out / "check.json", whole)


def _environment() -> dict[str, str]:
    """Of a stage: the tree's own packages first; a GPU is insisted on; the commit, of which a copied tree knows nothing."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    known = {"WEIGHTINIT_COMMIT": stamp.commit} if (stamp := module.stamp()) else {}
    return os.environ | known | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "WEIGHTINIT_CUDA": "1"}


def _judged(ended: Ended, limit: float) -> tuple[State, str]:
    last = ended.last_line
    if ended.status is None:
        return State.LOST, f"ended at its limit of {limit:.1f} s; last: {last}"
    if ended.status in STATES:
        return STATES[ended.status], last
    how = f"signal {-ended.status}" if ended.status < 0 else f"exit status {ended.status}"
    return State.LOST, f"broke off ({how}): {last}"


def _lines_about(outcome: Outcome) -> Iterator[str]:
    if outcome.output.strip():
        yield outcome.output.rstrip()
    yield f"== {outcome.stage.name}: {outcome.state.value} after {outcome.seconds:.1f} s"
