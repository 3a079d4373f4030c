"""The drop-in: signatures, seeds and generators, shards, fans and gains, and what each function writes.

Bad arguments are in test_bad_input.py; the bits of the distributions and their statistics have tests of their own.
"""

from __future__ import annotations

import inspect
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from bitwise import same_bits
from torch import Tensor
from torch.overrides import TorchFunctionMode

from weightinit_cuda import engine, init
from weightinit_cuda.init import fans as scaling
from weightinit_cuda.numerics import probability
from weightinit_cuda.numerics.streams import stream_of

EXTRAS = {"seed", "stream", "global_shape", "offset", "flat_range", "in_axes", "out_axes", "batch_axes", "bounds", "compensate"}
DEPRECATED = ("uniform", "normal", "constant", "eye", "dirac", "xavier_uniform", "xavier_normal", "kaiming_uniform")
DEPRECATED += ("kaiming_normal", "orthogonal", "sparse")
FIXED = ("constant_", "ones_", "zeros_", "eye_", "dirac_")
NEEDED: dict[str, tuple[Any, ...]] = {"sparse_": (0.5,), "constant_": (0.5,)}
RANDOM = ("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_")
RANDOM += ("variance_scaling_", "lecun_uniform_", "lecun_normal_", "orthogonal_", "sparse_")
ELEMENTWISE = tuple(name for name in RANDOM if name != "orthogonal_")
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
COMPLEX = (torch.complex64, torch.complex128)
REAL_ONLY = ("trunc_normal_", "variance_scaling_", "lecun_normal_")


def call(name: str, tensor: Tensor, **kwargs: Any) -> Tensor:
    result: Tensor = getattr(init, name)(tensor, *NEEDED.get(name, ()), **kwargs)
    return result


# ---- the face -------------------------------------------------------------------------------------------------------


# torch names its public functions since 2.7
PUBLIC = getattr(torch.nn.init, "__all__", sorted(name for name in init.__all__ if hasattr(torch.nn.init, name)))


def test_every_public_name_is_there() -> None:
    assert set(PUBLIC) <= set(init.__all__)
    assert all(callable(getattr(init, name)) for name in init.__all__)
    private = "_calculate_fan_in_and_fan_out _calculate_correct_fan _no_grad_uniform_ _no_grad_normal_ _no_grad_trunc_normal_"
    for name in (*private.split(), "_no_grad_fill_", "_no_grad_zero_", "_make_deprecate"):
        assert (
            inspect.signature(getattr(init, name)).parameters.keys()
            == inspect.signature(getattr(torch.nn.init, name)).parameters.keys()
        )


@pytest.mark.parametrize("name", PUBLIC)
def test_signature(name: str) -> None:
    theirs = inspect.signature(getattr(torch.nn.init, name))
    ours = inspect.signature(getattr(init, name), eval_str=name not in DEPRECATED)
    kept = [p for p in ours.parameters.values() if p.name not in EXTRAS or p.name in theirs.parameters]
    added = [p for p in ours.parameters.values() if p not in kept]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in added)
    for mine, other in zip(kept, theirs.parameters.values(), strict=True):
        assert (mine.name, mine.kind, mine.default, type(mine.default)) == (
            other.name,
            other.kind,
            other.default,
            type(other.default),
        )
        # Of strings torch lists those it knows, and we know more; torch 2.6 has few annotations.
        if other.name not in ("nonlinearity", "mode", "args", "kwargs") and other.annotation is not other.empty:
            assert mine.annotation == other.annotation
    if name not in DEPRECATED and theirs.return_annotation is not theirs.empty:
        assert ours.return_annotation == theirs.return_annotation


@pytest.mark.parametrize("name", RANDOM)
def test_extras(name: str) -> None:
    parameters = inspect.signature(getattr(init, name)).parameters
    defaults = {"seed": None, "stream": 0, "global_shape": None, "offset": None, "flat_range": None}
    assert {key: parameters[key].default for key in defaults} == defaults
    assert all(parameters[key].kind is inspect.Parameter.KEYWORD_ONLY for key in defaults)


