"""The suite ``pages``: each setting is measured in a process that has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.suites import pages


def test_each_setting_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    measure: Any = pages.measure
    monkeypatch.setattr(pages, "SETTINGS", ("0", "1"))
    monkeypatch.setattr(pages, "measure", lambda: measure(width=8, layers=2, rounds=1))
    assert command_line.main(["--suite", "pages", "--json", str(tmp_path / "pages.json")]) == 0
    rows = json.loads((tmp_path / "pages.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["setting"], row["huge"]) for row in rows] == [("0", False), ("1", True)]
    assert all(row["wall"] > 0 and len(row["walls"]) == 1 for row in rows)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0].strip() for line in said[:2]] == ["0", "1"]
