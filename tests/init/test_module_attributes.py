"""What code sets and registers in modules inside a block is what it does outside, errors included."""

from __future__ import annotations

import gc
import inspect
import threading
import traceback
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules import module as torchs_module

import weightinit_cuda as wi
from weightinit_cuda.engine.backend import kernels
from weightinit_cuda.init import module_attributes

METHODS = ("__init__", "__setattr__", "register_parameter", "register_buffer", "add_module")
BLOCKS = {"patched": wi.patched, "deferred": wi.deferred}
built = pytest.mark.skipif(kernels is None, reason="the native module is not built")


class Mixin:
    """Comes after Module, and sees what it stores."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, ("seen", value))


class Mixed(nn.Module, Mixin):
    def __init__(self) -> None:
        super().__init__()
        self.x = 3


class WithProperty(nn.Module):
    @property
    def x(self) -> int:
        return 1

    @property
    def y(self) -> Any:
        return self._y

    @y.setter
    def y(self, value: Any) -> None:
        self._y = ("set", value)


class Overriding(nn.Module):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(f"{name}_", value)


class Odd(int):
    """May be anything."""

    __class__ = nn.Parameter  # type: ignore[assignment]


def values() -> list[Any]:
    return [3, True, 2.5, None, "text", (1, 2), [1], {"a": 1}, print, nn.ReLU(), nn.Parameter(torch.ones(1)), torch.ones(1), 1j]


def before_init() -> Any:
    module = nn.Module.__new__(nn.Module)
    module.x = 3  # type: ignore[assignment]
    return vars(module)


def on(make: Callable[[], nn.Module], name: str, value: Any) -> Callable[[], Any]:
    def run() -> Any:
        module = make()
        setattr(module, name, value() if callable(value) else value)
        kept = {key: x for key, x in vars(module).items() if not key.startswith("_") or key == "_y"}
        return [type(module), kept, *({key: type(x) for key, x in vars(module)[k].items()} for k in KINDS)]

    return run


KINDS = ("_parameters", "_buffers", "_modules")
CASES: dict[str, Callable[[], Any]] = {
    **{f"value {n}": on(nn.Module, "x", lambda n=n: values()[n]) for n in range(len(values()))},
    **{f"parameter {n}": on(lambda: nn.Linear(1, 1), "weight", lambda n=n: values()[n]) for n in range(len(values()))},
    **{f"buffer {n}": on(lambda: nn.BatchNorm1d(1), "running_mean", lambda n=n: values()[n]) for n in range(len(values()))},
    **{f"module {n}": on(lambda: nn.Sequential(nn.ReLU()), "0", lambda n=n: values()[n]) for n in range(len(values()))},
    "mixed": on(Mixed, "y", 4),
    "read only": on(WithProperty, "x", 4),
    "property": on(WithProperty, "y", 4),
    "overriding": on(Overriding, "y", 4),
    "before init": before_init,
}


def outcome(case: Callable[[], Any]) -> str:
    try:
        return repr(case())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", CASES)
def test_modules_are_set_as_outside(name: str, block: str) -> None:
    outside = outcome(CASES[name])
    with BLOCKS[block]():
        inside = outcome(CASES[name])
    assert inside == outside


# ---- programs of registrations -------------------------------------------------------------------------------------------


class WithGetattr(nn.Module):
    def __getattr__(self, name: str) -> Any:
        return 5 if name == "w" else super().__getattr__(name)


class WithGetattribute(nn.Module):
    def __getattribute__(self, name: str) -> Any:
        return 5 if name == "w" else super().__getattribute__(name)


class Registering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def register_parameter(self, name: str, param: Any) -> None:
        self.log.append(f"parameter {name}")
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        self.log.append(f"buffer {name}")
        super().register_buffer(name, tensor, persistent)

    def add_module(self, name: str, module: Any) -> None:
        self.log.append(f"module {name}")
        super().add_module(name, module)


class Late(nn.Module):
    """Is no module yet."""

    def __init__(self) -> None:
        pass


class Passing(nn.Module, Mixin):
    call_super_init = True


class ReadOnlyMode(nn.Module):
    @property
    def training(self) -> bool:  # type: ignore[override]
        return True


class Slotted(nn.Module):
    __slots__ = ("w",)


class Oddly(nn.Module):
    """An instance has a method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["register_parameter"] = lambda name, param: None


CLASSES: list[Callable[[], Any]] = [
    nn.Module, lambda: nn.Linear(1, 1), nn.Sequential, WithProperty, WithGetattr, WithGetattribute, Registering, Late, Passing,
    ReadOnlyMode, Slotted, Oddly, Mixed, Overriding, nn.ModuleList, nn.ParameterList, lambda: nn.BatchNorm1d(1),
    lambda: torch.jit.script(nn.ReLU()), lambda: nn.Module(1), lambda: nn.LazyLinear(1),
]  # fmt: skip
NAMES = ["w", "x", "weight", "bias", "running_mean", "0", "a.b", "", "training", "forward", "_parameters", "_buffers", 3, "y"]