@pytest.mark.parametrize("name", DEPRECATED)
def test_deprecated_alias(name: str) -> None:
    outcomes = []
    for module in (torch.nn.init, init):
        tensor = torch.empty(4, 2, 3) if name == "dirac" else torch.empty(4, 3)
        with pytest.warns(FutureWarning) as caught:
            result = getattr(module, name)(tensor, *NEEDED.get(name + "_", ()))
        assert result is tensor
        assert caught[0].filename == __file__
        outcomes.append((getattr(module, name).__name__, [(w.category, str(w.message)) for w in caught]))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", sorted(set(RANDOM + FIXED)))
def test_pickles(name: str) -> None:
    assert pickle.loads(pickle.dumps(getattr(init, name))) is getattr(init, name)


def test_positional_generator() -> None:
    for name, args in (
        ("uniform_", (0.0, 1.0)),
        ("normal_", (0.0, 1.0)),
        ("trunc_normal_", (0, 1, -2, 2)),
        ("xavier_normal_", (1.0,)),
    ):
        results = [
            getattr(init, name)(torch.empty(4, 3), *args, torch.Generator().manual_seed(5)),
            getattr(init, name)(torch.empty(4, 3), *args, generator=torch.Generator().manual_seed(5)),
        ]
        assert same_bits(*results)


def test_private_helpers() -> None:
    w = torch.empty(4, 3, 2)
    assert init._calculate_fan_in_and_fan_out(w) == torch.nn.init._calculate_fan_in_and_fan_out(w)
    assert init._calculate_correct_fan(w, "FAN_OUT") == torch.nn.init._calculate_correct_fan(w, "FAN_OUT")
    generators = [torch.Generator().manual_seed(1) for _ in range(6)]
    pairs = (
        (init._no_grad_uniform_(torch.empty(3), 0, 2, generators[0]), init.uniform_(torch.empty(3), 0, 2, generators[1])),
        (init._no_grad_normal_(torch.empty(3), 1, 2, generators[2]), init.normal_(torch.empty(3), 1, 2, generators[3])),
        (
            init._no_grad_trunc_normal_(torch.empty(3), 0, 1, -1, 1, generators[4]),
            init.trunc_normal_(torch.empty(3), 0, 1, -1, 1, generators[5]),
        ),
    )
    assert all(same_bits(*pair) for pair in pairs)
    assert init._no_grad_fill_(torch.empty(2), 3.0).tolist() == [3.0, 3.0]
    assert init._no_grad_zero_(torch.empty(2)).tolist() == [0.0, 0.0]


# ---- generators and seeds -------------------------------------------------------------------------------------------


