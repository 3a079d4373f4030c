"""The demo on models that fit into a test: its checks let the right through and nothing else."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import weightinit_cuda as wi
from weightinit_cuda import __main__ as command_line
from weightinit_cuda.cli import bench, demo
from weightinit_cuda.numerics.distributions import Constant, Normal

needs_models = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("rich", "transformers")), reason="needs rich and transformers"
)
TINY = {
    "gpt2": demo.Model(
        "tiny GPT-2", lambda t: t.GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=500, n_positions=64), torch.float32, 0.0
    ),
    "llama": demo.Model(
        "tiny Llama",
        lambda t: t.LlamaConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
            vocab_size=500,
            tie_word_embeddings=True,
        ),
        torch.bfloat16,
        0.0,
    ),
}


def sample(dtype: torch.dtype = torch.float32, std: float = 0.02, n: int = 100_000, seed: int = 1) -> torch.Tensor:
    return wi.init.normal_(torch.empty(n, dtype=dtype), std=std, seed=seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_are_scipys(dtype: torch.dtype) -> None:
    one, other = sample(dtype, n=3000), sample(dtype, n=2000, seed=2)
    expected = stats.ks_1samp(one.double().numpy(), lambda x: stats.norm.cdf(x, 0, 0.021)).statistic
    assert demo.distance(one, Normal(0.0, 0.021)) == pytest.approx(expected, abs=1e-6)
    expected = stats.ks_2samp(np.asarray(one), np.asarray(other)).statistic
    assert demo.distance_between(one, other) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_no_distance(dtype: torch.dtype) -> None:
    exact = sample(torch.float32, std=1.0)
    assert demo.distance(exact.to(dtype), Normal(0.0, 1.0)) < demo.KOLMOGOROV / math.sqrt(exact.numel())


@pytest.mark.parametrize(
    ("ours", "fault"),
    [
        (sample(), None),
        (sample(std=0.0205), "std"),
        (sample() + 0.0005, "mean"),
        (sample().clamp(-0.03, 0.03), "distance"),
        (torch.empty(100_000).uniform_(-0.0346, 0.0346, generator=torch.Generator().manual_seed(0)), "distance from torch's"),
        (sample().fill_(math.nan), "mean"),
    ],
    ids=["right", "std", "mean", "clipped", "uniform", "nan"],
)
def test_check_of_a_normal(ours: torch.Tensor, fault: str | None) -> None:
    found = demo.check("group", Normal(0.0, 0.02), ours, sample(seed=2)).faults
    assert [text for text in found if text.startswith(f"{fault}:")] if fault else not found


def test_check_notices_that_nothing_was_patched() -> None:
    assert "patched() had no effect" in demo.check("group", Normal(0.0, 0.02), sample(), sample()).faults[0]


def test_check_of_a_constant() -> None:
    ones, almost = torch.ones(10), torch.ones(10).index_fill(0, torch.tensor([3]), 1.001)
    assert demo.check("group", Constant(1.0), ones, ones).faults == ()
    assert demo.check("group", Constant(1.0), almost, ones).faults == ("ours: not all 1",)
    assert demo.check("group", Constant(1.0), ones, almost).faults == ("torch's: not all 1",)


def test_samples_take_every_word_of_a_block() -> None:
    picked = demo.sample_of(torch.arange(4 * demo.SAMPLE))
    assert demo.SAMPLE / 2 < picked.numel() <= demo.SAMPLE
    assert set((picked % 4).tolist()) == {0, 1, 2, 3}


@needs_models
@pytest.mark.parametrize("name", TINY)
def test_compare(name: str) -> None:
    import transformers

    steps: list[str] = []
    result = demo.compare(TINY[name], transformers, steps.append)
    assert result.faults == []
    assert len(steps) == demo.STEPS
    assert set(result.ours.digests) == {1, 2}
    assert {type(row.asked) for row in result.checks} == {Normal, Constant}
    assert all(row.ours for row in result.checks if isinstance(row.asked, Normal))
    assert not result._replace(ours=result.ours._replace(digests={1: "a", 2: "a"})).faults
    (fault,) = result._replace(ours=result.ours._replace(digests={1: "a", 2: "b"})).faults
    assert "other bits with another number of threads" in fault


@needs_models
def test_initialising_again_reaches_every_parameter() -> None:
    import transformers

    config = TINY["gpt2"].config(transformers)
    net = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(math.nan)
    demo._initialise_again(net, wi.patched)
    assert not any(bool(parameter.isnan().any()) for parameter in net.parameters())


@needs_models
def test_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "MODELS", {"gpt2": TINY["gpt2"], "large": replace(TINY["llama"], name="large", gib=math.inf)})
    assert command_line.main(["demo"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "tiny GPT-2",
        "init_weights()",
        "times as fast",
        "transformer.h.*.mlp.c_proj.weight",
        "left out: large takes inf GiB",
    ):
        assert part in shown


@needs_models
def test_main_fails_where_a_check_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(name: str, config: Any) -> Normal | Constant:
        return Normal(0.0, 0.03) if name.endswith("wte.weight") else right(name, config)

    right = demo.intended
    monkeypatch.setattr(demo, "MODELS", TINY)
    monkeypatch.setattr(demo, "intended", wrong)
    assert command_line.main(["demo", "--model", "gpt2"]) == 1
    shown = capsys.readouterr().out
    assert "wrong" in shown
    assert "tiny GPT-2: transformer.wte.weight: std:" in shown
    assert "Llama" not in shown


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "transformers" else object())
    assert demo.main() == 2
    assert "transformers not installed. pip install 'weightinit_cuda[demo]'" in capsys.readouterr().err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["doctor"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["backend"] == wi.backend_info().backend
    assert rows["torch"] == torch.__version__
    assert rows["cpu"] == wi.backend_info().cpu


def test_bench_hands_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(sys, "argv", ["weightinit_cuda", "bench", "--list"])
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(bench.runpy, "run_module", lambda name, **kwargs: called.append((name, sys.argv[1:])))
    assert command_line.main(["bench", "--suite", "fill", "--list"]) == 0
    assert called == [("benchmarks", ["--suite", "fill", "--list"])]
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "weightinit_cuda" / "cli" / "bench.py"))
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__main__.py").write_text("raise SystemExit('somebody else')")
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["bench"]) == 2
    assert "come with the source tree" in capsys.readouterr().err


def test_bench_is_ours_where_others_have_one(tmp_path: Path) -> None:
    """Power: Python alone would take the other one, which is installed (torchrl has one) and imported already."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("")
    (tmp_path / "benchmarks" / "__main__.py").write_text("raise SystemExit('somebody else')")
    code = "import sys; from benchmarks import __path__; from weightinit_cuda.__main__ import main; "
    code += "sys.exit(main(['bench', '--help']))"
    root = Path(__file__).parents[2]
    own = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--suite" in done.stdout


def test_unknown_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["doctor", "--what"], ["cure"], []):
        assert command_line.main(arguments) == 2
    assert "No such option '--what'" in capsys.readouterr().err