class Sub(Tensor):
    pass


def every_value() -> dict[str, Any]:
    leaf = torch.ones(1, requires_grad=True)
    joined = nn.Parameter(torch.ones(2))
    view = joined * 1
    view.__class__ = nn.Parameter  # type: ignore[assignment]
    return {
        "parameter": nn.Parameter(torch.ones(1)),
        "tensor": torch.ones(1),
        "leaf": leaf,
        "not a leaf": leaf * 2,
        "parameter of a graph": view,
        "none": None,
        "number": 3,
        "module": nn.ReLU(),
        "list": [1],
        "buffer": nn.Buffer(torch.ones(1)),
        "passing buffer": nn.Buffer(torch.ones(1), persistent=False),
        "subclass": torch.ones(1).as_subclass(Sub),
        "class": nn.ReLU,
        "text": "text",
        "function": print,
        "lazy": nn.UninitializedParameter(),
    }


HOOKED = {
    "parameter": torchs_module.register_module_parameter_registration_hook,
    "buffer": torchs_module.register_module_buffer_registration_hook,
    "module": torchs_module.register_module_module_registration_hook,
}
Step = tuple[str, Any, str, Any]
steps = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "parameter", "buffer", "module", "delete", "emptied", "no set"]),
        st.sampled_from(NAMES),
        st.sampled_from(list(every_value())),
        st.sampled_from([True, True, False, 1, None]),
    ),
    min_size=1,
    max_size=6,
)


def step(module: Any, kind: str, name: Any, value: Any, persistent: Any) -> None:
    if kind == "set":
        setattr(module, name, value)
    elif kind == "parameter":
        module.register_parameter(name, value)
    elif kind == "buffer":
        module.register_buffer(name, value, *(() if persistent is True else (persistent,)))
    elif kind == "module":
        module.add_module(name, value)
    elif kind == "delete":
        delattr(module, name)
    elif kind == "emptied":
        module.__dict__["_modules"] = OrderedDict(module._modules)
    else:
        module.__dict__.pop("_non_persistent_buffers_set")


@contextmanager
def hooks(kind: str, log: list[Any], values: dict[str, Any]) -> Iterator[None]:
    """Hooks of somebody else: they see every registration, and exchange some."""

    def seen(module: nn.Module, name: str, registered: Any) -> Any:
        log.append((type(module).__name__, name, type(registered).__name__))
        if kind == "exchange" and name == "w":
            return values.get({nn.Parameter: "parameter", Tensor: "tensor", nn.ReLU: "module"}.get(type(registered), ""))
        if kind == "rebind" and isinstance(registered, (Tensor, nn.Module)):
            module.__dict__.update({key: dict(module.__dict__[key]) for key in KINDS if key in module.__dict__})
        if kind == "raise" and name == "w":
            raise RuntimeError("no w")
        return None

    with ExitStack() as stack:
        for register in HOOKED.values() if kind else ():
            stack.callback(register(seen).remove)
        yield


def shown(value: Any, values: dict[str, Any]) -> Any:
    """A value by its name, of containers what is in them, in order."""
    known = next((name for name, one in values.items() if one is value), None)
    if known is None and isinstance(value, dict):
        items = [(key if isinstance(key, str) else "a hook", shown(one, values)) for key, one in value.items()]
        return type(value).__name__, items
    return known or (type(value).__name__, sorted(value) if isinstance(value, set) else "")


def run(make: Callable[[], Any], program: list[Step], hooked: str, values: dict[str, Any]) -> list[Any]:
    log: list[Any] = []
    with hooks(hooked, log, values):
        try:
            module = make()
        except Exception as error:
            return [*log, f"{type(error).__name__}: {error}"]
        for kind, name, value, persistent in program:
            try:
                step(module, kind, name, values[value], persistent)
            except Exception as error:
                log.append(f"{type(error).__name__}: {error}")
        log.append([(key, shown(value, values)) for key, value in object.__getattribute__(module, "__dict__").items()])
    return log


@built
@pytest.mark.filterwarnings("ignore:.*jit.script:DeprecationWarning")
@given(st.sampled_from(range(len(CLASSES))), steps, st.sampled_from(["", "", "see", "exchange", "rebind", "raise"]))
@settings(max_examples=600, deadline=None)
def test_programs_of_registrations(at: int, program: list[Step], hooked: str) -> None:
    values = every_value()
    outside = run(CLASSES[at], program, hooked, values)
    with wi.patched():
        inside = run(CLASSES[at], program, hooked, values)
    assert inside == outside


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(2, 3),
    "no bias": lambda: nn.Conv2d(2, 4, 3, bias=False),
    "BatchNorm2d": lambda: nn.BatchNorm2d(3),
    "LSTM": lambda: nn.LSTM(2, 3, 2),
    "Transformer": lambda: nn.Transformer(4, 2, 1, 1, 8, batch_first=True),
    "Lazy": lambda: nn.LazyConv1d(2, 3),
    "Embedding": lambda: nn.Embedding(4, 2, padding_idx=0),
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2, kdim=3),
    "Dict": lambda: nn.ModuleDict({"a": nn.ReLU(), "b": nn.ParameterDict({"w": nn.Parameter(torch.ones(2))})}),
}


