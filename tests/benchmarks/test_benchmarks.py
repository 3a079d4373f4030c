"""The benchmarks run, refuse to time wrong work, and judge what they measured. No test looks at how long anything takes."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("rich", reason="the benchmarks' tables need rich")

import benchmarks.__main__ as command_line
import weightinit_cuda as wi
from benchmarks import cpu
from benchmarks.case import Case
from benchmarks.contestants import BASELINE, OURS, OURS_ALONE, OURS_HUGE, mkl
from benchmarks.cuda import cases as cuda_cases
from benchmarks.measuring import runner
from benchmarks.measuring.correctness import WrongValuesError
from benchmarks.measuring.row import STORE_LIMIT, Row
from benchmarks.measuring.runner import Runner
from benchmarks.measuring.timing import Policy, measure, spread
from benchmarks.showing import targets
from benchmarks.suites import fill, model, neighbour
from weightinit_cuda import engine

TINY = Policy(row_seconds=0.002, slice_seconds=1e-4, rounds=(2, 3))


def case(call: str = "normal_", values: int = 10_000, group: str = "fill", dtype: torch.dtype = torch.float32) -> Case:
    label = call if group == "small" else call.removesuffix("_")
    return Case(group, label, call, (), dtype, (values,), 1, "a test")


@pytest.fixture
def small_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "Policy", lambda: TINY)
    monkeypatch.setattr(fill, "FRESH_SIZE", 2**12)
    monkeypatch.setattr(fill, "DTYPES", (torch.float32, torch.bfloat16))


@pytest.mark.usefixtures("small_run")
def test_command_line_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "out.json"
    threads = torch.get_num_threads()
    assert command_line.main(["--suite", "fill", "--sizes", "2^10", "--threads", "1,2", "--json", str(file)]) == 0
    assert torch.get_num_threads() == threads
    run = json.loads(file.read_text(encoding="utf-8"))
    assert set(run) == {"schema", "suite", "environment", "rows", "targets", "quality"}
    assert {"time", "commit", "cpu", "isa", "versions", "python", "threads", "format"} <= set(run["environment"])
    names = [row["name"] for row in run["rows"]]
    assert len(names) == len(set(names)) == len(fill.cases([1, 2], [2**10]))
    for row in run["rows"]:
        check_row(row)
    assert all(verdict["met"] in ("stretch", "yes", "within spread", "no", "not measured") for verdict in run["targets"])
    shown = capsys.readouterr().out
    assert "fill, 2 threads" in shown
    assert "met?" in shown
    assert "NumPy draws no bfloat16" in shown


def check_row(row: dict[str, Any]) -> None:
    assert set(row) == {"name", "case", "seconds", "rates", "ratios", "cycles", "skipped", "peaks"}
    assert {OURS, "fill_"} <= set(row["seconds"])
    assert BASELINE in row["seconds"] or row["skipped"][BASELINE].startswith("left out for its values")  # torch 2.6, bfloat16
    for name, seconds in row["seconds"].items():
        assert 0 < seconds["min"] <= seconds["p25"] <= seconds["median"] <= seconds["p75"]
        assert 2 <= seconds["rounds"] <= 3
        assert row["rates"][name]["gb"] > 0
    assert set(row["ratios"][OURS]) == set(row["seconds"]) - {OURS} | {STORE_LIMIT}
    assert (OURS_HUGE in row["ratios"]) == (row["case"]["group"] == "fresh")


def test_list_and_bad_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--list", "--quick"]) == 0
    assert "fill/uniform/float32/2^10/1t" in capsys.readouterr().out
    for wrong in ("0", "2^x", "1,", "-4"):
        with pytest.raises(SystemExit):
            command_line.main([f"--sizes={wrong}"])
        assert "must be positive numbers" in capsys.readouterr().err


@pytest.mark.parametrize(("group", "values"), [("fill", 10_000), ("small", 10), ("fresh", 10_000)])
@pytest.mark.parametrize("position", [0, -1])
def test_a_wrong_bit_stops_the_run(monkeypatch: pytest.MonkeyPatch, group: str, values: int, position: int) -> None:
    right = wi.init.normal_

    def wrong(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        right(tensor, *args, **kwargs)
        if engine.backend.native:
            tensor.detach().view(torch.int32)[position] ^= 1
        return tensor

    Runner(TINY).run(case(group=group, values=values))
    monkeypatch.setattr(wi.init, "normal_", wrong)
    with pytest.raises(WrongValuesError, match="differs from the reference backend in 1 bytes"):
        Runner(TINY).run(case(group=group, values=values))


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros_like, lambda x: 1.1 * torch.randn_like(x), lambda x: torch.randn_like(x) + 0.1, lambda x: x.fill_(torch.nan)],
    ids=["nothing written", "std", "mean", "nan"],
)
def test_who_draws_another_distribution_is_left_out(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    monkeypatch.setattr(torch.nn.init, "normal_", lambda tensor: tensor.copy_(wrong(tensor)))
    row = Runner(TINY).run(case())
    assert re.search(r"nn\.init must write mean 0, std 1", row.skipped[BASELINE])
    assert BASELINE not in row.seconds
    assert OURS in row.seconds


def test_values_out_of_range_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.init, "uniform_", lambda tensor: tensor.uniform_().neg_().add_(1.0001))
    row = Runner(TINY).run(case("uniform_", 100_000))
    assert re.search(r"within \[0, 1\], got", row.skipped[BASELINE])


def test_slow_contestants_are_left_out_of_larger_sizes() -> None:
    runner = Runner(TINY)
    runner.run(case("trunc_normal_", 2048))
    runner.policy = Policy(row_seconds=0.002, slice_seconds=1e-4, rounds=(2, 3), call_seconds=0.0)
    row = runner.run(case("trunc_normal_", 4096))
    assert row.skipped[BASELINE].startswith("one call would take about")


def test_what_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "available_bytes", lambda: 100_000)
    row = Runner(TINY).run(case(values=2**20))
    assert row.seconds == {}
    assert "needs 4 MiB" in row.skipped[OURS]
    assert targets.judge([row])[0].met == "not measured"


def test_missing_peers_give_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(mkl, "_library", lambda: "mkl is not installed (pip install mkl)")
    row = Runner(TINY).run(case())
    assert row.skipped["numpy Philox"] == "numpy is not installed"
    assert "pip install jax" in row.skipped["jax threefry"]
    assert "pip install mkl" in row.skipped["mkl Philox ICDF"]


def test_contestants_take_turns() -> None:
    turns: list[str] = []

    def watch(name: str, seconds: float) -> Any:
        def run(loops: int) -> float:
            turns.append(name)
            return seconds

        return run

    watches = {"slow": watch("slow", 1.0), "fast": watch("fast", 1e-4), "third": watch("third", 1.0)}
    policy = Policy(row_seconds=0.0, slice_seconds=1e-3, rounds=(3, 9))
    samples, readings = measure(watches, {"slow": 1.0, "fast": 1.0, "third": 1.0}, policy, clock=lambda: 2e9)
    assert turns == ["slow", "fast", "third", "fast", "third", "slow", "third", "slow", "fast"]
    assert [len(sample.seconds) for sample in samples.values()] == [3, 3, 3]
    assert readings == [2e9] * 3
    measure(watches, dict.fromkeys(watches, 1e-9), policy)
    assert turns[9] == "slow", "what looked short at first is timed again, in longer loops"


def company() -> tuple[int, int]:
    """Processes that this one has started, and the CPUs that it may use."""
    children = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            children += int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid()
    return children, len(os.sched_getaffinity(0))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
@pytest.mark.parametrize("label", ["quiet", "a niced neighbour", "a neighbour a core", "one CPU"])
def test_neighbours_are_there_while_a_row_is_measured(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gone afterwards."""
    seen: list[tuple[int, int]] = []

    def watched(*args: Any) -> Any:
        seen.append(company())
        return measure(*args)

    before = processes, cpus = company()
    monkeypatch.setattr(runner, "measure", watched)
    row = Runner(TINY).run(Case("neighbour", label, "uniform_", (), torch.float32, (1000,), 2, "a test"))
    assert company() == before
    more = {"a niced neighbour": 1, "a neighbour a core": cpus}.get(label, 0)
    assert seen == [(processes + more, 1 if label == "one CPU" else cpus)]
    assert set(row.seconds) == {OURS, OURS_ALONE, BASELINE}
    assert {OURS_ALONE, BASELINE} <= set(row.ratios[OURS])


