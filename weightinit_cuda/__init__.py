"""Weight initialisation whose values depend on seed, name and index only.

``weightinit_cuda.init`` is a drop-in for ``torch.nn.init``; ``patched()`` puts it under code that calls ``torch.nn.init``.
"""

from __future__ import annotations

from ._version import FORMAT, __version__
from .checkpoints.export import export
from .checkpoints.fingerprint import fingerprint
from .checkpoints.ranks import check_ranks
from .checkpoints.regenerate import regenerate
from .checkpoints.verify import Report, verify
from .engine.backend import BackendInfo, backend_info
from .engine.job import FillJob
from .engine.words import bits
from .init.patching import patch, patched, unpatch
from .plans.entry import Entry
from .plans.perturb import add_noise_, lerp_to_init_
from .plans.plan import Plan, initialize_, plan
from .plans.restore import restore_
from .recording.deferred import Recording, deferred
from .rules import RULE_SETS, Rule, RuleSet
from .tensors.boxes import Region

__all__ = [
    "FORMAT",
    "RULE_SETS",
    "BackendInfo",
    "Entry",
    "FillJob",
    "Plan",
    "Recording",
    "Region",
    "Report",
    "Rule",
    "RuleSet",
    "__version__",
    "add_noise_",
    "backend_info",
    "bits",
    "check_ranks",
    "deferred",
    "export",
    "fingerprint",
    "init",
    "initialize_",
    "lerp_to_init_",
    "patch",
    "patched",
    "plan",
    "regenerate",
    "restore_",
    "unpatch",
    "verify",
]
