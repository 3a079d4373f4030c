"""The quality suite sees what it should and keeps quiet otherwise; the models' tables; the peers. On tiny samples."""

from __future__ import annotations

import doctest
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("rich", reason="the benchmarks' tables need rich")
pytest.importorskip("scipy", reason="the quality suite needs scipy")

import benchmarks.__main__ as command_line
from benchmarks import shapes
from benchmarks.case import Case
from benchmarks.contestants import BASELINE, OURS
from benchmarks.contestants.peers import PEERS, Peer, Wanted
from benchmarks.measuring import models
from benchmarks.measuring.correctness import WrongValuesError
from benchmarks.measuring.runner import Runner
from benchmarks.measuring.timing import Policy
from benchmarks.quality import Plan, findings, measure, power_failures, session, sources
from benchmarks.quality.laws import LAWS, cells
from benchmarks.quality.sample import Sample, distinct
from benchmarks.showing import quality_report
from benchmarks.suites import model as model_suite

TINY = Plan(4, 1 << 16, tail_values=1 << 20, long_tail_values=1 << 21, tail_piece=1 << 18, fills=16, fill_values=1 << 11)
WHAT = (("uniform", torch.float32), ("uniform", torch.bfloat16), ("normal", torch.float32), ("trunc_normal", torch.bfloat16))
POLICY = Policy(row_seconds=0.002, slice_seconds=1e-4, rounds=(2, 3))


