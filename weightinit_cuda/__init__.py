"""Weight initialisation whose values depend on seed, name and index only.

``weightinit_cuda.init`` is a drop-in for ``torch.nn.init``; ``patched()`` puts it under code that calls ``torch.nn.init``.
"""

from __future__ import annotations

from . import init
from ._version import __version__
from .engine import BackendInfo, backend_info, bits
from .job import FillJob, Region
from .patching import patch, patched, unpatch

FORMAT = 1  # of the values: see docs/numerics.md. A change of any value is a new format.

__all__ = [
    "FORMAT",
    "BackendInfo",
    "FillJob",
    "Region",
    "__version__",
    "backend_info",
    "bits",
    "init",
    "patch",
    "patched",
    "unpatch",
]
