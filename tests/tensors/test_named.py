"""The tensors of a model with their names: the walk in C++ and the one in Python, ties, and what is no dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from weightinit_cuda import engine
from weightinit_cuda.tensors import named
from weightinit_cuda.tensors.named import Named, modules_of, named_tensors


class Odd(nn.Module):
    """Everything that a walk meets: ties, empty places, buffers, a module in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3, bias=False))
        self.again = self.block
        self.register_module("nothing", None)
        self.register_parameter("none", None)
        self.scale = nn.Parameter(torch.ones(3))
        self.tied = self.block[0].weight
        self.register_buffer("mask", torch.ones(2))
        self.register_buffer("gone", None)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "odd": Odd,
    "one tensor": lambda: nn.PReLU(),
    "no tensor": lambda: nn.Sequential(nn.ReLU(), nn.Sequential()),
    "deep": lambda: nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(2, 2)))),
    "scripted": lambda: torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))),  # type: ignore[no-untyped-call]
}


def walks() -> list[Callable[..., None]]:
    return [named.collect] + ([engine.backend.kernels.collect] if engine.backend.kernels is not None else [])


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_walk_is_that_of_torch(make: Callable[[], nn.Module]) -> None:
    model = make()
    modules = dict(model.named_modules(remove_duplicate=False))
    for walk in walks():
        own: list[Named] = []
        kept: list[Named] = []
        walk(model, Named, own, kept)
        for found, of_torch, buffer in (
            (own, model.named_parameters(remove_duplicate=False), False),
            (kept, model.named_buffers(remove_duplicate=False), True),
        ):
            expected = list(of_torch)
            assert [one.name for one in found] == [name for name, _ in expected]
            for one, (name, tensor) in zip(found, expected, strict=True):
                assert type(one) is Named
                assert hash(one) == hash(Named(*one))
                holder, _, attribute = name.rpartition(".")
                assert one[2:] == ((), modules[holder], attribute, buffer)
                assert one.tensor is tensor or (one.tensor.data_ptr() == tensor.data_ptr() and "script" in repr(type(model)))


