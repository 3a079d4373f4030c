"""A report for people and programs, against other rules, from a training loop, and on the command line."""

from __future__ import annotations

import copy
import html.parser
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import GPT, mlp, quiet  # noqa: F401 a fixture
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda.__main__ import main

X = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))


def deep(rules: Any) -> nn.Module:
    return wi.initialize_(mlp(30, 64, nn.ReLU), rules, seed=0)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_names_that_programs_use() -> None:
    report = wi.probe(deep("xavier"), X)
    assert isinstance(report, wi.ProbeReport)
    assert report.verdict == "FAIL"
    finding = report.findings[0]
    assert (finding.level, finding.code) == ("FAIL", "signal_vanishes")
    assert 'rules="kaiming"' in finding.text
    assert finding.value < -finding.limit
    assert len(report.rows) == 61
    assert wi.probe(deep("kaiming"), X, target=torch.arange(64) % 10).verdict in ("WARN", "ok")
    assert wi.Report is not wi.ProbeReport
    assert wi.diagnose.__module__.endswith("doctor")
    assert wi.examine.__module__.endswith("doctor")


def test_printed() -> None:
    text = str(wi.probe(deep("xavier"), X))
    first, *lines = text.splitlines()
    assert first == "FAIL: Sequential, 61 places"
    assert lines[0].startswith("  FAIL signal_vanishes: the signal shrinks x ")
    assert "... 41 more" in text
    assert text.count(".weight ") == 20 // 2
    assert max(map(len, lines[3:])) <= 160
    small = str(wi.probe(mlp(1, 8, nn.ReLU), X, target=torch.arange(64) % 10))
    assert "first loss 2." in small
    assert "more" not in small


# ---- HTML ------------------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Tags that are open, and what was seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_one_page_without_scripts_or_links(tmp_path: Path) -> None:
    report = wi.probe(deep("xavier"), X)
    path = report.html(tmp_path / "probe.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    tags = [tag for tag, _ in page.seen]
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert not [attrs for _, attrs in page.seen if {"src", "href", "onclick"} & attrs.keys()]
    assert tags.count("tr") == 1 + len(report.rows)
    assert tags.count("svg") == 4, "forward, gradient, rank, dead"
    for finding in report.findings:
        assert finding.text in page.text
    lines = [attrs["points"].split() for tag, attrs in page.seen if tag == "polyline"]
    assert [len(points) for points in lines] == [31, 31, 31, 31, 30], "of the last one the activations"
    assert all(0 <= float(n) <= 430 for points in lines for point in points for n in point.split(","))


def test_html_escapes_names_and_takes_extremes() -> None:
    net = nn.ModuleDict({"<b>": nn.Linear(64, 4)})
    net.forward = lambda x: net["<b>"](x)  # type: ignore[method-assign]
    assert "&lt;b&gt;.weight" in wi.probe(net, X)._repr_html_()
    for fill in (nn.init.zeros_, lambda w: nn.init.constant_(w, math.nan), lambda w: nn.init.constant_(w, 1e30)):
        broken = mlp(3, 8, nn.Sigmoid)
        for parameter in broken.parameters():
            fill(parameter)
        report = wi.probe(broken, X)
        assert report.verdict == "FAIL"
        assert Page(report._repr_html_()).open == []
        assert str(report)


# ---- comparing -------------------------------------------------------------------------------------------------------


def test_rules_are_ranked_and_the_model_is_as_before() -> None:
    net = deep("lecun")
    net.register_buffer("steps", torch.arange(3.0))
    before, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    found = wi.probe(net, X, target=torch.arange(64) % 10).compare(["xavier", "kaiming", "torch", [wi.Rule("0.*", "zeros_")]])
    assert [one.rules for one in found][:3] == ["kaiming", "xavier", "torch"]
    assert [one.verdict for one in found] == ["WARN", "FAIL", "FAIL", None]
    assert "no rule covers" in found[3].error
    assert found.best is found[0]
    assert abs(found[0].backward) < 2 < abs(found[1].backward) < abs(found[2].backward)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert torch.equal(torch.get_rng_state(), rng)
    assert wi.probe(deep("kaiming"), X, target=torch.arange(64) % 10).loss == found[0].loss
    text = str(found)
    assert text.index("kaiming") < text.index("xavier") < text.index("no rule covers")
    assert Page(found._repr_html_()).open == []


def test_the_model_is_as_before_when_comparing_fails() -> None:
    net = deep("torch")
    report = wi.probe(net, X)
    values = wi.fingerprint(net)
    with pytest.raises(TypeError):
        report.compare(["kaiming", 7])
    assert wi.fingerprint(net) == values


def test_of_several_seeds_the_worst_counts() -> None:
    report = wi.probe(mlp(3, 64, nn.Sigmoid), X)
    one, two, both = (report.compare(["torch"], seeds=seeds)[0] for seeds in ([0], [1], [0, 1]))
    assert one.backward != two.backward
    assert both.backward == min(one.backward, two.backward)


def test_what_compare_refuses() -> None:
    report = wi.probe(mlp(1, 8, nn.ReLU), X)
    for rules, seeds in (("torch", [0]), ([], [0]), (["torch"], [])):
        with pytest.raises(ValueError, match="is required, got"):
            report.compare(rules, seeds=seeds)
    with pytest.raises(ValueError, match=r"a report of wi.probe\(\) is required"):
        wi.ProbeReport([], []).compare()


# ---- watching a training loop ----------------------------------------------------------------------------------------


class Written(list[tuple[str, float, int | None]]):
    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        self.append((tag, scalar_value, global_step))


def train(net: nn.Module, steps: int, watch: bool, **settings: Any) -> tuple[list[float], Any]:
    torch.manual_seed(1)
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), []
    watcher = wi.probe.watch(net, **settings) if watch else None
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(X), torch.arange(64) % 10)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, watcher


