"""Does one stage: ``python -m benchmarks.gpu_check.work NAME FILE --seconds S``.

Its exit status is a ``Status``, its last line what it found. Started by ``check``, and by hand to repeat one stage.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from .stages import Status

__all__ = ["main"]

# Stage -> module and function. They are imported here and not above: no stage needs what another one does.
WORK = {
    "device": ("facts", "device"),
    "build": ("facts", "build"),
    "bits": ("bits", "run"),
    "fill_2_28": ("timed", "fill_2_28"),
    "models": ("timed", "models"),
    "fill_2_26": ("timed", "fill_2_26"),
    "counters": ("counters", "run"),
    "tests": ("gpu_tests", "run"),
    "sizes": ("timed", "sizes"),
    "graphs": ("graphs", "run"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the stage, and prints what it found as the last line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check.work", description=__doc__)
    parser.add_argument("stage", choices=WORK)
    parser.add_argument("file", type=Path, help="what it writes")
    parser.add_argument("--seconds", type=float, default=600.0, help="begin nothing new after so many")
    parser.add_argument("--emulate", action="store_true", help="put the CPU in the GPU's place")
    options = parser.parse_args(arguments)
    place, name = WORK[options.stage]
    work: Callable[[Path, float], tuple[Status, str]] = getattr(importlib.import_module(f".{place}", __package__), name)
    with _emulation() if options.emulate else nullcontext():
        status, said = work(options.file, options.seconds)
    print(said, flush=True)
    return int(status)


def _emulation() -> AbstractContextManager[None]:
    from . import emulated

    return emulated.device()


if __name__ == "__main__":
    sys.exit(main())