def one_draw(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return generator.get_state()


def tensors() -> Iterator[tuple[str, Tensor]]:
    yield "small", torch.empty(4, 3)
    yield "large", torch.empty(300, 100)
    yield "transposed", torch.empty(3, 4).T
    yield "strided", torch.empty(8, 9)[::2, ::3]
    yield "leaf", torch.empty(4, 3, requires_grad=True)
    for dtype in (*FLOATS, *COMPLEX):
        yield str(dtype), torch.empty(4, 3, dtype=dtype)


@pytest.mark.parametrize("name", RANDOM)
def test_one_draw_of_64_bits(name: str) -> None:
    for label, tensor in tensors():
        if tensor.is_complex() and name in REAL_ONLY:
            continue
        torch.manual_seed(7)
        assert call(name, tensor) is tensor
        assert torch.equal(torch.get_rng_state(), one_draw(7)), label
        generator = torch.Generator().manual_seed(8)
        call(name, tensor, generator=generator)
        assert torch.equal(generator.get_state(), one_draw(8)), label
        assert torch.equal(torch.get_rng_state(), one_draw(7)), label


@pytest.mark.parametrize("name", RANDOM)
def test_nothing_to_fill_draws_nothing(name: str) -> None:
    for tensor in (torch.empty(4, 3, device="meta"), torch.empty(0, 3)):
        before = torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert call(name, tensor) is tensor
        assert torch.equal(torch.get_rng_state(), before)


def test_empty_shard_of_a_tensor_draws_as_the_others() -> None:
    torch.manual_seed(7)
    init.normal_(torch.empty(0, 3), global_shape=(4, 3), offset=(4, 0))
    assert torch.equal(torch.get_rng_state(), one_draw(7))
    init.normal_(torch.empty(0, 3), global_shape=(0, 3), offset=(0, 0))
    init.normal_(torch.empty(0, 3, device="meta"), global_shape=(4, 3), offset=(4, 0))
    assert torch.equal(torch.get_rng_state(), one_draw(7))


def test_fake_tensors_are_left_alone() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    before = torch.get_rng_state()
    with FakeTensorMode():
        fake = torch.empty(4, 3)
        for name in (*RANDOM, "eye_"):
            assert call(name, fake) is fake
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", RANDOM)
def test_seed_reproduces(name: str) -> None:
    torch.manual_seed(3)
    first, second = call(name, torch.empty(4, 3)), call(name, torch.empty(4, 3))
    torch.manual_seed(3)
    assert same_bits(first, call(name, torch.empty(4, 3)))
    assert not same_bits(first, second)
    before = torch.get_rng_state()
    seeded = call(name, torch.empty(4, 3), seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(seeded, call(name, torch.empty(4, 3), seed=5))
    assert not same_bits(seeded, call(name, torch.empty(4, 3), seed=5 + 2**32))
    assert not same_bits(seeded, call(name, torch.empty(4, 3), seed=5, stream=1))


def test_drawn_seed_is_the_seed() -> None:
    torch.manual_seed(11)
    drawn = init.normal_(torch.empty(9))
    seed = torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=torch.Generator().manual_seed(11)).item()
    assert same_bits(drawn, init.normal_(torch.empty(9), seed=int(seed)))
    torch.manual_seed(11)
    assert engine.draw_seed(drawn) == int(seed) % 2**64


def test_forms_of_a_seed() -> None:
    def filled(seed: Any, stream: Any = 0) -> Tensor:
        return init.uniform_(torch.empty(8), seed=seed, stream=stream)

    assert same_bits(filled(-1), filled(2**64 - 1))
    assert same_bits(filled(-(2**63)), filled(2**63))
    for form in (np.int64(7), np.uint8(7), torch.tensor(7)):
        assert same_bits(filled(form), filled(7))
    assert same_bits(filled(0, -1), filled(0, 2**64 - 1))
    assert same_bits(filled(0, "tok.weight"), filled(0, stream_of("tok.weight")))
    assert same_bits(filled(0, np.int32(3)), filled(0, 3))


def test_stream_without_seed_draws() -> None:
    torch.manual_seed(4)
    named = init.normal_(torch.empty(5), stream="a")
    torch.manual_seed(4)
    assert same_bits(named, init.normal_(torch.empty(5), seed=engine.draw_seed(named), stream="a"))


def test_stream_names() -> None:
    names = [f"layers.{i}.{part}" for i in range(1000) for part in ("weight", "bias", "ünï")]
    numbers = {stream_of(name) for name in names}
    assert len(numbers) == len(names)
    assert 0 < min(numbers) < max(numbers) < 2**64
    assert stream_of("") != 0
    assert stream_of("tok.weight") == 0xDAEF894C3BE395ED  # format 1: frozen


def test_wrong_device_generator() -> None:
    class CudaGenerator(torch.Generator):
        device = torch.device("cuda")  # type: ignore[assignment]

    tensor = torch.zeros(3)
    with pytest.raises(RuntimeError, match="Expected a 'cpu' device type for generator but found 'cuda'"):
        init.normal_(tensor, generator=CudaGenerator())
    assert tensor.tolist() == [0, 0, 0]


def in_new_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_first_call_of_a_thread_in_inference_mode() -> None:
    """What the thread keeps for its later calls must not be an inference tensor."""

    def calls() -> Tensor:
        with torch.inference_mode():
            init.normal_(torch.empty(3))
        return init.normal_(torch.empty(3))

    assert in_new_thread(calls).isfinite().all()


def test_first_call_of_a_thread_under_a_fake_mode() -> None:
    """What the thread keeps for its later calls must be real memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    def memory() -> type:
        with FakeTensorMode():
            return type(engine.words.seed_cell.tensor)

    assert in_new_thread(memory) is Tensor


def test_threads_draw_their_own_seeds() -> None:
    with ThreadPoolExecutor(4) as pool:
        filled = list(pool.map(lambda _: init.uniform_(torch.empty(4)), range(400)))
    assert len({tuple(values.tolist()) for values in filled}) == 400


# ---- autograd, subclasses, modes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(RANDOM + FIXED)))
def test_autograd(name: str) -> None:
    shape = (4, 2, 3) if name == "dirac_" else (4, 3)
    leaf = torch.ones(shape, requires_grad=True)
    loss = (leaf * leaf).sum()
    version = leaf._version
    assert call(name, leaf) is leaf
    assert leaf._version > version
    assert leaf.is_leaf
    assert leaf.grad_fn is None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    view = torch.ones(5, *shape, requires_grad=True)[2]
    call(name, view)
    assert torch.is_grad_enabled()


class Skip(TorchFunctionMode):
    """What Lightning's empty-init does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


class Record(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, dict[str, Any]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append((func, kwargs))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", sorted(set(RANDOM + FIXED)))
def test_torch_function_mode(name: str) -> None:
    shape = (4, 2, 3) if name == "dirac_" else (4, 3)
    tensor = torch.full(shape, 7.0)
    with Skip():
        assert call(name, tensor) is tensor
    assert bool((tensor == 7).all())
    extras = {"seed": 3} if name in RANDOM else {}
    with Record() as record:
        call(name, tensor, **extras)
    assert same_bits(tensor, call(name, torch.empty(shape), **extras)), "a mode that lets the call pass gets our values"
    ((func, kwargs),) = record.calls
    assert func.__name__ == name
    if hasattr(torch.nn.init, name):
        original = getattr(torch.nn.init, name)
        assert func == original
        assert {original: 1}[func] == 1
        with Record() as theirs:
            getattr(torch.nn.init, name)(torch.empty(shape), *NEEDED.get(name, ()))
        if theirs.calls[0][0] is original:
            assert kwargs.keys() - {"seed"} == theirs.calls[0][1].keys()
    assert repr(func) == repr(getattr(init, name))


def test_device_mode_keeps_our_values() -> None:
    with torch.device("cpu"):
        inside = init.normal_(torch.empty(9), seed=1)
    assert same_bits(inside, init.normal_(torch.empty(9), seed=1))
    with torch.device("meta"):
        assert init.kaiming_uniform_(torch.empty(4, 3)).is_meta


class Subclass(torch.Tensor):
    pass


def test_subclass() -> None:
    tensor = torch.empty(4, 3).as_subclass(Subclass)
    for name in (*RANDOM, "eye_", "ones_"):
        assert call(name, tensor) is tensor
    init.normal_(tensor, seed=1)
    assert same_bits(tensor.as_subclass(Tensor), init.normal_(torch.empty(4, 3), seed=1))


class Table(torch.Tensor):
    """A subclass that dispatches by torch's function objects, as ShardedTensor does."""

    handlers: dict[Any, Callable[..., Any]] = {torch.nn.init.uniform_: lambda **kwargs: ("handled", sorted(kwargs))}  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return cls.handlers[func](*args, **kwargs)


def test_table_of_overrides() -> None:
    handled: Any = init.uniform_(torch.empty(3).as_subclass(Table))
    assert handled == ("handled", ["a", "b", "generator", "tensor"])


# ---- layouts and shards ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_shards_and_layouts(name: str, dtype: torch.dtype) -> None:
    whole = call(name, torch.empty(6, 10, dtype=dtype), seed=3, stream="w")
    for rows, cols in (
        (slice(0, 3), slice(0, 10)),
        (slice(2, 6), slice(3, 8)),
        (slice(5, 6), slice(9, 10)),
        (slice(2, 2), slice(0, 10)),
    ):
        part = whole[rows, cols]
        for local in (torch.empty(part.shape, dtype=dtype), torch.empty(part.T.shape, dtype=dtype).T):
            region = {"global_shape": [6, 10], "offset": (rows.start, cols.start)}
            assert same_bits(part, call(name, local, seed=3, stream="w", **region))
    assert same_bits(whole, call(name, torch.empty(10, 6, dtype=dtype).T, seed=3, stream="w"))
    spread = torch.full((12, 30), 9.0, dtype=dtype)
    assert same_bits(whole, call(name, spread[::2, ::3], seed=3, stream="w"))
    assert bool((spread[1::2] == 9).all())
    assert bool((spread[:, 1::3] == 9).all())


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "sparse_"])
def test_channels_last(name: str) -> None:
    plain = call(name, torch.empty(4, 3, 2, 5), seed=3)
    assert same_bits(plain, call(name, torch.empty(4, 3, 2, 5, memory_format=torch.channels_last), seed=3))


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_complex_is_two_real_draws(dtype: torch.dtype) -> None:
    real = dtype.to_real()
    assert same_bits(
        torch.view_as_real(init.uniform_(torch.empty(9, dtype=dtype), seed=1)),
        init.uniform_(torch.empty(9, 2, dtype=real), seed=1),
    )
    parts = init.normal_(torch.empty(9, 2, dtype=real), 1.0, 2.0 * math.sqrt(0.5), seed=1)
    assert same_bits(torch.view_as_real(init.normal_(torch.empty(9, dtype=dtype), 1.0, 2.0, seed=1)), parts)


