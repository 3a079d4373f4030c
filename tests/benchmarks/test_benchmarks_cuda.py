"""The GPU benchmarks as far as they run without a GPU: what is measured, and the session with the CPU in the GPU's place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import benchmarks.__main__ as command_line
from benchmarks.case import Case
from benchmarks.contestants import BASELINE, ONE_TENSOR, OURS, OURS_BOUND, triton_random
from benchmarks.contestants.peer import Wanted
from benchmarks.cuda import cases, session
from benchmarks.cuda.timing import GpuPolicy, measure
from benchmarks.gpu_check import emulated
from benchmarks.measuring.correctness import WrongValuesError
from benchmarks.showing import readme_table, targets
from weightinit_cuda import engine


def test_cases() -> None:
    names = [case.name for case in cases.cases()]
    assert len(names) == len(set(names)) == 5 * 2 * 10 + 2 * 2 * 11 + 4
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


@pytest.fixture
def cpu_as_gpu() -> Iterator[None]:
    with emulated.device():
        yield


@pytest.mark.usefixtures("cpu_as_gpu")
def test_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gpu.json"
    assert session.run("all", file, sizes=[2**10, 2**11, 2**12]) == 0
    run = json.loads(file.read_text(encoding="utf-8"))
    assert run["environment"]["gpu"] == emulated.NAME
    assert len(run["rows"]) == 5 * 2 * 3 + 2 * 2 * 3 + 4
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
        prepared._batches[-1][1][-1].detach().view(torch.int32)[-1] ^= 1

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
    samples = measure(calls, GpuPolicy(0.0, rounds=(2, 2)), lambda name: done.append(f"before {name}"))
    assert done == ["before a", "a", "before b", "b", "before b", "b", "before a", "a"]
    assert [(sample.loops, len(sample.seconds), sample.late) for sample in samples.values()] == [(1, 2, 0), (1, 2, 0)]


@pytest.mark.usefixtures("cpu_as_gpu")
def test_the_device_sleeps_while_the_host_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before every call that is measured without its Python; whoever was late nevertheless is counted, and the row says so."""
    slept: list[int] = []
    monkeypatch.setattr(torch.cuda, "_sleep", slept.append)
    fill = Case("fill", "uniform", "uniform_", (), torch.float32, (2**12,), 0, "a test")
    row = session.measured(fill, GpuPolicy(0.001, 1e-5, (2, 2), large_bytes=4096))
    assert slept == [session.HEAD_START] * 2 * len(row.seconds)
    assert not any("late" in seconds for seconds in row.seconds.values())

    monkeypatch.setattr(emulated.Event, "query", lambda event: True)
    row = session.measured(fill, GpuPolicy(0.001, 1e-5, (2, 2), large_bytes=4096))
    assert {seconds["late"] for seconds in row.seconds.values()} == {2}

    slept.clear()
    model = next(case for case in cases.cases("model"))
    row = session.measured(model, GpuPolicy(0.001, 1e-5, (2, 2), large_bytes=1))
    assert len(slept) == 2 * sum(name in session.JUST_LAUNCHES for name in row.seconds) > 0


@pytest.mark.usefixtures("cpu_as_gpu")
def test_rows_that_decide_targets_come_first_and_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order = sorted(cases.cases(), key=session._importance)
    assert {case.values for case in order[:10]} == {2**28}
    assert {case.values for case in order[10:20]} == {2**26}
    assert [case.group for case in order[40:44]] == ["model"] * 4
    assert {case.group for case in order[-44:]} == {"scaling"}

    file, measured = tmp_path / "rows.json", session.measured

    def third_fails(case: Case, policy: GpuPolicy) -> object:
        if case.label == "trunc_normal":
            raise RuntimeError("the device is lost")
        return measured(case, policy)

    monkeypatch.setattr(session, "measured", third_fails)
    with pytest.raises(RuntimeError, match="the device is lost"):
        session.run("fill", file, sizes=[1024])
    assert [row["case"]["label"] for row in json.loads(file.read_text())["rows"]] == ["uniform"] * 2 + ["normal"] * 2
    monkeypatch.setattr(session, "measured", measured)

    given = ["--device", "cuda", "--suite", "fill", "--sizes", "1024", "--seconds", "-1", "--json", str(file)]
    assert command_line.main(given) == 0
    assert "10 rows are not measured" in capsys.readouterr().err


def test_tritons_seeds_are_of_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton compiles a kernel for 32 bits, one for 64, and others for multiples of 16: all calls must get the same one."""
    seeds: list[int] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            return lambda tensor, n, seed, **constants: seeds.append(seed)

    monkeypatch.setattr(triton_random.importlib.util, "find_spec", lambda name: name == "triton" or None)
    kernels = SimpleNamespace(KERNELS={("normal_", 1): Kernel()})
    monkeypatch.setattr(triton_random.importlib, "import_module", lambda name: kernels)
    for seed in (0, 3, 16, 2**32 - 1):
        draw = triton_random.open_triton(1, Wanted("normal_", (), torch.float32, seed=seed))
        assert not isinstance(draw, str)
        for _ in range(50):
            draw(torch.empty(4))
        assert len(set(seeds)) == 50, "each call has its own"
        assert all(2**32 <= of < 2**63 for of in seeds)
        assert len({of % 16 for of in seeds}) == 1
        seeds.clear()
