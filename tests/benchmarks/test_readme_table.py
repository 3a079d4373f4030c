"""The tables of docs/benchmarks.md are what the JSON files give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import benchmarks.__main__ as command_line
from benchmarks.contestants import BASELINE, OURS
from benchmarks.showing import front_page, readme_table, results_file


def json_row(group: str, label: str, dtype: str, values: int, threads: int, ratio: float = 8.125) -> dict[str, Any]:
    spread_of_ratio = {"median": ratio, "p25": ratio - 1, "p75": ratio + 1, "min": ratio - 2}
    return {
        "case": {
            "group": group,
            "label": label,
            "call": "uniform_",
            "dtype": dtype,
            "values": values,
            "threads": threads,
            "size": str(values),
        },
        "seconds": {OURS: {"median": 2e-6}, BASELINE: {"median": 3e-6}},
        "rates": {OURS: {"g_values": 2.0, "gb": 8.0}, BASELINE: {"g_values": 0.25, "gb": 1.0}},
        "ratios": {OURS: {BASELINE: spread_of_ratio, "fill_": spread_of_ratio | {"median": 0.956}}},
    }


ENVIRONMENT = {
    "cpu": "Zen 3",
    "gpu": "H200",
    "cuda": "13.0",
    "cores": 2,
    "isa": "avx2",
    "versions": {"torch": "2.13.0"},
    "time": "2026-11-22T14:00:00+00:00",
    "commit": "abcdef012345",
}


def write_results(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / name).write_text(json.dumps({"environment": ENVIRONMENT, "rows": rows}), encoding="utf-8")


def test_readme_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{readme_table.BEGIN}\nold\n{readme_table.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(readme_table, "PAGE", page)
    monkeypatch.setattr(readme_table, "RESULTS", tmp_path)
    monkeypatch.setattr(front_page, "update", lambda run, check: True)  # has tests of its own
    assert command_line.main(["readme-table"]) == 1
    assert "must exist, and does not" in capsys.readouterr().err

    kinds = [("uniform", "float32"), ("uniform", "bfloat16")]
    rows = [json_row("fill", *kind, 2**25, threads, 8.125 * threads) for kind in kinds for threads in (1, 2)]
    rows += [json_row("model", "GPT-2 XL", "float32", 144_000_000, threads) for threads in (1, 2)]
    rows += [json_row("fill", "uniform", "float32", 2**27, 1), json_row("small", "uniform_", "float32", 10, 1)]
    write_results(tmp_path, "cpu.json", rows)
    assert command_line.main(["readme-table", "--check"]) == 1
    assert "old" in page.read_text(encoding="utf-8"), "--check writes nothing"
    assert command_line.main(["readme-table"]) == 0
    assert command_line.main(["readme-table", "--check"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{readme_table.BEGIN}\n")
    assert text.endswith(f"{readme_table.END}\nafter\n")
    assert "Zen 3, 2 cores, avx2, torch 2.13.0, 2026-11-22, commit abcdef012345" in text
    assert "| 2^25 values, 10^9 a second | dtype | ours, 1 thread | nn.init | x | ours, 2 threads | nn.init | x |" in text
    assert "| uniform | bfloat16 | 2 | 0.25 | 8.12 [7.12-9.12] | 2 | 0.25 | 16.2 [15.2-17.2] |" in text
    assert "| GPT-2 XL, filled in place | float32 | 144 M | 2e-06 | 3e-06 | 8.12 [7.12-9.12] |" in text
    assert text.count("GPT-2 XL") == 1
    assert "| `uniform_` | 10 | 2 | 3 | 8.12 [7.12-9.12] |" in text
    assert readme_table.NO_GPU in text

    write_results(
        tmp_path, "gpu.json", [json_row("fill", "uniform", "float32", 2**30, 0), json_row("model", "GPT-2", "float32", 9, 0)]
    )
    assert command_line.main(["readme-table", "--check"]) == 1
    assert command_line.main(["readme-table"]) == 0
    text = page.read_text(encoding="utf-8")
    assert readme_table.NO_GPU not in text
    assert "On H200, CUDA 13.0" in text
    assert "| 0.96 |" in text
    assert "| GPT-2 |" in text


@pytest.mark.parametrize(
    ("cpu", "page", "message"),
    [
        ("[]", "", "must have `environment` and `rows`"),
        ("{", "", "must be JSON"),
        ("good", "", "must have the lines"),
        ("no rows", "", "one size that every distribution"),
    ],
)
def test_readme_table_says_what_is_missing(tmp_path: Path, cpu: str, page: str, message: str) -> None:
    rows = [json_row("fill", "uniform", "float32", 2**25, 1)] if cpu == "good" else []
    write_results(tmp_path, "cpu.json", rows)
    if cpu in ("[]", "{"):
        (tmp_path / "cpu.json").write_text(cpu, encoding="utf-8")
    (tmp_path / "benchmarks.md").write_text(page, encoding="utf-8")
    with pytest.raises((readme_table.TableError, results_file.ResultsError), match=message):
        readme_table.update(tmp_path / "benchmarks.md", tmp_path)


def test_the_page_has_the_tables_of_the_results() -> None:
    assert readme_table.update(check=True), "make readme-table"
    assert readme_table.PAGE.name in (readme_table.PAGE.parents[1] / "README.md").read_text(encoding="utf-8")


# ---- README -----------------------------------------------------------------------------------------------------------


def test_the_front_page_has_the_figures_of_the_results() -> None:
    run = results_file.read(readme_table.RESULTS / "cpu.json")
    assert front_page.update(run, check=True), "make readme-table"
    chart = front_page.CHART.read_text(encoding="utf-8")
    assert all(bar.name in chart for bar in front_page.BARS)
    assert "var(--" not in chart


def test_the_front_page_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = results_file.read(readme_table.RESULTS / "cpu.json")
    fewer = {**run, "rows": [row for row in run["rows"] if row["case"]["label"] != "GPT-2 XL"]}
    with pytest.raises(LookupError, match="a row for GPT-2 XL by rules is needed"):
        front_page.lines(fewer)
    (tmp_path / "README.md").write_text("no markers", encoding="utf-8")
    monkeypatch.setattr(front_page, "README", tmp_path / "README.md")
    with pytest.raises(LookupError, match="must have the lines"):
        front_page.update(run)