def test_lazy_views() -> None:
    base = torch.empty(4, 3, dtype=torch.complex64)
    wanted = init.normal_(torch.empty(4, 3, dtype=torch.complex64), seed=1)
    assert same_bits(init.normal_(base.conj(), seed=1).resolve_conj(), wanted)
    assert same_bits(base, wanted.conj().resolve_conj())
    assert same_bits(init.normal_(base.conj().imag, seed=1).resolve_neg(), init.normal_(torch.empty(4, 3), seed=1))


# ---- widths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (8, 3, 5, 7), (2, 1, 1, 1, 9), (0, 3)], ids=str)
def test_fans_are_torchs(shape: tuple[int, ...]) -> None:
    assert scaling.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def test_fans_with_axes() -> None:
    assert scaling.fans((3, 3, 16, 32), in_axes=-2, out_axes=-1) == (144, 288)  # jax: _compute_fans
    assert scaling.fans((8, 64, 256), batch_axes=0) == (256, 64)
    assert scaling.fans((8, 64, 256), in_axes=-1, out_axes=-2, batch_axes=[0]) == (256, 64)
    assert scaling.fans((4, 5, 6), in_axes=(1, 2)) == (30, 4)
    assert scaling.fans((7,), in_axes=0, out_axes=()) == (7, 1)
    assert scaling.fans((2, 3), out_axes=1) == (2, 3)


