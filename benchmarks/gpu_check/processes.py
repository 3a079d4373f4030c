"""Runs one command as a process group that is ended in time, whatever it does, with all that it started.

The output goes to a file and not through a pipe: whoever outlives its group cannot make the reader wait.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

__all__ = ["Ended", "run"]

KEPT = 12_000  # characters of the output, the last ones


class Ended(NamedTuple):
    """How a process ended.

    Args:
        status: its exit status, negative for a signal; None if it had to be ended.
        output: the end of what it printed.
    """

    status: int | None
    seconds: float
    output: str

    @property
    def last_line(self) -> str:
        return next((line.strip() for line in reversed(self.output.splitlines()) if line.strip()), "")


def run(command: Sequence[str], limit: float, cwd: Path, environment: Mapping[str, str], grace: float = 3.0) -> Ended:
    """Runs the command. At the limit its group is interrupted, as by Ctrl-C, and after the grace killed.

    Args:
        limit: seconds, the grace included.
    """
    start = perf_counter()
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Ended(127, perf_counter() - start, str(error))
        status: int | None = None
        try:
            grace = min(grace, limit / 2)
            status = _waited(process, limit - grace)
            if status is None:
                _signal(process, signal.SIGINT)  # a test runner writes its report now
                _waited(process, grace)
        finally:
            _signal(process, signal.SIGKILL)  # what is left of the group, even if its leader has ended
            _waited(process, grace)  # a process in the driver may take the signal later than anyone can wait
        return Ended(status, perf_counter() - start, _end_of(output.fileno()))


def _waited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the group, whose number is that of its leader."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end_of(output: int) -> str:
    size = os.fstat(output).st_size
    return os.pread(output, KEPT, max(0, size - KEPT)).decode(errors="replace")
