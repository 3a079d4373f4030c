"""How many of each kind were equal, after the run."""

from __future__ import annotations

import sys
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counts = getattr(sys.modules.get("test_zoo"), "COUNTS", None)
    if counts:
        terminalreporter.section("the zoo")
        for kind, number in sorted(counts.items()):
            terminalreporter.write_line(f"{kind:>40} {number:6}")
