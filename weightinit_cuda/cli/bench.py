"""Hands over to the benchmarks, which are no part of the package: it does not import them.

Other projects have a top-level ``benchmarks``, too, and some install it; ours is the one in a checkout of this library.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run_benchmarks"]

_OURS = ("benchmarks/__main__.py", "csrc/job.h", "weightinit_cuda/_version.py")  # of a checkout, and of nothing else


def run_benchmarks(arguments: Sequence[str]) -> int:
    """Runs ``python -m benchmarks`` of the checkout; its exit status.

    Raises:
        ValueError: there is no checkout.
    """
    root = _checkout()
    if root is None:
        raise ValueError("bench: the benchmarks come with the source tree, not with the package. Run this in a checkout.")
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks" and not _lies_in(name, root)]:
        del sys.modules[name]  # another project's
    sys.path.insert(0, str(root))
    sys.argv[1:] = arguments
    try:
        runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _checkout() -> Path | None:
    """The one that this package lies in, or the current folder if it is one."""
    candidates = (Path(__file__).resolve().parents[2], Path.cwd())
    return next((root for root in candidates if all((root / part).exists() for part in _OURS)), None)


def _lies_in(module: str, root: Path) -> bool:
    file = getattr(sys.modules[module], "__file__", None)
    return file is not None and root in Path(file).resolve().parents
