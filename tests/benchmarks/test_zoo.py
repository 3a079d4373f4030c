"""The suite ``zoo``: its comparison sees planted differences only, its processes fail alone, its page is its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import __main__ as command_line
from benchmarks.showing import readme_table, zoo_table
from benchmarks.suites import zoo
from benchmarks.suites.zoo import measures

pytest.importorskip("scipy")
comparing = pytest.importorskip("benchmarks.suites.zoo.comparing")


class Net(nn.Module):
    """All kinds of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32, padding_idx=3)
        self.norm = nn.BatchNorm1d(32)
        self.layer = nn.Linear(32, 64)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.embedding.weight
        self.square = nn.Linear(128, 128, bias=False)
        nn.init.orthogonal_(self.square.weight)
        self.register_buffer("angles", torch.arange(8) ** 0.5, persistent=False)
        self.scale = torch.tensor(2.0)


def built(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net()


@pytest.fixture(scope="module")
def eager() -> Any:
    return comparing.eager_of(built)


def test_what_is_constant_and_what_is_random(eager: Any) -> None:
    assert set(eager.random) == {"embedding.weight", "head.weight", "layer.weight", "layer.bias", "square.weight"}
    assert {"norm.weight", "norm.running_var", "angles", "scale"} <= set(eager.constant)
    assert not eager.unwritten


@pytest.mark.parametrize("seed", range(3, 8))
def test_other_seeds_are_no_difference(eager: Any, seed: int) -> None:
    assert comparing.differences(eager, comparing.held(built(seed))) == []


def untied(net: Net) -> None:
    net.head.weight = nn.Parameter(net.embedding.weight.detach().clone())


def tied(net: Net) -> None:
    net.norm.bias = nn.Parameter(net.norm.weight.detach())
    nn.init.zeros_(net.norm.weight)


def rows_of_other_sizes(net: Net) -> None:
    with torch.no_grad():  # the same values altogether
        net.layer.weight.copy_(net.layer.weight.flatten().sort().values.reshape(net.layer.weight.shape))


PLANTED: dict[str, tuple[Callable[[Net], object], str]] = {
    "std": (lambda net: net.layer.weight.data.mul_(1.3), "layer.weight: standard deviation of another distribution"),
    "mean": (lambda net: net.layer.weight.data.add_(0.05), "layer.weight: mean of another distribution"),
    "distribution": (lambda net: net.embedding.weight.data.uniform_(-(3**0.5), 3**0.5), "embedding.weight: "),
    "rows": (rows_of_other_sizes, "layer.weight: sizes of rows"),
    "no rotation": (lambda net: net.square.weight.data.normal_(0, 128**-0.5), "square.weight: sizes of rows"),
    "constant": (lambda net: net.norm.weight.data.fill_(1.001), "norm.weight: constant, and differs"),
    "buffer": (lambda net: net.angles.add_(1e-6), "angles: constant, and differs"),
    "attribute": (lambda net: net.scale.zero_(), "scale: constant, and differs"),
    "padding": (lambda net: net.embedding.weight.data[3].normal_(), "32 elements are constants, and 100% of them differ"),
    "not finite": (lambda net: net.layer.bias.data.fill_(torch.nan), "layer.bias: random, and not finite"),
    "no draw": (lambda net: net.layer.weight.data.zero_(), "layer.weight: "),
    "missing tie": (untied, "embedding.weight, head.weight: one object in eager only"),
    "dtype": (lambda net: net.layer.bfloat16(), "layer.weight: dtype torch.bfloat16, eager torch.float32"),
    "shape": (lambda net: setattr(net, "scale", torch.ones(1)), "scale: shape (1,), eager ()"),
    "missing": (lambda net: net.register_parameter("extra", nn.Parameter(torch.ones(1))), "extra: eager has none"),
    "no grad": (lambda net: net.layer.bias.requires_grad_(False), "layer.bias: requires_grad False"),
    "saved": (lambda net: net._non_persistent_buffers_set.clear(), "angles: kind buffer, eager buffer (not saved)"),
    "tied": (tied, "norm.bias, norm.weight: one memory here only"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_planted_differences_are_seen(eager: Any, what: str) -> None:
    net, (plant, line) = built(3), PLANTED[what]
    plant(net)
    assert any(line in found for found in comparing.differences(eager, comparing.held(net)))


def test_memory_that_nobody_writes_is_named() -> None:
    def forgetful(seed: int) -> nn.Module:
        net = built(seed)
        net.never = nn.Parameter(torch.empty(8))
        return net

    assert comparing.eager_of(forgetful).unwritten == ("never",)


def test_values_and_times_of_a_model() -> None:
    found = measures.values(Net)
    assert found["patched"]["count"] == found["deferred"]["count"] == 0, found
    assert found["patched"]["filled_values"] == 50 * 32 + 32 * 64 + 64 + 128 * 128
    times = measures.times(lambda: nn.Linear(3, 3))
    assert set(times["ratios"]) == {"patched", "deferred"}
    assert measures.LEAST_ROUNDS < times["rounds"] <= measures.ROUNDS
    first = measures.first(lambda: nn.Linear(3, 3))["seconds"]
    assert list(first) == ["eager", "patched", "deferred"]
    assert all(seconds > 0 for seconds in first.values())


def test_a_first_build_that_fails_is_said() -> None:
    with pytest.raises(RuntimeError, match="must end"):
        measures.first(lambda: measures.os._exit(1))  # type: ignore[attr-defined]


class Drawn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.by_init = nn.Parameter(nn.init.normal_(torch.empty(60)))
        self.by_torch = nn.Parameter(torch.randn(40))
        self.by_generator = nn.Parameter(torch.randn(30, generator=torch.default_generator))


def test_draws_of_torch_are_tried_as_ours() -> None:
    patched = measures.values(Drawn)["patched"]
    assert patched["filled_values"] == 60
    assert patched["drawn_values"] == {"torch.randn": 70}
    assert patched["draws"]["filled_values"] == 100
    assert patched["draws"]["drawn_values"] == {"torch.randn": 30}
    assert patched["draws"]["count"] == patched["count"] == 0
    assert "draws" not in measures.values(Net)["patched"]


@pytest.mark.parametrize(
    ("ratios", "settled"),
    [([0.5] * 3, False), ([0.5] * 4, True), ([0.5, 0.6] * 5, False), ([0.5, 0.505] * 5, True), ([0.5, 1.5] * 12, False)],
)
def test_rounds_end_when_the_medians_are_known(ratios: list[float], settled: bool) -> None:
    taken = {"eager": [2.0] * len(ratios), "patched": [2.0] * len(ratios), "deferred": [2 * ratio for ratio in ratios]}
    assert measures._settled(taken) is settled


def test_a_wrong_value_of_ours_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures.wi.Recording, "materialize_", _wider(measures.wi.Recording.materialize_))
    found = measures.values(Net)
    assert found["patched"]["count"] == 0
    assert "layer.weight: standard deviation" in found["deferred"]["differences"][0]


def _wider(materialize: Any) -> Any:
    def wrong(self: Any, model: nn.Module, **arguments: Any) -> nn.Module:
        made: Any = materialize(self, model, **arguments)
        made.layer.weight.data.mul_(2)
        return made

    return wrong


# ---- processes -------------------------------------------------------------------------------------------------------


def test_a_process_fails_alone() -> None:
    assert zoo.run("values", "torch", "torch.os._exit(3)") == {"failed": "its process ended with status 3"}
    assert zoo.run("values", "torch", "nn.Linear(2)")["failed"].startswith("TypeError: ")
    assert zoo.run("values", "torch", "nn.Linear(8, 8)", limit=0.0) == {"failed": "took more than 0 s"}
    assert zoo.run("version", "torch") == {"version": torch.__version__}
    found = zoo.run("values", "torch", "nn.Linear(8, 8)")
    assert found["patched"]["count"] == found["deferred"]["count"] == 0


def test_a_run_adds_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    draws = {"differences": [], "count": 0, "filled_values": 7, "drawn_values": {}}
    equal = {"differences": [], "count": 0, "filled_values": 3, "drawn_values": {"torch.randn": 1}, "draws": draws}
    wrong = {"differences": ["a: constant, and differs"], "count": 2}
    answers = {
        "version": {"version": "1.2"},
        "values": {"unwritten": [], "patched": equal, "deferred": equal},
        "times": {"seconds": {"eager": {"median": 0.01}}, "ratios": {"patched": 0.5, "deferred": 1.25}},
        "first": {"seconds": {"eager": 0.001, "patched": 0.002, "deferred": 0.03}},
    }

    def answer(task: str, library: str, configuration: str = "", limit: float = 0) -> dict[str, Any]:
        if library == "timm":
            return {"failed": "ImportError: no"}
        if task == "values" and configuration == "second":
            return answers["values"] | {"deferred": wrong}
        return answers[task]

    monkeypatch.setattr(zoo_table.zoo, "run", answer)
    monkeypatch.setattr(zoo_table.zoo, "configurations", lambda library: ["first", "second"])
    file = tmp_path / "zoo.json"
    command = ["--suite", "zoo", "--json", str(file), "--library", "timm,torch"]
    assert command_line.main([*command, "--task", "values"]) == 1
    assert command_line.main([*command, "--task", "times,first", "--part", "2/2"]) == 1
    assert "torch second; differs: deferred: a: constant, and differs (and 1 more)" in capsys.readouterr().out
    page = zoo_table.render(json.loads(file.read_text(encoding="utf-8")))
    assert "| timm | not tried | - |" in page
    assert "| torch | 1.2 | 2 | 2 | 1 | 75.00% | 100.00% | 0.50 | 0.50 | 1.25 | 1.25 |" in page
    assert "| torch | 1 | 1 | 2 | 30 |" in page
    assert "Not timed, because no run came to them: 1 of torch." in page
    assert "Slower than eager by more than 10%: 1 of 1 configurations" in page
    assert "* torch `second`: deferred: a: constant, and differs (and 1 more)" in page
    assert "| torch | `torch.randn` | 2 | 2 | 0 |" in page
    answers["times"] = answers["first"] = {"failed": "no"}
    assert command_line.main([*command, "--task", "times", "--only", "ir"]) == 1
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["configuration"], "failed" in row["times"]) for row in rows] == [("first", True), ("second", False)]


def test_other_values_under_draws_are_a_difference() -> None:
    same = {"differences": [], "count": 0}
    other = {"differences": ["a: constant, and differs"], "count": 1}
    row = {"values": {"unwritten": [], "patched": {**same, "draws": other}, "deferred": same}}
    assert zoo_table._state(row) == "differs"
    assert zoo_table._why(row) == "patched with draws: a: constant, and differs"


@pytest.mark.parametrize("wrong", ["0/4", "5/4", "half"])
def test_wrong_parts(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["--suite", "zoo", "--part", wrong])
    assert "must be a part such as 1/4" in capsys.readouterr().err


# ---- what is committed -----------------------------------------------------------------------------------------------


def test_the_page_has_the_tables_of_the_results() -> None:
    assert zoo_table.update(check=True), "make readme-table"
    assert readme_table.BEGIN in zoo_table.PAGE.read_text(encoding="utf-8")


def test_the_file_has_every_configuration() -> None:
    found = json.loads(zoo_table.RESULTS.read_text(encoding="utf-8"))
    rows = {(row["library"], row["configuration"]) for row in found["rows"]}
    assert rows == {(library, name) for library in zoo.LIBRARIES for name in zoo.configurations(library)}