@pytest.fixture(autouse=True)
def _own_sources_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Peers take time to load and to compile; one that is always there is enough."""
    monkeypatch.setattr(sources, "PEERS", [peer for peer in PEERS if peer.name == "numpy Philox"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def rows() -> list[session.QualityRow]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PEERS", [peer for peer in PEERS if peer.name == "numpy Philox"])
        return measure(TINY, "cpu", lambda name: None, WHAT)


def test_controls_are_seen_and_ours_is_not(rows: list[session.QualityRow]) -> None:
    assert power_failures(rows) == []
    by_name = {row.name: row for row in rows}
    for name, row in by_name.items():
        if row.source in (OURS, "numpy Philox") and not row.skipped:
            assert row.seen == [], name
    assert "pairs" in by_name["quality/uniform/float32/control: Philox, 5 rounds"].seen
    biased = by_name[f"quality/uniform/bfloat16/{BASELINE}"].seen
    assert "chi_square" in biased, "torch rewrites bfloat16 values that round to b as a"
    assert by_name["quality/uniform/bfloat16/numpy Philox"].skipped == "NumPy draws no bfloat16"


def test_without_power_the_run_says_so(rows: list[session.QualityRow]) -> None:
    blind = [row for row in rows if not row.control]
    control = next(row for row in rows if row.control == "std")
    right = next(row for row in rows if row.source == OURS and row.law == "normal")
    unseen = session.QualityRow("normal", torch.float32, control.source, 1, 1, right.findings, "std")
    assert power_failures(blind) == []
    assert power_failures([unseen]) == ["quality/normal/float32/control: 1 % too wide: not seen by std"]


def test_report_and_file(
    rows: list[session.QualityRow], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality_report, "measure", lambda *_: rows)
    file = tmp_path / "quality.json"
    assert command_line.main(["--suite", "quality", "--json", str(file)]) == 0
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert [row["name"] for row in kept["quality"]] == [row.name for row in rows]
    assert kept["rows"] == []
    tails = kept["quality"][[row.name for row in rows].index("quality/normal/float32/ours")]["findings"]["beyond 4"]
    assert tails["expected"] == pytest.approx(math.erfc(4 / math.sqrt(2)) * TINY.long_tail_values, rel=1e-4)
    assert "tails of normal" in capsys.readouterr().out
    monkeypatch.setattr(quality_report, "power_failures", lambda rows: ["blind"])
    assert command_line.main(["--suite", "quality"]) == 1


# ---- statistics -----------------------------------------------------------------------------------------------------


def draw(law: str, n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if law == "uniform":
        return torch.rand(n, generator=generator, dtype=torch.float64).float()
    return torch.randn(n, generator=generator, dtype=torch.float64).float()


WRONG: dict[str, tuple[str, Any]] = {
    "mean": ("normal", lambda x: x + 0.03),
    "std": ("normal", lambda x: x * 0.98),
    "chi_square": ("uniform", lambda x: torch.where((x > 0.5) & (x < 0.51), x + 0.01, x)),
    "ks": ("uniform", lambda x: x**1.03),
    "lags": ("normal", lambda x: (x + 0.02 * x.roll(5)) / (1 + 0.02**2) ** 0.5),
    "pairs": ("uniform", lambda x: torch.where(x.roll(2) > 0.95, 1 - x.roll(2), x)),
    "bounds": ("uniform", lambda x: torch.where(x > 0.99999, torch.ones_like(x), x)),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_statistic_sees(name: str) -> None:
    law, spoil = WRONG[name]
    right, wrong = (Sample(LAWS[law], torch.float32, 2 << 17) for _ in range(2))
    for seed in range(2):
        values = draw(law, 1 << 17, seed)
        right.add(values)
        wrong.add(spoil(values).clamp(max=1.0) if law == "uniform" else spoil(values))
    assert wrong.findings()[name].seen
    assert not any(finding.seen for finding in right.findings().values())


def test_tails_and_repetitions_are_counted() -> None:
    assert findings.count(0, 30.0).seen
    assert not findings.count(25, 30.0).seen
    assert findings.count(80, 30.0).seen
    assert distinct(torch.arange(8)).details["alike_as_log2"] is None
    assert distinct(torch.randint(1 << 16, (1 << 14,))).details["alike_as_log2"] == pytest.approx(16, abs=0.2)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cells_have_the_whole_probability(law: str, dtype: torch.dtype) -> None:
    found = cells(law, dtype, 1 << 20)
    assert found.probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    assert found.probabilities.min() * (1 << 20) >= 24
    assert len(found.edges) == len(found.probabilities) - 1 > 100


def test_philox_with_ten_rounds_is_ours() -> None:
    import numpy as np

    import weightinit_cuda as wi

    words = wi.bits(5, 3, 4096)
    made = sources.philox(np.arange(1024), 3, 5, rounds=10).reshape(-1)
    assert (torch.from_numpy(made.astype("int64")) == words.long() % 2**32).all()


# ---- peers ----------------------------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peers_draw_what_is_wanted_or_say_why_not(peer: Any) -> None:
    if "cpu" not in peer.devices:
        pytest.skip("draws on a GPU")
    threads = 1 if not peer.name.startswith("jax") else os.cpu_count()
    wanted = Wanted(peer.calls[0], (), torch.float32, threads, seed=3)
    drawn = peer.open(wanted)
    if isinstance(drawn, str):
        pytest.skip(drawn)
    tensor = torch.zeros(10_000)
    values = [torch.as_tensor(result if (result := drawn(tensor)) is not None else tensor).clone().double() for _ in range(2)]
    mean = 0.5 if wanted.call == "uniform_" else 0.0
    assert abs(float(values[0].mean()) - mean) < 0.05
    assert not torch.equal(*values), "a call goes on where the last one ended"
    assert "no " in str(peer.open(wanted._replace(dtype=torch.float8_e5m2)))


def test_a_peer_that_fails_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(wanted: Wanted) -> Any:
        return lambda tensor: 1 / 0

    monkeypatch.setattr(sources, "PEERS", [Peer("broken", fails)])
    rows = measure(TINY, "cpu", lambda name: None, WHAT[:1])
    assert {row.source: row.skipped for row in rows}["broken"] == "failed with ZeroDivisionError: division by zero"
    assert any(row.source == OURS and not row.skipped for row in rows)


TRITON = """
import os, sys, torch
from benchmarks.contestants.peers import PEERS, Peer, Wanted
for peer in PEERS:
    if not peer.name.startswith("triton"):
        continue
    for call, mean, std in (("uniform_", 0.5, 12**-0.5), ("normal_", 0.0, 1.0)):
        for dtype in (torch.float32, torch.bfloat16):
            draw, tensor = peer.open(Wanted(call, (), dtype, 1, 3)), torch.full((20_000,), torch.nan, dtype=dtype)
            values = [(draw(tensor), tensor.double().clone())[1] for _ in range(2)]
            assert not torch.equal(*values) and not values[0].isnan().any(), (peer.name, call)
            for found, wanted in ((values[0].mean(), mean), (values[0].std(), std)):
                assert abs(float(found) - wanted) < 0.03, (peer.name, call, dtype, found)
