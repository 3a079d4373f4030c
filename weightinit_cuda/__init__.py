"""Weight initialisation whose values depend on seed, name and index only.

``weightinit_cuda.init`` is a drop-in for ``torch.nn.init``; ``patched()`` puts it under code that calls ``torch.nn.init``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import init
from ._version import FORMAT, __version__
from .engine.backend import BackendInfo, backend_info
from .engine.job import FillJob
from .engine.words import bits
from .init import torch_ops as _torch_ops  # noqa: F401 registers the operators
from .init.patching import patch, patched, unpatch
from .tensors.boxes import Region

if TYPE_CHECKING:
    from . import rules
    from .checkpoints.export import export
    from .checkpoints.fingerprint import fingerprint
    from .checkpoints.ranks import check_ranks
    from .checkpoints.regenerate import regenerate
    from .checkpoints.verify import Report, verify
    from .diagnosis import CoordinateCheck, ProbeReport, coordinate_check, data_dependent_
    from .diagnosis.doctor import Symptom, diagnose, examine
    from .diagnosis.probe import probe
    from .plans import plots
    from .plans.by_rules import initialize_, plan
    from .plans.entry import Entry
    from .plans.perturb import add_noise_, lerp_to_init_
    from .plans.plan import Plan
    from .plans.restore import restore_
    from .recording.deferred import Recording, deferred
    from .rules import RULE_SETS, Rule, RuleSet
    from .rules.measured import Prober

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
    "plots",
    "probe",
    "regenerate",
    "restore_",
    "rules",
    "unpatch",
    "verify",
]

# Imported when they are first asked for, since a program that fills a few tensors needs none of them.
_LATER = {
    "Entry": "plans.entry",
    "Plan": "plans.plan",
    "initialize_": "plans.by_rules",
    "plan": "plans.by_rules",
    "RULE_SETS": "rules",
    "Rule": "rules",
    "RuleSet": "rules",
    "rules": "rules",
    "CoordinateCheck": "diagnosis",
    "ProbeReport": "diagnosis",
    "Symptom": "diagnosis.doctor",
    "coordinate_check": "diagnosis",
    "data_dependent_": "diagnosis",
    "diagnose": "diagnosis.doctor",
    "examine": "diagnosis.doctor",
    "probe": "diagnosis.probe",
    "Recording": "recording.deferred",
    "Report": "checkpoints.verify",
    "add_noise_": "plans.perturb",
    "check_ranks": "checkpoints.ranks",
    "deferred": "recording.deferred",
    "export": "checkpoints.export",
    "fingerprint": "checkpoints.fingerprint",
    "lerp_to_init_": "plans.perturb",
    "plots": "plans.plots",
    "regenerate": "checkpoints.regenerate",
    "restore_": "plans.restore",
    "verify": "checkpoints.verify",
}


def _prober() -> Prober:
    """What ``auto(example, measure=True)`` asks for: rules know no probe."""
    found: Prober = import_module(".diagnosis.compare", __name__).best_of
    return found


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{_LATER[name]}", __name__)
    value = globals()[name] = module if name in ("plots", "rules") else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