def everything(module: nn.Module) -> list[Any]:
    return [(key, type(value), names_in(value)) for one in module.modules() for key, value in vars(one).items()]


def names_in(value: Any) -> Any:
    return [name for name in value if isinstance(name, str)] if isinstance(value, (dict, set)) else None


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_same_attributes_in_the_same_order(name: str, block: str) -> None:
    outside = LAYERS[name]()
    with BLOCKS[block]():
        inside = LAYERS[name]()
    assert everything(inside) == everything(outside)
    of_two = [layer for layer in inside.modules() if type(layer) is nn.Linear][:2]
    assert len({id(layer._forward_hooks) for layer in of_two}) == len(of_two), "each has hooks of its own"


# ---- the native side ------------------------------------------------------------------------------------------------------


@built
def test_torchs_methods_are_those_that_we_know() -> None:
    """A version of torch whose methods do more gets its own, and this fails: read what is new there."""
    assert [fork.function.__name__ for fork in module_attributes._forks] == list(METHODS)


@built
def test_what_is_plain_is_stored_and_all_else_is_declined() -> None:
    stored = module_attributes._native.set
    module = nn.Linear(1, 1)
    assert all(stored(module, "x", value) for value in (3, True, 2.5, None, "a", (1,), [1], {}))
    assert module.x == {}
    assert not any(stored(module, "x", value) for value in (Odd(3), print, nn.ReLU(), module.weight, torch.ones(1)))
    assert not stored(module, "weight", None)
    module.__dict__["_parameters"] = None
    assert stored(module, "weight", None)
    module.__dict__["_buffers"] = OrderedDict()
    assert not stored(module, "x", 3), "whose keys are whose?"
    assert not stored(Mixed(), "x", 3)
    assert not stored(3, "x", 3)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        stored(WithProperty(), "x", 3)


@built
def test_what_is_new_is_registered_without_torch() -> None:
    native, module = module_attributes._native, nn.Module()
    weight, child = nn.Parameter(torch.ones(1)), nn.ReLU()
    assert native.set(module, "weight", weight)
    assert native.parameter(module, "bias", None)
    assert native.buffer(module, "mean", torch.ones(1))
    assert native.set(module, "child", child)
    assert native.set(module, "child", child), "a module in the place of another one"
    assert native.child(module, "0", child)
    assert [list(vars(module)[kind]) for kind in KINDS] == [["weight", "bias"], ["mean"], ["child", "0"]]
    assert not native.set(module, "weight", weight)
    assert not native.parameter(module, "mean", weight)
    assert not native.begin(3)  # type: ignore[arg-type]
    assert not native.begin(Mixed())


@built
def test_nothing_is_kept_alive() -> None:
    with wi.patched():
        layer = nn.Linear(2, 2)
        kept = [weakref.ref(layer), weakref.ref(layer.weight)]
        del layer
        gc.collect()
    assert [one() for one in kept] == [None, None]


@built
@pytest.mark.parametrize("block", BLOCKS)
def test_the_code_is_torchs_again_with_the_last_block(block: str) -> None:
    torchs = codes()
    seen = []

    def other() -> None:
        with BLOCKS[block]():
            seen.append(codes())

    with wi.deferred():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert codes() == seen[0]
        assert all(ours is not code for ours, code in zip(seen[0], torchs, strict=True))
        assert "def add_module" in inspect.getsource(nn.Module.add_module)
    assert codes() == torchs


def codes() -> list[CodeType]:
    """Of the methods as torch has them: torch.compile puts a function of its own around one."""
    return [fork.function.__code__ for fork in module_attributes._forks]


def test_another_thread_compiles_meanwhile() -> None:
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.calls = 3
            return x * 2

    module, found = Counting(), []

    def other() -> None:
        found.append(torch.compile(module, backend="eager", fullgraph=True)(torch.ones(2)))

    with wi.deferred():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert module.calls == 3
    assert found[0].tolist() == [2, 2]


def test_modules_are_made_in_compiled_code() -> None:
    def made(x: Tensor) -> Tensor:
        block = nn.Sequential(nn.ReLU(), nn.Identity())
        block[1].factor = 2
        return block(x) * block[1].factor

    plain, ours = torch.compile(made, backend="eager"), torch.compile(lambda x: made(x), backend="eager")
    with wi.patched():
        assert torch.equal(ours(torch.ones(2)), plain(torch.ones(2)))


def test_an_error_shows_the_line_of_torch() -> None:
    with wi.patched(), pytest.raises(KeyError, match="already exists") as caught:
        nn.Module().register_parameter("forward", None)
    assert traceback.extract_tb(caught.tb)[-1].line == "raise KeyError(f\"attribute '{name}' already exists\")"
