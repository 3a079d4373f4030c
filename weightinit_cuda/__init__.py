"""Weight initialisation whose values depend on seed, name and index only.

``weightinit_cuda.init`` is a drop-in for ``torch.nn.init``; ``patched()`` puts it under code that calls ``torch.nn.init``.
"""

from __future__ import annotations

from . import custom_ops as _custom_ops  # noqa: F401 registers them
from . import init
from ._version import FORMAT, __version__
from .deferred import Recording, deferred
from .diagnosis import CoordinateCheck, ProbeReport, coordinate_check, data_dependent_, probe
from .doctor import Symptom, diagnose, examine
from .engine import BackendInfo, backend_info, bits
from .entry import Entry
from .export import export
from .fingerprint import fingerprint
from .job import FillJob, Region
from .patching import patch, patched, unpatch
from .perturbing import add_noise_, lerp_to_init_
from .plan import Plan, initialize_, plan
from .ranks import check_ranks
from .regeneration import regenerate, restore_
from .rules import RULE_SETS, Rule, RuleSet
from .verify import Report, verify

__all__ = [
    "FORMAT",
    "RULE_SETS",
    "BackendInfo",
    "CoordinateCheck",
    "Entry",
    "FillJob",
    "Plan",
    "ProbeReport",
    "Recording",
    "Region",
    "Report",
    "Rule",
    "RuleSet",
    "Symptom",
    "__version__",
    "add_noise_",
    "backend_info",
    "bits",
    "check_ranks",
    "coordinate_check",
    "data_dependent_",
    "deferred",
    "diagnose",
    "examine",
    "export",
    "fingerprint",
    "init",
    "initialize_",
    "lerp_to_init_",
    "patch",
    "patched",
    "plan",
    "probe",
    "regenerate",
    "restore_",
    "unpatch",
    "verify",
]