@pytest.mark.parametrize(
    "name", ["linear", "conv1d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu", "elu"]
)
@pytest.mark.parametrize("param", [None, 0, 0.2, -1, True, "x"], ids=str)
def test_gain_is_torchs(name: str, param: Any) -> None:
    outcomes = []
    for function in (torch.nn.init.calculate_gain, init.calculate_gain):
        try:
            value: Any = function(name, param)  # type: ignore[operator]
            outcomes.append((type(value), value))
        except ValueError as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1]


def test_derived_gains() -> None:
    with mpmath.workdps(30):
        density = lambda z: mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi)  # noqa: E731
        functions = {
            "relu": lambda z: max(z, 0),
            "gelu": lambda z: z * mpmath.ncdf(z),
            "silu": lambda z: z / (1 + mpmath.exp(-z)),
            "mish": lambda z: z * mpmath.tanh(mpmath.log1p(mpmath.exp(z))),
        }
        for name, f in functions.items():
            moment = mpmath.quad(lambda z, f=f: f(z) ** 2 * density(z), [-20, -8, -4, -2, 0, 2, 4, 8, 20])
            assert init.calculate_gain(name) == pytest.approx(float(1 / mpmath.sqrt(moment)), rel=2e-16)
    assert init.calculate_gain("swish") == init.calculate_gain("silu")


