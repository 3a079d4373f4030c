"""What plans and reports show: notebooks, scalars for loggers, figures of matplotlib."""

from __future__ import annotations

import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Distribution, Normal, TruncNormal, Uniform
from weightinit_cuda.plans.entry import Entry
from weightinit_cuda.plans.plan import Plan

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert(1)</script>&\x1b[31m"


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.LayerNorm(64))


class Tags(HTMLParser):
    """Tags that are opened, and whether all are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# ---- notebooks ------------------------------------------------------------------------------------------------------


def test_notebooks() -> None:
    """The rows of the printed table, as HTML that is sound."""
    model = net()
    plan = wi.plan(model, "kaiming", seed=3)
    plan.apply_(model)
    shown = [plan, wi.verify(plan, model), wi.backend_info(), wi.probe(plan.apply_(model), torch.randn(32, 64))]
    for one in shown:
        tags = Tags(one._repr_html_())
        assert not tags.open
        assert "table" in tags.seen
    assert Tags(plan._repr_html_()).seen.count("tr") == len(str(plan).splitlines()) - 3
    assert "kaiming: 6 tensors, 8,448 values, seed 3" in plan._repr_html_()
    assert "2 differs" in wi.verify(plan.with_seed(1), model)._repr_html_()
    assert wi.backend_info().backend in wi.backend_info()._repr_html_()


def test_names_are_no_markup() -> None:
    plan = Plan((Entry(HOSTILE, (2,), torch.float32, Normal(0.0, 1.0), 1, HOSTILE),))
    for one in (plan, wi.verify(plan, {HOSTILE: torch.zeros(2)})):
        text = one._repr_html_()
        assert "<script" not in text
        assert "&lt;script&gt;" in text
        assert "\x1b" not in text


def test_long_reports_are_cut() -> None:
    plan = wi.plan(nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(300)]), [wi.Rule("*", "ones_")], seed=0)
    text = wi.verify(plan, {name: torch.zeros(1) for name in plan.names()})._repr_html_()
    assert text.count("<tr>") == 201
    assert "(100 rows are left out)" in text


# ---- scalars --------------------------------------------------------------------------------------------------------


def test_scalars() -> None:
    plan = wi.plan(net(), "kaiming", seed=0)
    scalars = plan.scalars()
    assert scalars["init/tensors"] == 6
    assert scalars["init/values"] == 8448
    assert scalars["init/std/0.weight"] == pytest.approx(math.sqrt(2 / 64))
    assert scalars["init/std/0.bias"] == 0
    assert all(type(value) is float for value in scalars.values())
    assert plan.scalars("a/").keys() == {"a/" + name.removeprefix("init/") for name in scalars}


def test_scalars_name_boxes_and_leave_out_what_is_not_known() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(5, 4, padding_idx=0), "square": nn.Linear(4, 4, bias=False)})
    scalars = wi.plan(model, [wi.Rule("square*", "orthogonal_"), "torch"], seed=0).scalars()
    assert "init/std/table.weight[0:1, 0:4]" in scalars
    assert not any("square" in name for name in scalars)


# ---- densities ------------------------------------------------------------------------------------------------------

DENSITIES: list[tuple[Distribution, Any]] = [
    (Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    (Normal(0.5, 0.02), stats.norm(0.5, 0.02)),
    (TruncNormal(0.0, 1.0, -2.0, 2.0), stats.truncnorm(-2, 2)),
    (TruncNormal(0.0, 1.0, 8.0, 9.0), stats.truncnorm(8, 9)),
    (TruncNormal(0.0, 2.0, -math.inf, -10.0), stats.truncnorm(-math.inf, -5, 0, 2)),
    (TruncNormal(1.0, 3.0, -1.0, math.inf), stats.truncnorm(-2 / 3, math.inf, 1, 3)),
]


@pytest.mark.parametrize(("distribution", "scipys"), DENSITIES, ids=lambda one: getattr(one, "kind", ""))
def test_densities_are_scipys(distribution: Distribution, scipys: Any) -> None:
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        x = scipys.ppf(share)
        assert distribution.density(x) == pytest.approx(scipys.pdf(x), rel=1e-7)
    assert distribution.density(scipys.support()[0] - 1e-9) in (0.0, None) or math.isinf(scipys.support()[0])


@pytest.mark.parametrize("distribution", [Normal(0.0, 0.0), Uniform(1.0, 1.0), TruncNormal(0.0, 0.0, -1.0, 1.0)])
def test_points_have_no_density(distribution: Distribution) -> None:
    assert distribution.density(0.0) is None


# ---- figures --------------------------------------------------------------------------------------------------------


def test_figures() -> None:
    """Each panel's curve is the plan's density, and the bars of values lie along it; bars of other values do not."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    model = net()
    plan = wi.plan(model, "kaiming", seed=0)
    figure = wi.plots.histogram(plan.apply_(model), plan)
    panels = {axes.get_title().partition("\n")[0]: axes for axes in figure.axes}
    assert panels.keys() == {"*.weight x2", "*.bias x3", "3.weight"}

    def distance(axes: Any) -> float:
        line = axes.get_lines()[0]
        bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches]
        at = [min(range(len(line.get_xdata())), key=lambda i: abs(line.get_xdata()[i] - x)) for x, _ in bars]
        return max(abs(line.get_ydata()[i] - height) for i, (_, height) in zip(at, bars, strict=True))

    peak = 1 / math.sqrt(2 * math.pi * 2 / 64)
    assert distance(panels["*.weight x2"]) < 0.2 * peak
    with torch.no_grad():
        model[0].weight.mul_(2)
        model[2].weight.mul_(2)
    assert distance(wi.plots.histogram(model, plan).axes[0]) > 0.3 * peak
    assert len(plan.plot().axes) == 3
    assert not plan.plot().axes[0].patches


