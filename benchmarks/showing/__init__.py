"""A run as one HTML page: tables and plots inside, nothing to load, light and dark, for a laptop and a phone."""

from __future__ import annotations

from .page import render

__all__ = ["render"]
