"""The page is one file that needs nothing else, and ``compare`` flags what changed beyond the spread and nothing else."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="the benchmarks' tables need rich")
pytest.importorskip("matplotlib", reason="the page's plots need matplotlib")
pytest.importorskip("scipy", reason="the tails' intervals need scipy")

import benchmarks.__main__ as command_line
from benchmarks.contestants import BASELINE, OURS
from benchmarks.showing import page, readme_table
from benchmarks.showing.compare import changes

VOID = {"meta", "link", "br", "img", "path", "use", "rect"}


def spread(median: float, width: float = 0.05) -> dict[str, float]:
    return {"median": median, "p25": median * (1 - width), "p75": median * (1 + width), "min": median * (1 - 2 * width)}


def row(group: str, label: str, values: int, threads: int, ours: str = OURS, usual: str = BASELINE) -> dict[str, Any]:
    names = {ours: 1e-9 * values, usual: 5e-9 * values, "fill_": 0.5e-9 * values, "peer <x>": 2e-9 * values}
    case = {"group": group, "label": label, "call": "uniform_", "dtype": "float32", "values": values, "threads": threads}
    return {
        "name": f"{group}/{label}/{values}/{threads}t",
        "case": case | {"size": str(values), "why": "a test & no more"},
        "seconds": {name: spread(seconds) for name, seconds in names.items()},
        "rates": {name: {"g_values": values / seconds * 1e-9, "gb": 1.0} for name, seconds in names.items()},
        "ratios": {ours: {name: spread(s / names[ours]) for name, s in names.items() if name != ours}},
        "cycles": None,
        "skipped": {"absent peer": "not installed <really>"},
        "peaks": {ours: 1 << 20},
    }


def finding(law: str, source: str, p: float, control: str = "") -> dict[str, Any]:
    found = {"mean": {"p": p, "z": 1.0, "bias": 1e-4, "error": 1e-4, "seen": p < 1e-6}}
    found["distinct"] = {"values": 10, "distinct": 9, "alike_as_log2": 5.5, "seen": False}  # type: ignore[dict-item]
    for sigma in (4, 5, 5.77, 6):
        counts = {"p": 0.5, "count": 3, "expected": 2.5, "largest": 5.1, "sigma": sigma, "seen": False}
        found[f"beyond {sigma}"] = counts  # type: ignore[assignment]
    seen = ["mean"] if p < 1e-6 else []
    head = {"name": f"quality/{law}/float32/{source}", "law": law, "dtype": "float32", "source": source, "values": 10}
    return head | {"seeds": 1, "control": control, "skipped": "", "seen": seen, "findings": found}


@pytest.fixture
def run() -> dict[str, Any]:
    rows = [row("fill", "uniform", 1 << 20, threads) for threads in (1, 2)]
    rows += [row("small", "uniform_", 10, 1), row("model", "GPT-2 XL", 1 << 24, 2)]
    rows += [row("construct", "GPT-2 XL", 1 << 24, 2, "ours, deferred", "eager")]
    rows += [row("scaling", "uniform", 1 << power, threads) for power in (10, 14, 18, 22) for threads in (1, 2)]
    environment = json.loads((readme_table.RESULTS / "cpu.json").read_text(encoding="utf-8"))["environment"]
    quality = [finding("normal", OURS, 0.3), finding("normal", "control: wrong", 1e-30, "mean")]
    return {"schema": 2, "suite": "all", "environment": environment, "rows": rows, "targets": [], "quality": quality}


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.open += [] if tag in VOID else [tag]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [value or "" for name, value in attributes if name in ("href", "src", "xlink:href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_page_is_whole_and_needs_nothing_else(run: dict[str, Any]) -> None:
    text = page.render(run)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids)), "ids of two plots must not meet"
    assert all(link.startswith("#") and link[1:] in reader.ids for link in reader.links), "nothing is loaded from elsewhere"
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"#0102[01]\w", text), "every colour of a plot is one of the page's"
    for title in ("One tensor", "Scaling", "Whole models", "Quality of the numbers", "Instructions per value", "Left out"):
        assert f"<h2>{title}</h2>" in text
    assert "peer &lt;x&gt;" in text
    assert "<x>" not in text
    assert "<really>" not in text
    assert text.count("<svg") >= 8


def test_page_of_what_there_is(run: dict[str, Any]) -> None:
    """Sections without data are left out: a run of one suite, and one of an older file."""
    only = run | {"rows": [], "quality": []}
    assert "<h2>Scaling</h2>" not in page.render(only)
    for one in run["rows"]:
        del one["peaks"]
    del run["quality"]
    assert "<h2>One tensor</h2>" in page.render(run)


def test_page_from_the_command_line(run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(run), encoding="utf-8")
    assert command_line.main(["page", str(file)]) == 0
    assert (tmp_path / "run.html").read_text(encoding="utf-8") == page.render(run)
    assert command_line.main(["page", str(tmp_path / "none.json")]) == 1
    assert "must exist, and does not" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.main(["compare", str(file)])


# ---- compare --------------------------------------------------------------------------------------------------------


def write(folder: Path, name: str, run: dict[str, Any]) -> str:
    (folder / name).write_text(json.dumps(run), encoding="utf-8")
    return str(folder / name)


def test_nothing_changed(run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    within = copy.deepcopy(run)
    for one in within["rows"]:
        for seconds in one["seconds"].values():
            seconds["median"] *= 1.04  # inside the quartiles
    assert list(changes(run, within)) == []
    assert command_line.main(["compare", write(tmp_path, "a", run), write(tmp_path, "b", within)]) == 0
    assert "beyond the spread: 0 changes" in capsys.readouterr().out


@pytest.mark.parametrize(("factor", "better", "status"), [(0.5, False, 1), (2.0, True, 0)])
def test_ratios_beyond_the_spread(
    run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, better: bool, status: int
) -> None:
    after = copy.deepcopy(run)
    for numbers in after["rows"][0]["ratios"][OURS].values():
        for name in numbers:
            numbers[name] *= factor
    (change,) = changes(run, after)
    assert (change.row, change.what, change.better) == (run["rows"][0]["name"], f"{BASELINE} / {OURS}", better)
    assert change.factor == pytest.approx(factor)
    after["environment"] = run["environment"] | {"cpu": "another"}
    after["rows"].pop()
    assert command_line.main(["compare", write(tmp_path, "a", run), write(tmp_path, "b", after)]) == status
    shown = capsys.readouterr().out
    assert "cpu: " in shown
    assert "1 in one of them only" in shown


def test_quality_is_compared(run: dict[str, Any]) -> None:
    after = copy.deepcopy(run)
    after["quality"] = [finding("normal", OURS, 1e-9), finding("normal", "control: wrong", 0.2, "mean")]
    assert [(change.row.split("/")[-1], change.better) for change in changes(run, after)] == [
        (OURS, False),
        ("control: wrong", False),
    ]
    assert all(change.better for change in changes(after, run))