"""


@pytest.mark.peer
def test_tritons_kernels_interpreted() -> None:
    """Without a GPU: Triton's own interpreter runs them."""
    pytest.importorskip("triton", reason="triton is not installed")
    root = Path(__file__).parents[2]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", TRITON], env=environment, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


# ---- models ---------------------------------------------------------------------------------------------------------

SIZES = {
    "ResNet-50": (25_557_032, 161),
    "GPT-2": (124_439_808, 148),
    "ViT-L": (304_326_632, 392),
    "GPT-2 XL": (1_557_611_200, 580),
    "Llama-3-8B": (8_030_261_248, 291),
    "Mixtral-8x7B": (46_702_792_704, 291),
    "DeepSeek-V2-Lite": (15_706_484_224, 351),
}


def test_tables_have_the_published_sizes() -> None:
    assert set(SIZES) == set(shapes.MODELS)
    for name, size in SIZES.items():
        table = shapes.load(name)
        assert (table.values, len(table.parameters)) == size
        assert len({parameter.name for parameter in table.parameters}) == len(table.parameters)
        part = shapes.part_of(table)
        assert part.values <= shapes.PART
        assert bool(part.what) == (part.values != table.values)
    assert (shapes.load(shapes.SMALL).values, len(shapes.load(shapes.SMALL).parameters)) == (250 * 64 * 65, 500)
    assert not doctest.testmod(shapes).failed


def small_case(name: str, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(models, "PART", 300_000)
    part = shapes.part_of(shapes.load(name), 300_000)
    return Case(
        "model", name, "model", (), torch.bfloat16 if part.dtype == "bfloat16" else torch.float32, (part.values,), 1, ""
    )


@pytest.mark.parametrize("name", ["ViT-L", "DeepSeek-V2-Lite", shapes.SMALL])
def test_models_in_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = small_case(name, monkeypatch)
    row = Runner(POLICY).run(case)
    assert {OURS, "ours, plan applied", "ours, plan bound", BASELINE, "foreach_zero_"} <= set(row.seconds)
    assert set(row.peaks) in (set(), set(row.seconds))
    right = models.wi.initialize_

    def wrong(model: torch.nn.Module, *args: Any) -> torch.nn.Module:
        next(iter(right(model, *args).parameters())).detach().view(-1).view(torch.uint8)[0] ^= 1
        return model

    monkeypatch.setattr(models.wi, "initialize_", wrong)
    with pytest.raises(WrongValuesError, match="ours differs from the reference backend"):
        Runner(POLICY).run(case)


def test_models_built_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="models are built by transformers")
    thin = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    monkeypatch.setitem(models.SHORT, "ViT-L", thin)
    row = Runner(POLICY).run(Case("construct", "ViT-L", "construct", (), torch.float32, (1,), 1, ""))
    assert {"ours, deferred", "ours, patched", "eager"} <= set(row.seconds)
    assert row.case.values > 1000
    assert row.ratios["ours, deferred"]["eager"]["median"] > 0


def test_timm_is_asked_for_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's own import needs torchvision: a module of that name does here."""
    case = Case("construct", "timm some_model", "construct", (), torch.float32, (1,), 1, "")
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    assert "pip install timm" in Runner(POLICY).run(case).skipped["eager"]
    asked = []

    def create_model(name: str) -> torch.nn.Module:
        asked.append(name)
        return torch.nn.Linear(64, 64)

    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    row = Runner(POLICY).run(case)
    assert set(asked) == {"some_model"}
    assert row.case.values == 64 * 65
    assert {"ours, deferred", "eager"} <= set(row.seconds)


def test_suite_of_models() -> None:
    cases = model_suite.cases([1, 2])
    assert len({case.name for case in cases}) == len(cases) == 2 * 7 + 6 + len(models.OF_TORCH) + len(model_suite.TIMM)
    labels = {case.label for case in model_suite.cases([1], full=True) if case.group == "model"}
    assert labels == {*SIZES, shapes.SMALL} - {"GPT-2"}