class Holding(nn.Module):
    """Plain attributes of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.nothing, self.text = (1, 2), None, "text"
        self.scale = torch.ones(2)
        self.listed, self.named = [1, torch.ones(1)], {"a": {"b": torch.ones(1)}}
        self.function = len
        self.inner = Odd()
        self.inner.held = torch.ones(3)
        self._modules["again"] = self.inner
        vars(self)["_parameters_too"] = (torch.ones(1),)


def looks() -> list[Callable[..., Any]]:
    return [named.look_through] + ([engine.backend.kernels.look_through] if engine.backend.kernels is not None else [])


@pytest.mark.parametrize("make", [*MODELS.values(), Holding], ids=[*MODELS, "holding"])
def test_every_look_finds_tensors_modules_and_attributes(make: Callable[[], nn.Module]) -> None:
    model = make()
    own, kept = list[Named](), list[Named]()
    named.collect(model, Named, own, kept)
    for look in looks():
        *tensors, modules, held = look(model, Named, named.EVERY_MODULE, named.LEAFLESS, torch.Tensor)
        for found, expected in zip(tensors, (own, kept), strict=True):
            assert [one[:1] + one[2:] for one in found] == [one[:1] + one[2:] for one in expected]
        assert [name for name, _ in modules] == [name for name, _ in model.named_modules()]
        assert [module for _, module in modules] == list(model.modules())
        if make is Holding:
            assert [(name, module) for name, _, module in held] == [
                *((name, model) for name in ("scale", "listed", "named", "_parameters_too")),
                ("inner.held", model.inner),
            ]
            assert [value is vars(module)[name.rpartition(".")[2]] for name, value, module in held] == [True] * len(held)


def test_modules_whose_attributes_begin_otherwise() -> None:
    model = nn.Linear(2, 2)
    training = vars(model).pop("training")
    vars(model)["first"] = torch.ones(1)
    vars(model)["training"] = training
    for look in looks():
        *_, held = look(model, Named, named.EVERY_MODULE, named.LEAFLESS, torch.Tensor)
        assert [name for name, _, _ in held] == ["first"]


def test_tensors_are_alike_as_columns_say() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    found = named_tensors(model)
    listed = [one for one in found if "batches" not in one.name]
    names = {one.name: one.name for one in listed}
    columns = tuple(zip(*((one.name, tuple(one.tensor.shape), one.tensor.dtype, ()) for one in listed), strict=True))
    for alike in {named.alike, named.tensors_alike}:
        assert list(map(id, alike(found, names, *columns))) == [id(one.tensor) for one in listed]
        for at, other in enumerate(("0.weigth", (3, 4), torch.float16, ("0.bias",))):
            wrong = list(columns)
            wrong[at] = (other, *columns[at][1:])
            assert alike(found, names, *wrong) is None
        assert alike(found[:1], names, *columns) is None
        assert alike([*found, Named("more", torch.ones(1))], names, *columns) is None
        assert alike([], names, (), (), (), ()) is None
        assert alike([*found[:-1], found[-1]._replace(tensor=torch.empty((), device="meta"))], names, *columns) is None


def test_tied_tensors_are_listed_once() -> None:
    found = {one.name: one.aliases for one in named_tensors(Odd())}
    assert found["scale"] == ()
    assert found["tied"] == ("block.0.weight", "again.0.weight")
    assert found["block.1.running_mean"] == ("again.1.running_mean",)
    assert "again.0.bias" not in found


def test_the_walk_says_where_more_is_to_be_done() -> None:
    if engine.backend.kernels is None:
        pytest.skip("no native module")
    walk = engine.backend.kernels.collect
    assert walk(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), Named, [], [])
    assert not walk(Odd(), Named, [], [])  # tied
    shared = nn.Linear(2, 2)
    shared.register_buffer("again", shared.weight)
    assert not walk(shared, Named, [], [])
    partitioned = nn.Linear(2, 2)
    partitioned.bias.ds_id = 3  # type: ignore[attr-defined]
    assert not walk(partitioned, Named, [], [])


def test_modules_are_found_once() -> None:
    model = Odd()
    assert sorted(map(id, modules_of(model))) == sorted(map(id, model.modules()))


def test_a_module_in_itself_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.append(model)
    for walk in walks():
        with pytest.raises(RecursionError):
            walk(model, Named, [], [])


def test_the_walk_in_cpp_refuses_what_is_no_type_of_tuples() -> None:
    if engine.backend.kernels is None:
        pytest.skip("no compiled kernels")
    for wrong in (list, 3, None):
        with pytest.raises(TypeError):
            engine.backend.kernels.collect(nn.Linear(1, 1), wrong, [], [])  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        engine.backend.kernels.collect(3, Named, [], [])  # type: ignore[arg-type]


class Changing:
    """Says what it is, as isinstance asks, and gives its module another tensor."""

    def __init__(self, module: nn.Module) -> None:
        vars(self)["module"] = module

    @property
    def __class__(self) -> type:  # type: ignore[override]
        vars(self.module)[f"added{len(vars(self.module))}"] = torch.ones(1)
        return Changing


@pytest.mark.parametrize("look", looks(), ids=lambda look: type(look).__name__)
def test_attributes_are_those_before_anyone_is_asked(look: Any) -> None:
    model = nn.Module()
    vars(model)["changing"], vars(model)["held"] = Changing(model), torch.ones(1)
    *_, held = look(model, Named, named.EVERY_MODULE, named.LEAFLESS, torch.Tensor)
    assert [name for name, _, _ in held] == ["held"]
    assert any(name.startswith("added") for name in vars(model))


def test_what_a_tensor_raises_is_not_taken_for_no() -> None:
    class Broken(torch.Tensor):
        @property
        def ds_id(self) -> int:
            raise KeyError("ds_id")

    model = nn.Module()
    model.register_buffer("broken", torch.ones(1).as_subclass(Broken))
    with pytest.raises(KeyError):
        named_tensors(model)
    if engine.backend.kernels is not None:
        with pytest.raises(KeyError):
            engine.backend.kernels.collect(model, Named, [], [])
