"""The shortest way of recording: native and in Python they write the same tape, and decline the same."""

from __future__ import annotations

import copy
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.engine.backend import kernels
from weightinit_cuda.init.catalog import CATALOG, Function
from weightinit_cuda.numerics.distributions import Constant
from weightinit_cuda.recording import recorder as recorders
from weightinit_cuda.recording import wholes
from weightinit_cuda.recording.plain_tape import PlainCalls, PlainTape
from weightinit_cuda.recording.recorder import Recorder
from weightinit_cuda.recording.short_ways import ONE, ZERO
from weightinit_cuda.recording.tape import CPU, META, FillStep, Memory

pytestmark = pytest.mark.skipif(kernels is None, reason="the native module is not built")


@contextmanager
def in_python() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorders, "fastest", lambda tape: tape)
        patch.setattr(wholes, "kernels", None)
        yield


def tape_of(program: Callable[[], object]) -> tuple[list[Any], list[Any]]:
    """The steps and memories of a program as plain data."""
    with wi.deferred() as recorded:
        kept = program()  # noqa: F841
    memories: list[Memory] = list(recorded._recorder._memories.values())
    number = {id(memory): n for n, memory in enumerate(memories)}

    def written(step: Any) -> tuple[Any, ...]:
        filled = [number[id(view.memory)] for view in step.writes], [view[1:] for view in step.writes]
        is_plain = isinstance(step, FillStep) and isinstance(step.filled, Memory)
        return type(step).__name__, step.source, filled, is_plain, repr(getattr(step, "distribution", None)), step.known

    def seen(memory: Memory) -> tuple[Any, ...]:
        shown = memory.device, memory.dtype, tuple(memory.shape), memory.geometry, memory.plain, memory.steps, memory.known
        return *shown, memory.nbytes

    return [written(step) for step in recorded._recorder.steps], [seen(memory) for memory in memories]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.shift = nn.Parameter(torch.zeros((3, 2), dtype=torch.float64, device="cpu"))
        self.register_buffer("steps", torch.tensor(3, dtype=torch.long))
        self.w = nn.Parameter(torch.empty([4, 3], dtype=torch.bfloat16))
        nn.init.trunc_normal_(self.w, std=0.02)
        self.w.data.mul_(2.0)
        self.w.data[0].zero_()


class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.empty(2)) for _ in range(3))
        nn.init.constant_(self.a, 0.0)
        nn.init.constant_(self.b, -0.0)
        nn.init.constant_(self.c, True)
        self.a.data.fill_(1)
        self.b.data.normal_(0, 2)
        with torch.no_grad():
            self.c.uniform_(-1, 1)


def with_a_seed() -> nn.Module:
    layer = nn.Linear(3, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nn.init.normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(3))
    return layer


def with_odd_sizes() -> list[Tensor]:
    made = [torch.empty(2, 3), torch.empty(torch.Size((2, 3))), torch.empty(0, 3), torch.ones(())]
    with torch.device("meta"):
        made.append(torch.ones(2))
    return [*made, torch.zeros(2, device="meta"), torch.empty(2, requires_grad=True), torch.ones(2, dtype=torch.complex64)]


PROGRAMS: dict[str, Callable[[], object]] = {
    "linear": lambda: nn.Linear(3, 4),
    "batch norm": lambda: nn.BatchNorm2d(3),
    "convolutions": lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, 3, bias=False), nn.Conv1d(2, 4, 1)),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "recurrent": lambda: nn.LSTM(3, 4),
    "embedding": lambda: nn.Embedding(5, 3, padding_idx=1),
    "block": Block,
    "constants": Constants,
    "seed": with_a_seed,
    "sizes": with_odd_sizes,
    "orthogonal": lambda: nn.init.orthogonal_(nn.Linear(4, 4).weight),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_tapes_are_equal(name: str) -> None:
    program = PROGRAMS[name]
    native = tape_of(program)
    with in_python():
        assert native == tape_of(program)
    assert native[0], "nothing is recorded"


def test_the_tapes_differ_where_programs_do() -> None:
    """Power of the test above."""
    assert tape_of(lambda: nn.Linear(3, 4)) != tape_of(lambda: nn.Linear(3, 5))
    assert tape_of(lambda: nn.init.zeros_(torch.empty(2))) != tape_of(lambda: nn.init.ones_(torch.empty(2)))


@contextmanager
def recording(native: bool) -> Iterator[Recorder]:
    with nullcontext() if native else in_python(), wi.deferred() as recorded:
        yield recorded._recorder


