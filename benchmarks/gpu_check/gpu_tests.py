"""All tests of tests/gpu under pytest, with a report in JUnit's XML; no test is begun when the time is over."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from time import perf_counter
from typing import Any

from .stages import Status

__all__ = ["run"]

ROOT = Path(__file__).resolve().parents[2]
PLACE = "tests/gpu/test_*.py"
HANGING = 60  # seconds
LAST = "test_gpu_bits.py"  # the longest, and the stage `bits` has looked at most of it


class Counting:
    """A plugin that counts, and ends the session in time: what was run is in the report then."""

    def __init__(self, seconds: float) -> None:
        self.end = perf_counter() + seconds
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.in_time = True

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1

    def pytest_collectreport(self, report: Any) -> None:
        self.counts["failed"] += report.outcome == "failed"

    def pytest_runtest_teardown(self, item: Any, nextitem: Any) -> None:
        if nextitem is not None and perf_counter() > self.end:
            item.session.shouldstop = "the time of this stage is over"
            self.in_time = False


def run(file: Path, seconds: float) -> tuple[Status, str]:
    """Runs them in this process."""
    if importlib.util.find_spec("pytest") is None:
        return Status.LEFT_OUT, "pytest is not installed"
    pytest: Any = importlib.import_module("pytest")
    counting = Counting(seconds)
    files = sorted(ROOT.glob(PLACE), key=lambda path: (path.name == LAST, path.name))
    how = ["-v", "--tb=short", "-p", "no:cacheprovider", "--durations=10", f"--junitxml={file}", f"--rootdir={ROOT}"]
    hanging = ["-o", f"faulthandler_timeout={HANGING}"]  # says where; and -v names the test before it begins
    status = pytest.main([*how, *hanging, *map(str, files)], plugins=[counting])
    said = ", ".join(f"{count} {outcome}" for outcome, count in counting.counts.items() if count) or "no test was run"
    if counting.counts["failed"] or not counting.counts["passed"]:
        return Status.WRONG, said
    if not counting.in_time:
        return Status.CUT_SHORT, f"{said}; then the time was over"
    return (Status.FINE if status == 0 else Status.WRONG), said
