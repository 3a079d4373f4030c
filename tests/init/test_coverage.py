"""What ``patched(report=True)`` says of a model's tensors, and draws with a generator of their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.init.coverage import Coverage


class Mixed(nn.Module):
    """Parameters from everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(3)
        self.embedding = nn.Embedding(4, 3, padding_idx=0)
        self.token = nn.Parameter(torch.randn(1, 1, 3))
        self.table = nn.Parameter(torch.randn(6, 3) / 3**0.5)
        self.copied = nn.Parameter(torch.empty(3))
        self.copied.data.copy_(torch.rand(3))
        self.scaled = nn.Parameter(nn.init.normal_(torch.empty(3)) * 0.5)
        self.exponential = nn.Parameter(torch.empty(3).exponential_())
        self.method = nn.Parameter(torch.empty(3))
        self.method.data.normal_(0, 0.02)
        self.replaced = nn.Parameter(nn.init.normal_(torch.empty(3)))
        self.replaced.data = torch.zeros(3)
        self.overwritten = nn.Parameter(nn.init.normal_(torch.empty(3)))
        self.overwritten.data.copy_(torch.arange(3.0))
        self.ones = nn.Parameter(torch.ones(3))
        self.register_buffer("noise", torch.randn(3), persistent=False)
        self.register_buffer("steps", torch.arange(3))


FILLED = ("embedding.weight", "fc.bias", "fc.weight", "method", "norm.bias", "norm.weight", "scaled")
DRAWN = {
    "token": "torch.randn",
    "table": "torch.randn",
    "copied": "torch.rand",
    "exponential": "torch.Tensor.exponential_",
    "noise": "torch.randn",
}
UNTOUCHED = ("ones", "overwritten", "replaced")


def covered() -> Coverage:
    with wi.patched(report=True) as report:
        model = Mixed()
    return report.of(model)


def test_the_report_knows_where_values_come_from() -> None:
    seen = covered()
    assert tuple(sorted(seen.filled)) == FILLED
    assert seen.drawn == DRAWN
    assert tuple(sorted(seen.untouched)) == UNTOUCHED
    assert str(seen).startswith("7 filled, 5 drawn by torch, 3 untouched\n")
    assert "\n  token: torch.randn\n" in str(seen)


def test_watching_changes_no_value() -> None:
    models = []
    for report in (False, True):
        torch.manual_seed(0)
        with wi.patched(report=report):
            models.append(Mixed())
    one, other = (model.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_memory_that_is_used_again_is_nobodys() -> None:
    with wi.patched(report=True) as report:
        for _ in range(100):
            nn.init.normal_(torch.empty(1000))
        model = nn.ParameterList([torch.empty(1000) for _ in range(10)])
    assert len(report.of(model).untouched) == 10


def test_a_block_that_watches_nothing_says_so() -> None:
    with wi.patched() as report:
        pass
    with pytest.raises(RuntimeError, match=r"needs patched\(report=True\)"):
        report.of(nn.Linear(1, 1))


def test_blocks_nest_and_watch_for_themselves() -> None:
    with wi.patched(report=True) as outer:
        first = nn.Linear(2, 2, bias=False)
        with wi.patched(report=True) as inner:
            second = nn.Linear(2, 2, bias=False)
    assert outer.of(nn.ModuleList([first, second])).filled == ("0.weight", "1.weight")
    assert inner.of(nn.ModuleList([first, second])).filled == ("1.weight",)
    assert torch.overrides._get_current_function_mode_stack() == []


def test_a_decorated_function_keeps_its_options() -> None:
    def drawn() -> Tensor:
        return torch.empty(4).normal_(generator=torch.Generator().manual_seed(1))

    plain = drawn()
    assert torch.equal(wi.patched(drawn)(), plain)
    assert torch.equal(wi.patched(generators="torch")(drawn)(), plain)
    assert not torch.equal(wi.patched(generators="ours")(drawn)(), plain)


@pytest.mark.parametrize("name", ["normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_normal_", "orthogonal_"])
def test_an_explicit_generator_is_a_protocol(name: str) -> None:
    """Fixed projections of adapters are made again from their seed: the numbers must be torch's."""

    def drawn() -> Tensor:
        made: Tensor = getattr(nn.init, name)(torch.empty(4, 4), generator=torch.Generator().manual_seed(5))
        return made

    plain = drawn()
    with wi.patched():
        assert torch.equal(drawn(), plain)
    with wi.patched(generators="ours"):
        assert not torch.equal(drawn(), plain)
        with wi.patched():
            assert torch.equal(drawn(), plain)
        assert not torch.equal(drawn(), plain)
    wi.patch()
    try:
        assert torch.equal(drawn(), plain)
    finally:
        wi.unpatch()


def test_generators_of_patch() -> None:
    """The last patch() decides, and a patched() for what is inside."""

    def is_torchs() -> bool:
        drawn = nn.init.normal_(torch.empty(4), generator=torch.Generator().manual_seed(5))
        return torch.equal(drawn, torch.randn(4, generator=torch.Generator().manual_seed(5)))

    wi.patch(generators="ours")
    try:
        assert not is_torchs()
        with wi.patched():
            assert is_torchs()
        wi.patch()
        assert is_torchs()
        wi.unpatch()
        assert not is_torchs()
    finally:
        wi.unpatch()
    assert is_torchs()
    with pytest.raises(ValueError, match=r'patch: generators must be "torch" or "ours", got None'):
        wi.patch(generators=None)  # type: ignore[arg-type]
    assert is_torchs()


def test_generators_must_be_known() -> None:
    with pytest.raises(ValueError, match=r'generators must be "torch" or "ours", got \'mine\''):
        wi.patched(generators="mine")


def test_lazy_parameters_are_untouched_until_they_have_a_shape() -> None:
    with wi.patched(report=True) as report:
        made = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 4))
        before = report.of(made)
        made(torch.ones(1, 3))
        after = report.of(made)
    assert before.untouched == ("0.weight", "0.bias")
    assert after.filled == ("0.weight", "0.bias", "1.weight", "1.bias")