@pytest.fixture(params=[True, False], ids=["native", "python"])
def recorder(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    with recording(request.param) as one:
        assert isinstance(one.plain, PlainTape) is not request.param
        yield one


@pytest.fixture
def plain(recorder: Recorder) -> PlainCalls:
    return recorder.plain


def steps_of(plain: PlainCalls, tensor: Tensor) -> list[int]:
    memory = plain.plain_memory(tensor)
    assert memory is not None
    return memory.steps


def test_what_is_made(plain: PlainCalls) -> None:
    made = plain.make((2, 3), {"dtype": torch.float16, "device": "cuda:1"}, ONE)
    assert made is not None
    assert made.shape == (2, 3)
    memory = plain.plain_memory(made)
    assert memory is not None
    assert (memory.device, memory.dtype, memory.shape, memory.plain) == (torch.device("cuda:1"), torch.float16, (2, 3), True)
    assert memory.steps == [0]
    assert type(memory.shape) is torch.Size


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), {}),
        ((0,), {}),
        (((2, 0),), {}),
        ((2.0,), {}),
        ((-1,), {}),
        ((True,), {}),
        ((2**62, 2**62), {}),
        ((2**70,), {}),
        (("2",), {}),
        ((2,), {"device": "meta"}),
        ((2,), {"pin_memory": True}),
        ((2,), {"requires_grad": False}),
        ((2,), {"dtype": torch.float32, "out": None}),
    ],
)
def test_what_is_not_made(plain: PlainCalls, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    assert plain.make(args, named, ZERO) is None


def test_nothing_is_made_under_other_modes(plain: PlainCalls) -> None:
    with torch.device("cpu"):
        assert plain.make((2,), {}, None) is None
    w = torch.empty(2)
    with torch.utils._python_dispatch._disable_current_modes():
        assert plain.make((2,), {}, None) is None
        assert not plain.fill(w, ZERO)
        assert not plain.called(CATALOG["zeros_"], (w,), 1)
        assert plain.data(w) is None


def test_a_device_that_is_none_is_torchs_error(plain: PlainCalls) -> None:
    with pytest.raises(RuntimeError, match="device"):
        plain.make((2,), {"device": "no such"}, None)
    torch.empty(2, 2)  # torch looks at the modes again


def test_plain_memory_declines(plain: PlainCalls) -> None:
    w = torch.empty(4, 4)
    assert plain.plain_memory(w) is not None
    assert plain.plain_memory(torch.ones(2, device="meta").to_sparse()) is None
    for other in (w.t(), w[0], w.view(16), w.view(torch.int32)):
        assert plain.plain_memory(other) is None
    assert plain.plain_memory(w) is None, "a view has been made of it"
    for nothing in (None, 3, torch.ones, "w"):
        assert plain.plain_memory(nothing) is None  # type: ignore[arg-type]


def test_conjugates_and_negatives_are_not_plain(plain: PlainCalls) -> None:
    made = plain.make((3,), {"dtype": torch.complex64}, None)
    real = plain.make((3,), {}, None)
    assert made is not None
    assert real is not None
    with torch.utils._python_dispatch._disable_current_modes():  # so that nobody looks
        conjugate, negative = made.conj(), torch._neg_view(real)
    assert plain.plain_memory(made) is not None
    assert plain.plain_memory(conjugate) is None
    assert plain.plain_memory(negative) is None


class Other(Tensor):
    pass


def test_subclasses_decline(plain: PlainCalls) -> None:
    w = torch.empty(2).as_subclass(Other)
    assert plain.plain_memory(w) is None
    assert not plain.called(CATALOG["zeros_"], (w,), 1)


def test_autograd_is_heard(plain: PlainCalls) -> None:
    w = nn.Parameter(torch.empty(2))
    assert not plain.fill(w, ZERO)
    assert steps_of(plain, w) == []
    with torch.no_grad():
        assert plain.fill(w, ZERO)
    assert plain.fill(w.data, ZERO)
    assert len(steps_of(plain, w)) == 2
    with torch.inference_mode():
        inside = torch.empty(2)
    assert not plain.fill(inside, ZERO)


def test_data_is_the_same_memory(plain: PlainCalls) -> None:
    w = nn.Parameter(torch.empty(2))
    seen = plain.data(w)
    assert seen is not None
    assert type(seen) is Tensor
    assert not seen.requires_grad
    assert plain.plain_memory(seen) is plain.plain_memory(w) is not None
    assert plain.data(torch.arange(3.0)[1:]) is None


def test_calls_that_torch_words_are_declined(plain: PlainCalls) -> None:
    w = torch.empty(2, 3)
    assert not plain.called(CATALOG["uniform_"], (w, 1.0, 0.0), 3)
    assert not plain.called(CATALOG["dirac_"], (w, 1), 2)
    assert not plain.called(CATALOG["normal_"], (w, 0.0, "1"), 3)
    assert steps_of(plain, w) == []


def test_generators_and_seeds_are_declined(plain: PlainCalls) -> None:
    w = torch.empty(2, 3)
    assert not plain.called(CATALOG["normal_"], (w, 0.0, 1.0, torch.Generator()), 3)
    assert plain.called(CATALOG["normal_"], (w, 0.0, 1.0, None), 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert not plain.called(CATALOG["normal_"], (w, 0.0, 1.0, None), 3)
        assert plain.called(CATALOG["ones_"], (w,), 1)
    assert plain.called(CATALOG["normal_"], (w, 0.0, 1.0, None), 3)
    assert len(steps_of(plain, w)) == 3


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("constant_", (0.0,)),
    ("constant_", (-0.0,)),
    ("constant_", (1,)),
    ("constant_", (True,)),
    ("constant_", (1.0,)),
    ("uniform_", (0.0, 1.0)),
    ("normal_", (0.0, 1.0)),
    ("normal_", (0, 1)),
    ("normal_", (-0.0, 1.0)),
    ("kaiming_uniform_", (5**0.5, "fan_in", "leaky_relu")),
    ("kaiming_uniform_", (5**0.5, "fan_out", "leaky_relu")),
    ("kaiming_uniform_", (0, "fan_in", "relu")),
    ("orthogonal_", (2,)),
]


def test_what_is_remembered_is_told_apart(recorder: Recorder) -> None:
    """0.0 from -0.0, 1 from True and 1.0, dtypes, shapes, functions."""
    for _ in range(2):
        for dtype, shape in ((torch.float32, (2, 3)), (torch.float64, (2, 3)), (torch.float32, (3, 2))):
            for name, own in CALLS:
                w = torch.empty(shape, dtype=dtype)
                assert recorder.plain.called(CATALOG[name], (w, *own), len(own) + 1)
                step = recorder.steps[-1]
                assert isinstance(step, FillStep)
                wanted = CATALOG[name].distribution(dtype, torch.Size(shape), *own)
                assert repr(step.distribution) == repr(wanted), (name, own)


def test_what_can_change_is_not_remembered(recorder: Recorder) -> None:
    row = CATALOG["constant_"]._replace(scheme=lambda dtype, value: Constant(float(value)))
    w, number = torch.empty(2), Number(2.0)
    for value in (2.0, 3.0):
        number.value = value
        assert recorder.plain.called(row, (w, number), 2)
        step = recorder.steps[-1]
        assert isinstance(step, FillStep)
        assert step.distribution == Constant(value)


class Number:
    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


def test_an_interrupt_goes_through(plain: PlainCalls) -> None:
    def stops(dtype: torch.dtype) -> Constant:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plain.called(CATALOG["zeros_"]._replace(scheme=stops), (torch.empty(2),), 1)


def test_a_function_is_not_kept_waiting_for_its_arguments() -> None:
    with recording(native=True) as one, pytest.raises(ValueError, match="arguments"):
        one.plain.called(CATALOG["normal_"], (torch.empty(2),), 3)


def test_references_are_counted() -> None:
    """Whatever is recorded, made or declined, nothing of it is left, and nothing is given back twice."""
    named = {"device": "cpu", "dtype": torch.float64}
    size, row = (1000, 3), CATALOG["normal_"]
    watched: list[object] = [ZERO, named, size, torch.float64, META, CPU, FillStep, Memory, Function, row, nn.Linear]

    def run() -> None:
        with recording(native=True) as one:
            plain = one.plain
            for _ in range(50):
                w = plain.make((size,), named, ZERO)
                assert w is not None
                plain.fill(w, ZERO)
                plain.called(row, (w, 0.0, 1.0, None), 3)
                plain.called(CATALOG["uniform_"], (w, 1.0, 0.0), 3)
                plain.make(((0,),), named, ZERO)
                plain.make((2**62, 2**62), {}, ZERO)
                plain.plain_memory(w[0])
                plain.fill(w, ZERO)
                nn.Linear(2, 2)

    run()
    gc.collect()
    before = [sys.getrefcount(each) for each in watched]
    objects = len(gc.get_objects())
    for _ in range(3):
        run()
    gc.collect()
    assert [sys.getrefcount(each) for each in watched] == before
    assert len(gc.get_objects()) < objects + 100


def test_the_collector_finds_what_native_tapes_hold() -> None:
    """A recording that is part of a cycle goes with it."""
    with wi.deferred() as recorded:
        model = nn.Linear(2, 2)
    alive = weakref.ref(model)
    model.recorded = recorded  # type: ignore[assignment]
    del model, recorded
    gc.collect()
    assert alive() is None


# ---- what is registered -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
def test_what_is_registered(native: bool) -> None:
    kept: list[nn.Module] = []
    with nullcontext() if native else in_python(), wholes.registered() as made:
        model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        model.register_buffer("nothing", None)
        model.register_parameter("none", None)
        model.add_module("no", None)
        twin = copy.deepcopy(model[0])
        thread = threading.Thread(target=lambda: kept.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
    inside = {id(module): module for module in (model[0], model, model[1], twin)}
    assert made.modules == inside
    assert list(made.tensors) == [(id(model[0]), "weight"), (id(model[0]), "bias")]
    assert made.tensors[id(model[0]), "weight"] is model[0].weight
