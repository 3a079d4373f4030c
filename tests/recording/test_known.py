"""Tables that follow from the code alone, computed while it runs, and fills with constants over parts: the values of the
general way, which replays and folds."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.recording import known as known_tables
from weightinit_cuda.recording import recorder as recorder_module
from weightinit_cuda.recording.tape import Memory


def rotary(dim: int = 16) -> Tensor:
    return 1.0 / (10000.0 ** (torch.arange(0, dim, 2, dtype=torch.int64).to(dtype=torch.float32) / dim))


def sinusoids(n: int = 7, dim: int = 6) -> Tensor:
    table = torch.outer(torch.arange(n, dtype=torch.float32), rotary(dim))
    return torch.cat([table.sin(), table.cos()], dim=1)


def written(dtype: torch.dtype = torch.float32) -> Tensor:
    table = torch.arange(12, dtype=dtype).reshape(3, 4).clone()
    table.mul_(3)
    table[1] = table[0]
    table.t().add_(1)
    return table


def padded() -> Tensor:
    return nn.functional.pad(torch.zeros(5), (0, 3))


def given() -> Tensor:
    return torch.tensor([1.5, -2.0, 0.0]) * torch.arange(3)


def over_a_draw() -> Tensor:
    table = torch.empty(8).normal_()
    table.copy_(rotary())
    return table


def drawn_over() -> Tensor:
    table = rotary().clone()
    table.copy_(torch.empty(8).normal_())
    return table


def partly_drawn_over() -> Tensor:
    table = rotary().clone()
    table[:3].normal_()
    return table


def constant_over() -> Tensor:
    table = rotary().clone()
    table[2] = 5.0
    return table


def itself() -> Tensor:
    table = rotary().clone()
    return table.mul_(table)


def changed_after_a_copy() -> Tensor:
    table = rotary().clone()
    other = torch.empty(8)
    other.copy_(table)
    table.mul_(2)
    return other + table


def negated() -> Tensor:
    return torch.complex(torch.arange(3.0), torch.arange(3.0)).conj().imag


def without_gradients() -> Tensor:
    with torch.inference_mode():
        made = torch.arange(6.0) * 2
    return made.clone()


def slopes() -> Tensor:
    return torch.pow(2.0, -(torch.arange(1, 9, dtype=torch.float64) / 2)).to(torch.float32).view(2, 4).t()


TABLES: dict[str, Callable[[], Tensor]] = {
    "rotary": rotary,
    "sinusoids": sinusoids,
    "written": written,
    "integers": lambda: written(torch.int64),
    "bools": lambda: torch.arange(6) > 2,
    "bfloat16": lambda: torch.arange(9).to(torch.bfloat16) / 3,
    "positions": lambda: torch.arange(9).expand((1, -1)),
    "a part": lambda: torch.arange(9)[2:5],
    "of no dimensions": lambda: torch.arange(3)[1],
    "masks": lambda: torch.triu(torch.ones(4, 4), diagonal=1) * torch.arange(4.0),
    "eye": lambda: torch.eye(3) * 2,
    "padded": padded,
    "given": given,
    "over a draw": over_a_draw,
    "drawn over": drawn_over,
    "partly drawn over": partly_drawn_over,
    "constant over": constant_over,
    "itself": itself,
    "changed after a copy": changed_after_a_copy,
    "negated": negated,
    "conjugated": lambda: torch.complex(torch.arange(3.0), torch.arange(3.0)).conj(),
    "conjugated, then copied": lambda: torch.complex(torch.arange(3.0), torch.arange(3.0)).conj().clone() * 2,
    "a layout": lambda: torch.arange(6, layout=torch.strided).to(torch.float64, copy=True).to_dense() + 1,
    "turned": lambda: torch.arange(6.0).view(2, 3).t().clone().exp(),
    "expanded": lambda: (torch.arange(3.0).expand(4, 3) * 2).neg(),
    "broadcast": lambda: torch.arange(3.0)[:, None] * torch.arange(5.0).pow(2),
    "divided as numbers": lambda: torch.arange(5).div(2, rounding_mode="floor") + torch.arange(5).add(1, alpha=3),
    "without gradients": without_gradients,
    "slopes": slopes,
    "constants": lambda: torch.full((4,), 0.3).exp() * torch.ones(4),
    "many": lambda: torch.arange(40_000).to(torch.float32) / 7,
}


class Holder(nn.Module):
    """A table as a buffer, a parameter, an attribute and in a list; and a draw, which needs a stream."""

    def __init__(self, table: Callable[[], Tensor]) -> None:
        super().__init__()
        made = table()
        self.register_buffer("kept", made)
        self.weight = nn.Parameter(torch.empty(3, 4).normal_())
        if made.is_floating_point():
            self.table = nn.Parameter(table())
        self.plain, self.listed = table(), [table()]

    def tensors(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers(), self.plain, *self.listed]


def both_ways(make: Callable[[], nn.Module]) -> tuple[nn.Module, Callable[[str], Tensor], wi.Plan]:
    """The model that ``materialize_`` fills, and the values and the plan of one that was recorded without known tables."""
    with wi.deferred() as recorded:
        model = make()
    recorded.materialize_(model, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder_module, "KNOWN_WAYS", {})
        patch.setattr(recorder_module, "follow", lambda steps, step: 0)
        with wi.deferred() as recorded:
            other = make()
    return model, recorded.values(other, seed=3), recorded.plan(other, seed=3)


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_the_values_of_the_general_way(name: str) -> None:
    model, value, plan = both_ways(lambda: Holder(TABLES[name]))
    for at, tensor in (*model.named_parameters(), *model.named_buffers()):
        expected = value(at)
        assert torch.equal(tensor, expected), at
        assert (tensor.dtype, tensor.stride(), tensor.requires_grad) == (expected.dtype, expected.stride(), at != "kept")
    if name not in ("drawn over", "partly drawn over", "over a draw"):
        eager = TABLES[name]()
        assert all(torch.equal(tensor, eager) for tensor in model.tensors()[1:])
    with wi.deferred() as recorded:
        again = Holder(TABLES[name])
    assert recorded.plan(again, seed=3) == plan


@pytest.mark.parametrize("name", ["rotary", "positions", "padded", "written"])
def test_tables_are_each_others_neighbours_in_no_memory(name: str) -> None:
    with wi.deferred() as recorded:
        model = Holder(TABLES[name])
        read = copy.deepcopy(model)
        file = io.BytesIO()
        torch.save([model.kept, model.plain], file)
    recorded.materialize_(model, seed=3)
    recorded.materialize_(read, seed=3)
    file.seek(0)
    kept, plain = torch.load(file)
    held = [*model.tensors(), *read.tensors(), kept, plain]
    assert len({tensor.untyped_storage().data_ptr() for tensor in held}) == len(held)
    assert all(torch.equal(tensor, TABLES[name]()) for tensor in (model.kept, read.kept, kept, plain))


def test_tied_tables_and_views_of_them() -> None:
    def make() -> nn.Module:
        model = nn.Module()
        model.register_buffer("a", rotary())
        model.register_buffer("b", model.a)
        model.register_buffer("c", model.a[:4])
        return model

    with wi.deferred() as recorded:
        model = make()
    recorded.materialize_(model)
    assert model.a is model.b
    assert model.c.data_ptr() == model.a.data_ptr()
    assert torch.equal(model.c, rotary()[:4])


def test_a_device_that_is_asked_for_in_the_block() -> None:
    with wi.deferred() as recorded:
        model = nn.Module()
        model.register_buffer("here", rotary())
        model.register_buffer("there", torch.arange(3.0, device="meta") * 2)
        with torch.device("meta"):
            model.register_buffer("too", torch.arange(4) * 2)
    recorded.materialize_(model)
    assert torch.equal(model.here, rotary())
    assert torch.equal(model.there, torch.arange(3.0) * 2)
    assert torch.equal(model.too, torch.arange(4) * 2)


def test_no_more_is_kept_than_much(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (recorder_module, known_tables):
        monkeypatch.setattr(module, "MUCH", 100)
    with wi.deferred() as recorded:
        model = nn.Module()
        for n in range(9):
            model.register_buffer(f"table{n}", rotary() + n)
    assert recorded._recorder.known_bytes < 400
    recorded.materialize_(model)
    assert all(torch.equal(getattr(model, f"table{n}"), rotary() + n) for n in range(9))


# ---- fills with constants over them -----------------------------------------------------------------------------------


def padding() -> nn.Module:
    return nn.Embedding(7, 4, padding_idx=2)


def filled_again() -> nn.Module:
    model = padding()
    with torch.no_grad():
        nn.init.normal_(model.weight, std=0.02)
        model.weight[model.padding_idx] = 0.0
        model.weight[:, 1].fill_(-0.0)
        model.weight.t()[3, 4:].fill_(0.3)
    return model


def with_a_copy() -> nn.Module:
    model = nn.ModuleList([padding(), padding()])
    with torch.no_grad():
        model[1].weight.copy_(model[0].weight)
    return model


def in_halves() -> nn.Module:
    model = nn.Linear(4, 6).to(torch.bfloat16)
    with torch.no_grad():
        model.weight.normal_()[1:3] = 0.1
    return model


def constants_only() -> nn.Module:
    model = nn.Linear(4, 6)
    with torch.no_grad():
        nn.init.ones_(model.bias)
        model.bias[2:4] = 3.0
        model.other = model.bias * torch.arange(6)
    return model


LAYERED = [padding, filled_again, with_a_copy, in_halves, constants_only]


@pytest.mark.parametrize("make", LAYERED)
def test_constants_lie_over_a_fill(make: Callable[[], nn.Module]) -> None:
    model, value, plan = both_ways(make)
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor.view(torch.uint8), value(name).view(torch.uint8)), name
    filled = plan.apply_(make()) if all(entry.distribution.is_fill for entry in plan) else None
    assert filled is None or all(map(torch.equal, filled.parameters(), model.parameters()))


def test_a_part_has_the_values_of_the_whole_and_a_prefix_names_it() -> None:
    def make() -> nn.Module:
        return nn.ModuleDict({"tokens": filled_again(), "head": nn.Linear(4, 7)})

    made = []
    for step in range(3):
        with wi.deferred() as recorded:
            model = make() if step < 2 else filled_again()
        if step == 0:
            made.append(recorded.materialize_(model, seed=3)["tokens"].weight)
        else:
            part, prefix = (model["tokens"], None) if step == 1 else (model, "tokens")
            made.append(recorded.materialize_(part, seed=3, prefix=prefix).weight)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_a_copy_in_another_model_is_equal() -> None:
    with wi.deferred() as recorded:
        first = filled_again()
        second = copy.deepcopy(first)
    assert torch.equal(recorded.materialize_(second).weight, recorded.materialize_(first).weight)


def test_what_a_model_leaves_unwritten_is_refused_as_before() -> None:
    with wi.deferred() as recorded:
        model = nn.Module()
        model.register_buffer("table", rotary())
        model.weight = nn.Parameter(torch.empty(3, 3))
        with torch.no_grad():
            model.weight[1] = 0.0
    with pytest.raises(ValueError, match="only allocates"):
        recorded.materialize_(model)
    assert model.table.is_meta


def test_memories_of_one_tape_know_their_values() -> None:
    """What this file is about happens at all."""
    with wi.deferred() as recorded:
        model = Holder(rotary)
    memories: list[Memory] = list(recorded._recorder._memories.values())
    assert sum(memory.known is not None for memory in memories) >= len(memories) - 1
    assert model.kept.is_meta
