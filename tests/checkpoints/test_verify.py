"""Checkpoints against plans: what ``init`` writes, ``verify`` and safetensors read; every kind of damage is found."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitwise import differing
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.__main__ import main
from weightinit_cuda.checkpoints import regenerate as regeneration
from weightinit_cuda.checkpoints.export import export
from weightinit_cuda.checkpoints.verify import Finding, Report, verify
from weightinit_cuda.numerics.distributions import Computed, Constant, Distribution, Normal, Orthogonal
from weightinit_cuda.numerics.streams import stream_of
from weightinit_cuda.plans.entry import Entry
from weightinit_cuda.plans.plan import Plan
from weightinit_cuda.tensors.boxes import Box

safetensors = pytest.importorskip("safetensors.torch")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64)


NORMAL = Normal(0.0, 0.02)


def entry(name: str, shape: tuple[int, ...], fill: Distribution = NORMAL, dtype: torch.dtype = torch.float32) -> Entry:
    return Entry(name, shape, dtype, fill, stream_of(name), "test")


def every_dtype() -> Plan:
    """Scalars, empty tensors and odd sizes of every dtype, so that offsets in a file are as awkward as they get."""
    entries = [entry(f"{dtype}.{len(shape)}"[6:], shape, dtype=dtype) for dtype in DTYPES for shape in ((3, 5, 7), (), (0, 4))]
    count = entry("count", (), Constant(3), torch.int64)._replace(buffer=True)
    return Plan((*entries, count, entry("q", (6, 4), Orthogonal(2.0))), seed=11)


def filled(plan: Plan) -> dict[str, Tensor]:
    tensors = {name: torch.empty(plan[name][0].shape, dtype=plan[name][0].dtype) for name in plan.names()}
    plan.fill_(tensors)
    return tensors


def network() -> tuple[nn.Module, Plan]:
    """With a tied weight, and buffers."""
    net = nn.ModuleDict({"embed": nn.Embedding(7, 4), "norm": nn.LayerNorm(4), "head": nn.Linear(4, 7, bias=False)})
    net["head"].weight = net["embed"].weight
    plan = wi.plan(net, rules="torch", seed=3)
    return plan.apply_(net), plan


@pytest.fixture(params=[1 << 22, 16], ids=["one chunk", "many chunks"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regeneration, "_STREAMED", request.param)


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("chunked")
def test_export_is_the_filled_model(tmp_path: Path) -> None:
    plan = every_dtype()
    (file,) = export(plan, tmp_path / "model.safetensors")
    loaded = safetensors.load_file(file)
    assert loaded.keys() == set(plan.names())
    for name, tensor in filled(plan).items():
        assert differing(loaded[name], tensor) == 0, name
    assert verify(plan, file).ok
    assert verify(plan, file).counts == {"equal": len(plan.names())}
    assert not [path for path in tmp_path.iterdir() if path != file]


def test_values_in_files_are_aligned(tmp_path: Path) -> None:
    """A reader may map them: every tensor begins at a multiple of its element size."""
    for more in ("", "1", "12345", "1234567"):
        plan = Plan((entry(f"name{more}", (3,), dtype=torch.bfloat16), *every_dtype()))
        (file,) = export(plan, tmp_path / f"a{more}.safetensors")
        data = file.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        assert length % 8 == 0
        assert header.pop("__metadata__")["format"] == "pt"
        for place in header.values():
            begin, end = place["data_offsets"]
            count = math.prod(place["shape"])
            assert count == 0 or begin % ((end - begin) // count) == 0


@pytest.mark.usefixtures("chunked")
def test_export_in_shards(tmp_path: Path) -> None:
    plan = Plan(tuple(entry(f"layers.{i}.w", (10, 10)) for i in range(7)), seed=1)
    written = export(plan, tmp_path / "out", shard_bytes=900)
    assert [path.name for path in written] == [
        *(f"model-{i:05d}-of-00004.safetensors" for i in range(1, 5)),
        "model.safetensors.index.json",
    ]
    index = json.loads(written[-1].read_text())
    assert index["metadata"]["total_size"] == 7 * 400
    assert index["weight_map"].keys() == set(plan.names())
    assert all(name in safetensors.load_file(tmp_path / "out" / file) for name, file in index["weight_map"].items())
    for source in (tmp_path / "out", written[-1], written[:-1]):
        assert verify(plan, source).ok
    assert verify(plan, written[0]).counts == {"equal": 2, "missing": 5}


def test_export_with_another_seed(tmp_path: Path) -> None:
    plan = every_dtype()
    (file,) = export(plan, tmp_path / "a.safetensors", seed=12)
    assert verify(plan.with_seed(12), file).ok
    assert verify(plan, file, seed=12).ok
    assert not verify(plan, file).ok
    with safetensors.safe_open(file, "pt") as opened:
        assert opened.metadata()["seed"] == "12"


def test_export_refuses_before_it_writes(tmp_path: Path) -> None:
    lines = (entry("a", (4,), Computed("arange")), entry("b", (4,))._replace(box=Box((0,), (2,))), entry("c", (4,)))
    with pytest.raises(
        ValueError, match=r"(?s)export: the plan must say every value.*a: arange is what.*b: the plan has no entry"
    ):
        export(Plan(lines), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"dtype of safetensors is required, got torch.complex128 \(z\)"):
        export(Plan((entry("z", (4,), dtype=torch.complex128),)), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    def stop(amount: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(every_dtype(), tmp_path / "a.safetensors", progress=stop)
    assert not list(tmp_path.iterdir())


def test_computed_buffers_are_left_out(tmp_path: Path) -> None:
    lines = (entry("w", (4,)), entry("angles", (4,), Computed("arange"))._replace(buffer=True))
    (file,) = export(Plan(lines), tmp_path / "a.safetensors")
    assert verify(Plan(lines), file).counts == {"equal": 1, "absent": 1}


# ---- verify ---------------------------------------------------------------------------------------------------------

DAMAGES: dict[str, tuple[Callable[[Tensor], None], int, tuple[int, ...]]] = {
    "one bit": (lambda w: w.view(torch.int32)[5, 2].bitwise_xor_(1), 1, (5, 2)),
    "a sign of zero": (lambda w: w[6, 3].fill_(-0.0), 1, (6, 3)),
    "a row": (lambda w: w[3].neg_(), 4, (3, 0)),
    "a column": (lambda w: w[:, 1].add_(1), 7, (0, 1)),
    "two exchanged": (lambda w: w.copy_(w[[0, 1, 4, 3, 2, 5, 6]]), 8, (2, 0)),
    "all": (lambda w: w.fill_(float("nan")), 28, (0, 0)),
}


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_and_placed(damage: tuple[Callable[[Tensor], None], int, tuple[int, ...]], tmp_path: Path) -> None:
    change, count, first = damage
    plan = Plan((entry("w", (7, 4)), entry("v", (3,))), seed=5)
    tensors = filled(plan)
    if count == 1 and first == (6, 3):
        plan = Plan((entry("w", (7, 4), Constant(0.0)), entry("v", (3,))), seed=5)
        tensors = filled(plan)
    change(tensors["w"])
    safetensors.save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pt")
    for source in (tensors, tmp_path / "a.safetensors", tmp_path / "a.pt"):
        report = verify(plan, source)
        assert report.findings == (Finding("w", "differs", 28, count, first), Finding("v", "equal", 3))
        assert not report.ok


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype: torch.dtype) -> None:
    plan = Plan((entry("w", (9, 4), dtype=dtype),))
    tensors = filled(plan)
    assert verify(plan, tensors).ok
    assert verify(plan, {"w": tensors["w"].T.contiguous().T}).ok
    tensors["w"].view(torch.uint8)[4, -1] ^= 1
    assert verify(plan, tensors).findings[0][3:5] == (1, (4, 3))


@pytest.mark.usefixtures("chunked")
def test_models_and_ties(tmp_path: Path) -> None:
    net, plan = network()
    assert [f.name for f in verify(plan, net).findings if f.name.endswith("d.weight")] == ["embed.weight", "head.weight"]
    assert verify(plan, net).ok
    safetensors.save_model(net, str(tmp_path / "a.safetensors"))  # keeps one name of tied ones
    assert verify(plan, tmp_path / "a.safetensors").ok
    state = net.state_dict()
    state["head.weight"] = state["head.weight"] + 1
    report = verify(plan, state)
    assert [f.name for f in report.findings if f.status == "differs"] == ["head.weight"]


def test_other_names_shapes_and_dtypes() -> None:
    buffer = entry("seen", (), Constant(0), torch.int64)._replace(buffer=True)
    lines = (*(entry(name, (4, 2)) for name in "abcd"), buffer, entry("e", (3,), Computed("arange")))
    tensors = filled(Plan(lines))
    del tensors["c"], tensors["seen"]
    tensors |= {"a": tensors["a"].T, "b": tensors["b"].half(), "x": torch.ones(3), "e": torch.arange(3.0)}
    report = verify(Plan(lines), tensors)
    assert {f.name: f.status for f in report.findings} == {
        "a": "shape", "b": "dtype", "c": "missing", "d": "equal", "e": "unchecked", "seen": "absent", "x": "extra"
    }  # fmt: skip
    assert not report.ok
    assert verify(Plan(lines), tensors, ignore=["[abc]", "x"]).ok
    text = str(report)
    for words in (
        "7 tensors: 1 shape",
        "(2, 4), in the plan (4, 2)",
        "torch.float16, in the plan torch.float32",
        "arange is what",
    ):
        assert words in text
    assert "1 equal" in text
    assert "\nd " not in text
    assert str(Report((Finding("d", "equal", 8),))) == "1 tensors: 1 equal"


def test_orthogonal_differences_say_so() -> None:
    plan = Plan((entry("w", (5, 3), Orthogonal(1.0)),))
    (finding,) = verify(plan.with_seed(1), filled(plan)).findings
    assert finding[:5] == ("w", "differs", 15, 15, (0, 0))
    assert "QR may differ between machines" in finding.note


def test_wrapped_state_dicts(tmp_path: Path) -> None:
    net, plan = network()
    for number, wrapped in enumerate(({"model": net.state_dict(), "step": 3}, {"state_dict": net.state_dict()})):
        torch.save(wrapped, tmp_path / f"{number}.pt")
        assert verify(plan, tmp_path / f"{number}.pt").ok
    torch.save(net.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert verify(plan, tmp_path / "old.pt").ok


def test_what_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan((entry("w", (2,)),))
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    (tmp_path / "bad.index.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    torch.save({"w": torch.ones(2), "step": 3}, tmp_path / "mixed.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "good.pt")
    for source, error, words in (
        ("nowhere.pt", FileNotFoundError, "which does not exist"),
        ("empty", FileNotFoundError, "a folder with a .safetensors file"),
        ("bad.safetensors", ValueError, "a safetensors file is required"),
        ("bad.pt", ValueError, "a file of safetensors or torch.save is required"),
        ("bad.index.json", ValueError, 'an index with a "weight_map" is required'),
        ("list.pt", ValueError, "tensors by name are required, got list"),
        ("mixed.pt", ValueError, "must be a strided tensor with memory, got step"),
    ):
        with pytest.raises(error, match=words):
            verify(plan, tmp_path / source)
    with pytest.raises(ValueError, match="every name must be in one file, got w twice"):
        verify(plan, [tmp_path / "good.pt", tmp_path / "good.pt"])
    (tmp_path / "a.index.json").write_text('{"weight_map": {"w": "good.pt", "v": "good.pt"}}')
    with pytest.raises(ValueError, match="must have every name of the index, got none of v"):
        verify(plan, tmp_path / "a.index.json")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"requires safetensors\. pip install"):
        verify(plan, tmp_path / "bad.safetensors")


def test_only_chunks_are_in_memory(tmp_path: Path) -> None:
    """A checkpoint of 400 MB written and verified in a process that may not grow by a third of it."""
    program = """
