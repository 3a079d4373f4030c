"""What is good or bad about a model's initialisation, measured: ``probe`` and its report. ``docs/probe.md``."""

from .comparison import Candidate, Comparison
from .coordinates import CoordinateCheck, coordinate_check
from .data_dependent import data_dependent_
from .probe import Probe, probe
from .report import ProbeReport
from .row import Row
from .verdict import Finding
from .watch import Watch

__all__ = [
    "Candidate",
    "Comparison",
    "CoordinateCheck",
    "Finding",
    "Probe",
    "ProbeReport",
    "Row",
    "Watch",
    "coordinate_check",
    "data_dependent_",
    "probe",
]
