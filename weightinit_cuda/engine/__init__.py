"""The only door to the kernels: takes jobs, picks the backend, fills.

Everything above makes :class:`FillJob`; what executes them is chosen here and below, and values do not depend on it.
"""

from __future__ import annotations

from .backend import BackendInfo, backend_info, has_kernels, reference_only, select_cpu
from .drop_in import draw_and_fill, fill_tensor
from .job import FillJob
from .prepared import Prepared
from .run import fill, fill_whole
from .words import bits, draw_seed, streams_of

__all__ = [
    "BackendInfo",
    "FillJob",
    "Prepared",
    "backend_info",
    "bits",
    "draw_and_fill",
    "draw_seed",
    "fill",
    "fill_tensor",
    "fill_whole",
    "has_kernels",
    "reference_only",
    "select_cpu",
    "streams_of",
]
