"""What is good or bad about a model's initialisation, measured: ``probe`` and its report. ``docs/probe.md``."""

from .comparison import Candidate, Comparison
from .data_dependent import data_dependent_
from .probe import Probe, probe
from .report import ProbeReport
from .row import Row
from .verdict import Finding
from .watch import Watch

__all__ = ["Candidate", "Comparison", "Finding", "Probe", "ProbeReport", "Row", "Watch", "data_dependent_", "probe"]