def test_a_watched_training_is_the_same_training() -> None:
    """Dropout draws as before, no gradient differs; and the figures are those of a probe at that step."""
    nets = [wi.initialize_(nn.Sequential(nn.Dropout(0.2), *mlp(3, 32, nn.Tanh)), seed=0) for _ in range(2)]
    scalars = Written()
    plain, _ = train(nets[0], 7, watch=False)
    watched, watch = train(nets[1], 7, watch=True, every=3, writer=scalars)
    assert watched == plain
    assert {step for _, _, step in scalars} == {1, 4}, "that of step 7 is under way"
    watch.close()
    assert {step for _, _, step in scalars} == {1, 4, 7}
    assert {tag for tag, _, _ in scalars} >= {
        "probe/signal/1.weight.weight",
        "probe/gradient/1.weight.weight",
        "probe/saturated/2.tanh",
    }
    assert all(math.isfinite(value) for _, value, _ in scalars)
    assert wi.fingerprint(nets[0]) == wi.fingerprint(nets[1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in nets[1].modules())
    assert not any(p._backward_hooks for p in nets[1].parameters())
    with torch.no_grad():
        nets[1](X)
    assert watch.step == 7


def test_a_watch_sees_what_a_probe_sees() -> None:
    net = wi.initialize_(mlp(5, 32, nn.Sigmoid), seed=0)
    expected = wi.probe(net, X, target=torch.arange(64) % 10)
    with wi.probe.watch(net) as watch:
        for _ in range(2):  # gradients add up; what is seen is that of one pass
            nn.functional.cross_entropy(net(X), torch.arange(64) % 10).backward()
    figures = [
        [(r.name, r.signal, r.gradient, r.weight_gradient, r.twins) for r in rows] for rows in (watch.rows, expected.rows)
    ]
    assert str(figures[0]) == str(figures[1])
    assert [f.code for f in watch.findings] == [f.code for f in expected.findings]


def test_a_watch_survives_an_error_and_leaves_evaluation_alone() -> None:
    net = mlp(1, 8, nn.ReLU)
    with wi.probe.watch(net, every=1) as watch:
        with pytest.raises(RuntimeError):
            net(X[:, :3])
        net.eval()(X)
        assert watch.step == 1
        net.train()(X).sum().backward()
    assert watch.step == 2
    assert len(watch.rows) == 3
    with pytest.raises(ValueError, match="a positive number of passes"):
        wi.probe.watch(net, every=0)


# ---- the command line ------------------------------------------------------------------------------------------------


def test_doctor_probes_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers", "5")
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=90, bos_token_id=1, eos_token_id=2)
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path)
    assert main(["doctor", str(tmp_path), "--probe"]) == 0
    assert "ok: GPT2LMHeadModel" in (own := capsys.readouterr().out)
    assert main(["doctor", str(tmp_path), "--probe", "--rules", "kaiming", "--seed", "3"]) == 0
    assert capsys.readouterr().out != own
    config.initializer_range = 2.0
    config.save_pretrained(tmp_path)
    assert main(["doctor", str(tmp_path), "--probe", "--dtype", "bfloat16"]) == 1
    assert "attention_one_hot" in capsys.readouterr().out

    wi.plan(nn.Linear(2, 2)).save(tmp_path / "init.json")
    for arguments in ([], [str(tmp_path / "init.json")], ["model.safetensors"]):
        assert main(["doctor", "--probe", *arguments]) == 2
        assert "a config.json or module:function is required" in capsys.readouterr().err


def test_the_probe_of_gpt_has_a_page() -> None:
    page = Page(wi.probe(GPT(layers=2, width=64), torch.arange(64).view(4, 16))._repr_html_())
    assert "attention" in page.text
