"""The stages in the order of what they are worth, as plain data, and how the seconds are divided among them. Knows neither
torch nor how a stage is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = ["STAGES", "Stage", "State", "Status", "granted"]


class Status(IntEnum):
    """Exit statuses of a stage's process; any other means that it broke off."""

    FINE = 0
    WRONG = 10
    CUT_SHORT = 11
    LEFT_OUT = 12
    UNUSABLE = 13


class State(Enum):
    """What became of a stage. All but the first two make the check fail."""

    FINE = "fine"
    LEFT_OUT = "left out"  # what it needs is not installed here
    WRONG = "wrong"  # a bit differs, or a test failed
    CUT_SHORT = "cut short"  # its time was over; what it had found is in its file
    LOST = "lost"  # killed at its time-out, or broken off
    UNUSABLE = "unusable"  # no GPU, or no kernels for it: no later stage can find anything
    NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: as the table and the command line have it.
        what: what it is, in the table.
        limit: seconds, at most.
        least: seconds in which it finds something worth having; kept for it while the stages before it run.
        file: what it writes into the folder; empty if it is little, and goes into check.json.
        command: what to run instead of ``work``, for tests.
    """

    name: str
    what: str
    limit: float
    least: float = 0.0
    file: str = ""
    command: tuple[str, ...] = ()


# Limits are two to four times what a stage is expected to take on an H200; none has been measured yet.
STAGES: tuple[Stage, ...] = (
    Stage("device", "the GPU, its driver, torch, what is installed", 60, 20),
    Stage("build", "the native module of this Python: found, or compiled; first fill", 240, 40),
    Stage("bits", "every program, layout and alignment against the CPU", 120, 50, "bits.json"),
    Stage("fill_2_28", "one tensor of 2^28 values, against all peers", 120, 50, "fill_2_28.json"),
    Stage("models", "whole models in one call", 90, 40, "models.json"),
    Stage("fill_2_26", "one tensor of 2^26 values", 60, 30, "fill_2_26.json"),
    Stage("counters", "hardware counters of the main kernels (ncu)", 90, 40, "counters.json"),
    Stage("tests", "all GPU tests (pytest)", 180, 90, "tests.xml"),
    Stage("sizes", "2^30, 2^32 and 2^10 to 2^24 values", 120, 40, "sizes.json"),
    Stage("graphs", "CUDA graphs, streams, threads, fork, each in a fresh process", 60, 30),
)


def granted(stages: Sequence[Stage], left: float) -> float:
    """Seconds for the first of the stages that are left: at most its limit, and no more than leaves the next ones their least,
    as many of them, in their order, as fit.

    >>> early, late = Stage("early", "", 60, 20), Stage("late", "", 60, 30)
    >>> [granted((early, late), left) for left in (200, 80, 55, 40)]
    [60, 50, 25, 40]
    """
    first, *others = stages
    kept = 0.0
    for stage in others:
        if first.least + kept + stage.least <= left:
            kept += stage.least
    return min(first.limit, left - kept)
