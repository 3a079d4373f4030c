"""Suite ``zoo``: models of the libraries that people use, built by the library's own code eagerly, under ``patched()`` and
under ``deferred()``; whether they are the same model, and how long each takes.

Which models is data: ``configurations.json``. Each is built in a process of its own, so that one which fails stops no other.
"""

from __future__ import annotations

from .libraries import LIBRARIES, configurations
from .processes import run

__all__ = ["LIBRARIES", "configurations", "run"]