def test_figures_of_what_is_unusual(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(5, 4, padding_idx=0),
            "square": nn.Linear(4, 4, bias=False),
            "none": nn.Linear(0, 4),
            "complex": nn.Linear(4, 4, dtype=torch.complex64),
            "narrow": nn.Linear(4, 4, dtype=torch.bfloat16),
        }
    )
    rules = [wi.Rule("square*", "orthogonal_"), wi.Rule("complex*", "normal_"), "torch"]
    plan = wi.plan(model, rules, seed=0)
    plan.apply_(model)
    with torch.no_grad():
        model["narrow"].weight[0, 0] = torch.nan
    figure = wi.plots.histogram(model, plan)
    assert any("1 not finite" in axes.get_title() for axes in figure.axes)
    figure.savefig(tmp_path / "figure.png")
    many = nn.ModuleDict({f"layer{letter}": nn.Linear(2, 2) for letter in "abcdefghijklmnop"})
    figure = wi.plan(many, seed=0).plot()
    assert len(figure.axes) == 24
    assert figure.get_suptitle() == "the first 24 of 32 rows"


def test_models_that_do_not_fit() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    plan = wi.plan(nn.Linear(3, 3), seed=0)
    for model, message in (
        (nn.Linear(3, 4), r"got shape \(4, 3\) \(weight\)"),
        (nn.Linear(3, 3, bias=False), r"got none \(bias\)"),
        (nn.Linear(3, 3, device="meta"), r"got one on meta \(weight\)"),
    ):
        with pytest.raises(ValueError, match=message):
            wi.plots.histogram(model, plan)


def test_matplotlib_is_optional() -> None:
    code = """
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.figure"] = None
import torch, weightinit_cuda as wi
plan = wi.plan(torch.nn.Linear(2, 2), seed=0)
try:
    plan.plot()
except ImportError as error:
    assert str(error) == "plots: matplotlib is required. pip install 'weightinit_cuda[plots]'", error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