SIGMAS = [(-2, 2), (-1, 3), (0, 1e-3), (8, 9), (8, math.inf), (-math.inf, -30), (100, 101), (-math.inf, math.inf), (-40, 50)]


@pytest.mark.parametrize("bounds", SIGMAS, ids=str)
def test_truncated_std(bounds: tuple[float, float]) -> None:
    with mpmath.workdps(40):
        a, b = map(mpmath.mpf, bounds)
        peak = min(max(mpmath.mpf(0), a), b)
        reach = 200 / (abs(peak) + mpmath.sqrt(peak**2 + 200))
        points = mpmath.linspace(max(a - peak, -reach), min(b - peak, reach), 30)
        density = lambda t: mpmath.exp(-t * (t + 2 * peak) / 2)  # noqa: E731
        mass = mpmath.quad(density, points)
        mean = mpmath.quad(lambda t: t * density(t), points) / mass
        std = mpmath.sqrt(mpmath.quad(lambda t: (t - mean) ** 2 * density(t), points) / mass)
        assert abs(probability.truncated_std(float(bounds[0]), float(bounds[1])) / std - 1) < 3e-15


def test_truncated_std_at_two_sigma_is_jaxs() -> None:
    assert probability.truncated_std(-2.0, 2.0) == 0.8796256610342398


@pytest.mark.parametrize(
    ("std", "low", "high"), [(1.0, -2.0, 2.0), (0.02, -0.04, 0.04), (1.0, -5.0, 1.0), (1e-3, -2.0, 2.0), (0.1, 3.0, 4.0)]
)
def test_compensated(std: float, low: float, high: float) -> None:
    s = probability.compensated_std(std, low, high)
    assert s * probability.truncated_std(low / s, high / s) == pytest.approx(std, rel=1e-14)


def moments(tensor: Tensor) -> tuple[float, float]:
    values = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double()
    return values.mean().item(), values.pow(2).mean().sqrt().item()


SHAPE = (400, 250)  # fan_in 250, fan_out 400
WIDTHS: list[tuple[str, dict[str, Any], float]] = [
    ("uniform_", {"a": -3.0, "b": 3.0}, math.sqrt(3)),
    ("normal_", {"std": 0.02}, 0.02),
    ("trunc_normal_", {}, 0.8796256610342398),
    ("trunc_normal_", {"std": 0.02, "a": -2, "b": 2, "bounds": "sigma"}, 0.02 * 0.8796256610342398),
    ("trunc_normal_", {"std": 0.02, "a": -2, "b": 2, "bounds": "sigma", "compensate": True}, 0.02),
    ("trunc_normal_", {"std": 0.02, "a": -0.04, "b": 0.04, "compensate": True}, 0.02),
    ("xavier_uniform_", {"gain": 2.0}, 2 * math.sqrt(2 / 650)),
    ("xavier_normal_", {}, math.sqrt(2 / 650)),
    ("kaiming_uniform_", {"a": math.sqrt(5)}, math.sqrt(1 / 3 / 250)),
    ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}, math.sqrt(2 / 400)),
    ("kaiming_normal_", {"in_axes": 0, "out_axes": 1, "nonlinearity": "relu"}, math.sqrt(2 / 400)),
    ("lecun_uniform_", {}, math.sqrt(1 / 250)),
    ("lecun_normal_", {}, math.sqrt(1 / 250)),
    ("variance_scaling_", {"scale": 3.0, "mode": "fan_avg"}, math.sqrt(3 / 325)),
    ("variance_scaling_", {"mode": "fan_geo_avg", "distribution": "untruncated_normal"}, (400 * 250) ** -0.25),
    ("variance_scaling_", {"mode": "fan_out", "distribution": "uniform"}, math.sqrt(1 / 400)),
    ("variance_scaling_", {"scale": 0.0}, 0.0),
    ("orthogonal_", {}, math.sqrt(1 / 400)),
    ("sparse_", {"std": 2.0}, math.sqrt(2)),
]