def row_with(measured: dict[str, float], values: int = 2**25, cycles: dict[str, float] | None = None) -> Row:
    return Row(case("uniform_", values), {}, {}, {OURS: {BASELINE: measured}}, cycles, {})


@pytest.mark.parametrize(
    ("median", "p75", "met"), [(12, 13, "stretch"), (9, 13, "yes"), (7, 8.5, "within spread"), (7, 7.5, "no")]
)
def test_verdicts(median: float, p75: float, met: str) -> None:
    target = targets.Target("fill", "uniform", ("float32",), 1, targets.LARGE, BASELINE, 8, 10)
    good, found = {"median": 20.0, "p25": 20.0, "p75": 20.0}, {"median": median, "p25": 1.0, "p75": p75}
    (verdict,) = targets.judge([row_with(good), row_with(found, 2**26), row_with(found, 2**10)], [target])
    assert (verdict.met, verdict.row) == (met, "fill/uniform/float32/2^26/1t"), "the worst of the large rows decides"


@pytest.mark.parametrize(("median", "met"), [(1.2, "stretch"), (1.4, "yes"), (1.5, "within spread")])
def test_verdicts_on_cycles_are_bounded_from_above(median: float, met: str) -> None:
    target = targets.Target("fill", "uniform", ("float32",), 1, targets.CACHED, targets.CYCLES, 1.45, 1.33)
    (verdict,) = targets.judge([row_with({}, 2**20, {"median": median, "p25": median - 0.1, "p75": 9})], [target])
    assert verdict.met == met


def test_every_target_has_a_row_in_the_suite() -> None:
    cases = [*fill.cases([1, 2]), *model.cases([1, 2]), *neighbour.cases([1, 2]), *cuda_cases.cases()]
    rows = [Row(case, {}, {}, {}, None, {}) for case in cases]
    assert len({row.case.name for row in rows}) == len(rows)
    for target in targets.TARGETS:
        assert any(targets._covers(target, row) for row in rows), target


@pytest.mark.parametrize("name", ["case", "showing.curves", "shapes", "suites.scaling", "measuring.timing", "__main__"])
def test_doctests(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert tried
    assert not failed


def test_spread_of_one_sample() -> None:
    assert spread([2.0]) == {"median": 2.0, "p25": 2.0, "p75": 2.0, "min": 2.0}


def test_the_first_call_does_not_count_what_frees_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Result:
        def __init__(self) -> None:
            now[0] += 1.0

        def __del__(self) -> None:
            now[0] += 10.0

    monkeypatch.setattr(runner, "perf_counter", lambda: now[0])
    assert runner._seconds(Result) == 1.0
    assert now == [11.0]