import resource, sys, weightinit_cuda as wi
plan = wi.Plan.load(sys.argv[1])
small = wi.Plan((plan.entries[0]._replace(shape=(8, 8)),))
wi.export(small, sys.argv[2])
wi.verify(small, sys.argv[2])  # whatever is loaded on first use
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wi.export(plan, sys.argv[2], overwrite=True)
assert wi.verify(plan, sys.argv[2]).ok
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    Plan((entry("w", (50_000, 1000)), entry("v", (50_000, 1000)))).save(tmp_path / "plan.json")
    arguments = [sys.executable, "-c", program, tmp_path / "plan.json", tmp_path / "a.safetensors"]
    grown = int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    assert grown < 130_000, f"{grown} kB"


# ---- command line ---------------------------------------------------------------------------------------------------


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, plan = network()
    file, model = str(tmp_path / "init.json"), str(tmp_path / "model.safetensors")
    plan.save(file)
    assert main(["init", file, "--out", model]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    assert main(["verify", file, model]) == 0
    assert capsys.readouterr().out == "3 tensors: 3 equal\n"
    assert main(["verify", file, model, "--all"]) == 0
    assert "embed.weight" in capsys.readouterr().out
    assert main(["verify", file, model, "--seed", "0x4"]) == 1
    assert "differs" in capsys.readouterr().out
    torch.save(net.state_dict(), tmp_path / "net.pt")
    assert main(["verify", file, str(tmp_path / "net.pt")]) == 0
    torch.save({**net.state_dict(), "more": torch.ones(1)}, tmp_path / "more.pt")
    assert main(["verify", file, str(tmp_path / "more.pt")]) == 1
    assert main(["verify", file, str(tmp_path / "more.pt"), "--ignore", "mo*"]) == 0


def test_commands_with_dtype_and_shards(tmp_path: Path) -> None:
    _, plan = network()
    file, out = str(tmp_path / "init.json"), str(tmp_path / "out")
    plan.save(file)
    assert main(["init", file, "--out", out, "--dtype", "bfloat16", "--seed", "9", "--shard-size", "1e-9"]) == 0
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 3
    assert main(["verify", file, out, "--dtype", "torch.bfloat16", "--seed", "9"]) == 0
    assert main(["verify", file, out, "--seed", "9"]) == 1


def test_commands_say_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, plan = network()
    plan.save(tmp_path / "init.json")
    for arguments, words in (
        (["verify", "nowhere.json", "nowhere.pt"], "nowhere.json"),
        (["verify", str(tmp_path / "init.json"), "nowhere.pt"], "a file is required, got nowhere.pt"),
        (["init", str(tmp_path / "init.json"), "--out", str(tmp_path), "--dtype", "int8"], "--dtype: a floating-point dtype"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