@pytest.mark.parametrize(("name", "kwargs", "std"), WIDTHS, ids=lambda value: str(value))
def test_width(name: str, kwargs: dict[str, Any], std: float) -> None:
    mean, measured = moments(call(name, torch.empty(SHAPE), seed=1, **kwargs))
    assert abs(mean) <= 5 * std / math.sqrt(math.prod(SHAPE))  # 5 standard errors
    assert measured == pytest.approx(std, rel=0.012)  # 5 standard errors of the widest-tailed one


@pytest.mark.parametrize("name", ["xavier_uniform_", "kaiming_uniform_", "uniform_"])
def test_bounds_are_torchs(name: str) -> None:
    """The same float64 arithmetic: the largest values approach the same bound, which torch's do not exceed."""
    ours, theirs = call(name, torch.empty(SHAPE), seed=1), getattr(torch.nn.init, name)(torch.empty(SHAPE))
    assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=1e-3)


def test_width_of_complex() -> None:
    for name, std in (("normal_", math.sqrt(0.5)), ("xavier_normal_", math.sqrt(1 / 650)), ("uniform_", math.sqrt(1 / 3))):
        assert moments(call(name, torch.empty(SHAPE, dtype=torch.complex64), seed=1))[1] == pytest.approx(std, rel=0.012)


def test_trunc_normal_bounds() -> None:
    for dtype in FLOATS:
        for args in ((0, 1, -2, 2), (0, 1, 8, 9), (0, 0.02, -0.04, 0.04), (5, 0.1, 1, 3), (0, 1, -math.inf, -1)):
            values = init.trunc_normal_(torch.empty(5000, dtype=dtype), *args, seed=1).double()
            assert values.min() >= args[2]
            assert values.max() <= args[3]


def test_limits() -> None:
    assert init.trunc_normal_(torch.empty(3), 0.25, 0.0, seed=1).tolist() == [0.25] * 3
    assert init.trunc_normal_(torch.empty(3), 0, 1, 1.5, 1.5, seed=1).tolist() == [1.5] * 3
    single = 1 + torch.finfo(torch.bfloat16).eps
    only = init.trunc_normal_(torch.empty(9, dtype=torch.bfloat16), 0, 1, single - 1e-4, single + 1e-4, seed=1)
    assert bool((only == single).all())
    assert same_bits(init.trunc_normal_(torch.empty(99), a=-99, b=99, seed=1), init.normal_(torch.empty(99), seed=1))
    assert init.normal_(torch.empty(1000, dtype=torch.float16), std=1e6, seed=1).isinf().any()
    assert not init.normal_(torch.empty(3), -0.0, 0.0, seed=1).signbit().any(), "-0.0 and 0.0 are the same argument"


# ---- placements -----------------------------------------------------------------------------------------------------

ANY_DTYPE = (*FLOATS, *COMPLEX, torch.int32, torch.uint8, torch.bool)


