"""``python -m benchmarks.gpu_check --seconds 540 --out DIR``: the command line.

Exit status 0 if a GPU was seen, no bit differs and no stage was lost; else 1.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import report
from .check import Check
from .stages import STAGES

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the stages, whatever becomes of any of them, and shows the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--seconds", type=float, default=540.0, help="for all of it (default: 540)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for at most eight files")
    parser.add_argument("--only", metavar="NAME,NAME", help=f"some of {', '.join(stage.name for stage in STAGES)}")
    parser.add_argument("--emulate", action="store_true", help="put the CPU in the GPU's place, with small sizes: a dry run")
    options = parser.parse_args(arguments)
    only = options.only.split(",") if options.only else [stage.name for stage in STAGES]
    if unknown := set(only) - {stage.name for stage in STAGES}:
        parser.error(f"--only: must be names of stages, got {', '.join(sorted(unknown))}")
    check = Check(options.seconds, options.out, options.emulate, [stage for stage in STAGES if stage.name in only], _say)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this is shown what there is
    try:
        check.run()
    except KeyboardInterrupt:
        check.interrupted()
    report.show(check)
    return 0 if check.passed else 1


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
