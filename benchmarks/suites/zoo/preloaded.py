"""Imports the libraries, once, in the process that the others are forked from. Which cannot be imported is said later.

What is there then is no garbage and never will be: frozen, it is not gone through in each of the others.
"""

from __future__ import annotations

import contextlib
import gc
import warnings

import scipy.stats  # type: ignore[import-untyped,unused-ignore]  # noqa: F401

from . import measures  # noqa: F401
from .libraries import LIBRARIES, version

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for _library in LIBRARIES:
        with contextlib.suppress(Exception):
            version(_library)
gc.collect()
gc.freeze()