@pytest.mark.parametrize("dtype", ANY_DTYPE, ids=str)
def test_eye_and_dirac_are_torchs(dtype: torch.dtype) -> None:
    if dtype.itemsize == 1 and not hasattr(torch.nn.init, "__all__"):
        pytest.skip("torch 2.6 has no eye of float8")
    for shape in ((1, 1), (3, 5), (5, 3), (4, 4)):
        assert same_bits(init.eye_(torch.empty(shape, dtype=dtype)), torch.nn.init.eye_(torch.empty(shape, dtype=dtype)))
        assert same_bits(
            init.eye_(torch.empty(shape[::-1], dtype=dtype).T), torch.nn.init.eye_(torch.empty(shape, dtype=dtype))
        )
    for shape, groups in (
        ((4, 2, 3), 2),
        ((6, 3, 4), 3),
        ((2, 5, 3, 2), 1),
        ((5, 2, 3, 3), 1),
        ((4, 4, 1, 2, 3), 4),
        ((2, 2, 1), True),
    ):
        ours, theirs = torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
        assert same_bits(init.dirac_(ours, groups), torch.nn.init.dirac_(theirs, groups))


def test_dirac_channels_last() -> None:
    weight = torch.empty(4, 2, 3, 3, memory_format=torch.channels_last)
    assert same_bits(init.dirac_(weight, 2), torch.nn.init.dirac_(torch.empty(4, 2, 3, 3), 2))


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_sparse_counts(sparsity: float) -> None:
    for shape in ((10, 7), (1, 5), (257, 3)):
        weight = init.sparse_(torch.empty(shape), sparsity, seed=2)
        assert (weight == 0).sum(dim=0).tolist() == [math.ceil(sparsity * shape[0])] * shape[1]


def test_sparse_places() -> None:
    first, second = (init.sparse_(torch.empty(64, 32), 0.5, seed=seed) == 0 for seed in (0, 1))
    assert not torch.equal(first, second), "the seed governs the places"
    assert not (first == first[:, :1]).all(), "columns differ"
    places = sum((init.sparse_(torch.empty(8, 500), 0.5, seed=seed) == 0).double().mean(dim=1) for seed in range(8)) / 8
    assert bool((places - 0.5).abs().max() < 5 * 0.5 / math.sqrt(4000))


# ---- orthogonal -----------------------------------------------------------------------------------------------------

SHAPES = [(5, 3), (3, 5), (4, 4), (64, 8), (8, 64), (1, 7), (7, 1), (6, 2, 3), (2, 3, 4, 5), (512, 128)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [*FLOATS[:4], *COMPLEX], ids=str)
def test_orthogonal(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight = init.orthogonal_(torch.empty(shape, dtype=dtype), gain=2.0, seed=1)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    matrix = weight.flatten(1).to(wide) / 2
    rows, cols = matrix.shape
    gram = matrix @ matrix.mH if rows <= cols else matrix.mH @ matrix
    tolerance = {torch.float64: 1e-13, torch.complex128: 1e-13, torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 3e-6)
    assert (gram - torch.eye(len(gram), dtype=wide)).abs().max() < tolerance


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_orthogonal_is_torchs_formula(shape: tuple[int, ...]) -> None:
    """The Q of the same Gaussian matrix with R's diagonal positive, by torch's Householder QR in float64."""
    matrix = init.normal_(torch.empty(shape[0], math.prod(shape[1:])), seed=1).double()
    tall = matrix if shape[0] >= matrix.shape[1] else matrix.T
    q, r = torch.linalg.qr(tall)
    q *= torch.diagonal(r).sign()
    wanted = (q if tall is matrix else q.T).reshape(shape)
    torch.testing.assert_close(init.orthogonal_(torch.empty(shape), seed=1).double(), wanted, rtol=0, atol=1e-5)


def test_orthogonal_of_a_singular_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Cholesky breaks down Householder takes over."""
    monkeypatch.setattr(engine, "fill_tensor", lambda tensor, *_: tensor.fill_(1.0))
    assert init.orthogonal_(torch.empty(1024, 32), seed=1).isfinite().all()
