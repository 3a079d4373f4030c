"""The suite ``claims``: what it measures holds, its page is its file, and a claim that does not hold is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.showing import claims_table
from benchmarks.suites.claims import CLAIMS, Claim, measure

SLOW = {"_he", "_kumar", "_saxe", "_lsuv", "_mup"}  # they train nets


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.check.__name__ not in SLOW], ids=lambda c: c.check.__name__)
def test_claims_hold(claim: Claim) -> None:
    [row] = measure([claim])
    assert row["holds"], row["measured"]


def test_page_is_the_file() -> None:
    assert claims_table.update(check=True), "make readme-table"


def test_file_has_every_claim() -> None:
    found = json.loads(claims_table.RESULTS.read_text(encoding="utf-8"))
    assert [(row["claim"], row["source"], row["expected"]) for row in found["claims"]] == [claim[:3] for claim in CLAIMS]
    assert all(row["holds"] for row in found["claims"])


def test_what_does_not_hold_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a" / "claims.json"
    claims = [Claim("one", "A", "1", lambda: ("1", True)), Claim("two", "B", "2", lambda: ("3", False))]
    assert claims_table.run(file, claims) == 1
    assert "holds: one: 1" in capsys.readouterr().out
    page = claims_table.page(json.loads(file.read_text(encoding="utf-8")))
    assert "| two | B | 2 | 3 | no | 0.0 |" in page


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(claims_table, "run", lambda file: print(f"file {file}") or 0)
    assert command_line.main(["--suite", "claims", "--json", "x.json"]) == 0
    assert capsys.readouterr().out == "file x.json\n"
