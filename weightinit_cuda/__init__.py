"""Weight initialisation whose values depend on seed, name and index only.

``weightinit_cuda.init`` is a drop-in for ``torch.nn.init``; ``patched()`` puts it under code that calls ``torch.nn.init``.
"""

from __future__ import annotations

from . import init
from ._version import FORMAT, __version__
from .deferred import Recording, deferred
from .engine import BackendInfo, backend_info, bits
from .entry import Entry
from .fingerprint import fingerprint
from .job import FillJob, Region
from .patching import patch, patched, unpatch
from .plan import Plan, initialize_, plan
from .ranks import check_ranks
from .rule_sets import RULE_SETS
from .rules import Rule, RuleSet

__all__ = [
    "FORMAT",
    "RULE_SETS",
    "BackendInfo",
    "Entry",
    "FillJob",
    "Plan",
    "Recording",
    "Region",
    "Rule",
    "RuleSet",
    "__version__",
    "backend_info",
    "bits",
    "check_ranks",
    "deferred",
    "fingerprint",
    "init",
    "initialize_",
    "patch",
    "patched",
    "plan",
    "unpatch",
]
