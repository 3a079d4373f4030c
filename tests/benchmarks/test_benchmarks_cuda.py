"""The GPU benchmarks as far as they run without a GPU: what is measured, and the session with the CPU in the GPU's place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import benchmarks.__main__ as command_line
from benchmarks import shapes
from benchmarks.case import Case
from benchmarks.contestants import BASELINE, ONE_TENSOR, OURS, OURS_BOUND
from benchmarks.cuda import cases, session
from benchmarks.cuda.timing import GpuPolicy, measure
from benchmarks.measuring import models
from benchmarks.measuring.correctness import WrongValuesError
from benchmarks.showing import readme_table, targets
from weightinit_cuda import engine


def test_cases() -> None:
    names = [case.name for case in cases.cases()]
    assert len(names) == len(set(names)) == 3 * 2 * 10 + 2 * 2 * 11 + 4
    assert {case.group for case in cases.cases("scaling")} == {"scaling"}
    assert "fill/uniform/float32/2^32/gpu" in names
    assert max(case.values for case in cases.cases(quick=True)) <= 2**30
    assert {case.values for case in cases.cases("fill", [64])} == {64}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--device", "cuda"]) == 1
    assert "finds no CUDA device" in capsys.readouterr().err
    assert command_line.main(["--device", "cuda", "--list"]) == 0
    assert "model/Llama-3-8B/bfloat16" in capsys.readouterr().out


class Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) * 1e3


@pytest.fixture
def cpu_as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="a mock", major=9, minor=0, multi_processor_count=1, total_memory=1, L2_cache_size=4096)
    mocks: dict[str, Callable[..., Any]] = {
        "Event": Event,
        "mem_get_info": lambda: (2**32, 2**32),
        "empty_cache": lambda: None,
        "current_device": lambda: 0,
        "get_device_properties": lambda device: properties,
    }
    for name, mock in mocks.items():
        monkeypatch.setattr(torch.cuda, name, mock)
    monkeypatch.setattr(session, "DEVICE", "cpu")
    monkeypatch.setattr(session, "why_not", lambda: "")
    monkeypatch.setattr(session, "GpuPolicy", lambda **_: GpuPolicy(0.001, 1e-5, (2, 3), large_bytes=4096))
    parameters = [
        shapes.Parameter("weight", (8, 8), "kaiming_uniform_", {"a": 5**0.5}),
        shapes.Parameter("norm", (8,), "ones_", {}),
    ]
    for module in (cases, models):
        monkeypatch.setattr(module, "load", lambda name: shapes.load(name)._replace(parameters=parameters))


@pytest.mark.usefixtures("cpu_as_gpu")
def test_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gpu.json"
    assert session.run("all", file, sizes=[2**10, 2**11, 2**12]) == 0
    run = json.loads(file.read_text(encoding="utf-8"))
    assert run["environment"]["gpu"] == "a mock"
    assert len(run["rows"]) == 3 * 2 * 3 + 2 * 2 * 3 + 4
    for row in run["rows"]:
        assert {OURS, BASELINE} <= set(row["seconds"])
        assert row["ratios"][OURS]["fill_" if row["case"]["group"] != "model" else ONE_TENSOR]["median"] > 0
        assert (OURS_BOUND in row["seconds"]) == (row["case"]["group"] == "model")
    assert len(run["targets"]) == sum(target.threads == 0 for target in targets.TARGETS)
    shown = capsys.readouterr().out
    assert "share of fill_" in shown
    assert "left out: cuRAND Philox: cuRAND draws no bfloat16" in shown
    assert "left out: triton" in shown
    assert "Time against size" in shown
    assert "Llama-3-8B" in "\n".join(readme_table._gpu(run))


@pytest.mark.usefixtures("cpu_as_gpu")
def test_a_wrong_bit_in_a_model_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in cases.cases() if case.group == "model")
    right = engine.Prepared.run

    def wrong(prepared: engine.Prepared, seed: int) -> None:
        right(prepared, seed)
        prepared._groups[-1][1][-1].detach().view(torch.int32)[-1] ^= 1

    session.measured(case, session.GpuPolicy())
    monkeypatch.setattr(engine.Prepared, "run", wrong)
    with pytest.raises(WrongValuesError, match="ours, plan bound differs from the reference backend in norm"):
        session.measured(case, session.GpuPolicy())


@pytest.mark.usefixtures("cpu_as_gpu")
def test_what_does_not_fit_is_left_out() -> None:
    row = session.measured(Case("fill", "uniform", "uniform_", (), torch.float32, (2**40,), 0, "a test"), GpuPolicy())
    assert row.seconds == {}
    assert "MiB" in row.skipped[OURS]


@pytest.mark.usefixtures("cpu_as_gpu")
def test_the_cache_is_emptied_before_every_slice() -> None:
    done: list[str] = []
    calls = {name: (lambda name=name: done.append(name)) for name in ("a", "b")}  # type: ignore[misc]
    samples = measure(calls, GpuPolicy(0.0, rounds=(2, 2)), lambda: done.append("flush"))
    assert done == ["flush", "a", "flush", "b", "flush", "b", "flush", "a"]
    assert [(sample.loops, len(sample.seconds)) for sample in samples.values()] == [(1, 2), (1, 2)]
