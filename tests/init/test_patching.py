"""``patched()``: whoever calls torch.nn.init inside gets the bits of ``wi.init``, and outside nothing has changed.

Two oracles: ``REFILL`` repeats what a module's constructor draws by calling ``wi.init``; ``by_hand`` puts ``wi.init`` into a
fixed list of places, as one would without ``patched()``.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import math
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import weightinit_cuda as wi
from weightinit_cuda.init import patching, torch_draws

TORCH = {name: value for name, value in vars(nn.init).items() if isinstance(value, types.FunctionType)}
TORCH_METHOD = torch._C.TensorBase.normal_


def drawn(function: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return function()


def normals(n: int = 5) -> Tensor:
    return drawn(lambda: wi.init.normal_(torch.empty(n)))


def torch_normals(n: int = 5) -> Tensor:
    return drawn(lambda: torch.randn(n))


def is_ours(draw: Callable[[Tensor], Any]) -> bool:
    """Whether ``draw`` gives our normal values; else it must be torch's."""
    tensor = torch.empty(5)
    drawn(lambda: draw(tensor))
    assert torch.equal(tensor, normals()) or torch.equal(tensor, torch_normals())
    return torch.equal(tensor, normals())


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(name == other and torch.equal(x, y) for (name, x), (other, y) in pairs)


def holders() -> set[tuple[int, str, int]]:
    """Where functions of torch.nn.init are bound: namespaces of modules, and dicts in them."""
    known = {id(function) for function in TORCH.values()}
    modules = [m for m in list(sys.modules.values()) if issubclass(type(m), types.ModuleType)]
    namespaces = [object.__getattribute__(module, "__dict__") for module in modules]
    tables = [t for n in namespaces for t in (n, *(v for v in list(n.values()) if type(v) is dict))]
    return {
        (id(t), k, id(v))
        for t in tables
        if not known.isdisjoint(map(id, list(t.values())))
        for k, v in t.items()
        if id(v) in known
    }


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """The functions of torch.nn.init, its namespace and torch.Tensor are as before."""

    def state() -> list[Any]:
        functions = [(name, function, function.__code__) for name, function in TORCH.items()]
        return [
            functions,
            dict(vars(nn.init)),
            list(vars(Tensor)),
            patching._users,
            len(patching._everywhere),
            len(patching._thread.entered),
        ]

    before = state()
    yield
    assert state() == before
    assert Tensor.normal_ is TORCH_METHOD


def affine(m: Any) -> None:
    wi.init.kaiming_uniform_(m.weight, a=math.sqrt(5))
    bound = 1 / math.sqrt(m.weight[0].numel())
    wi.init.uniform_(m.bias, -bound, bound)


def recurrent(m: Any) -> None:
    for p in m.parameters():
        wi.init.uniform_(p, -1 / math.sqrt(m.hidden_size), 1 / math.sqrt(m.hidden_size))


def attention(m: nn.MultiheadAttention) -> None:
    affine(m.out_proj)
    wi.init.xavier_uniform_(m.in_proj_weight)
    nn.init.zeros_(m.out_proj.bias)


def embedding(m: nn.Embedding) -> None:
    wi.init.normal_(m.weight)
    m.weight.data[m.padding_idx] = 0


def bilinear(m: nn.Bilinear) -> None:
    bound = 1 / math.sqrt(m.weight.size(1))
    wi.init.uniform_(m.weight, -bound, bound)
    wi.init.uniform_(m.bias, -bound, bound)


REFILL: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], None]]] = {
    "Linear": (lambda: nn.Linear(7, 5), affine),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3), affine),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3), affine),
    "LSTM": (lambda: nn.LSTM(3, 8, num_layers=2), recurrent),
    "GRU": (lambda: nn.GRU(3, 8, bidirectional=True), recurrent),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(8, 2), attention),
    "Embedding": (lambda: nn.Embedding(10, 4, padding_idx=3), embedding),
    "Bilinear": (lambda: nn.Bilinear(3, 4, 5), bilinear),
}


@pytest.mark.parametrize("name", REFILL)
def test_a_module_of_torch_gets_our_bits(name: str) -> None:
    build, refill = REFILL[name]
    torchs = drawn(build)
    with wi.patched():
        ours = drawn(build)
        after = torch.get_rng_state()
        again = copy.deepcopy(torchs)
        if hasattr(again, "reset_parameters"):
            drawn(again.reset_parameters)
    expected = copy.deepcopy(torchs)
    drawn(lambda: refill(expected))
    assert equal(ours, expected)
    assert torch.equal(after, torch.get_rng_state())
    assert not equal(ours, torchs)
    assert not hasattr(again, "reset_parameters") or equal(again, expected)
    assert equal(drawn(build), torchs)


def test_batch_norm_draws_nothing() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with wi.patched():
        assert equal(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    assert torch.equal(torch.get_rng_state(), before)


def by_hand(monkeypatch: pytest.MonkeyPatch, build: Callable[[], nn.Module]) -> nn.Module:
    with monkeypatch.context() as m:
        for place in (nn.init, nn.modules.activation, nn.modules.transformer, sys.modules.get("transformers.initialization")):
            for name in TORCH:
                if place is not None and hasattr(wi.init, name) and vars(place).get(name) is TORCH[name]:
                    m.setattr(place, name, getattr(wi.init, name))
        if "transformers.initialization" in sys.modules:
            table = sys.modules["transformers.initialization"].TORCH_INIT_FUNCTIONS
            for name in table:
                m.setitem(table, name, getattr(wi.init, name))
        return drawn(build)


def test_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    build = functools.partial(nn.Transformer, 8, 2, 1, 1, 16)
    expected = by_hand(monkeypatch, build)
    with wi.patched():
        ours = drawn(build)
    assert equal(ours, expected)
    assert not equal(ours, drawn(build))


SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_a_model_of_transformers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers", "5", reason="transformers 5 is not installed")
    config = getattr(transformers, f"{kind}Config")(**SMALL)
    build = functools.partial(transformers.AutoModelForCausalLM.from_config, config)
    torchs = drawn(build)
    expected = by_hand(monkeypatch, build)
    bound = holders()
    with wi.patched():
        ours = drawn(build)
        kept = drawn(build)
        mark = kept.get_input_embeddings().weight
        mark._is_hf_initialized = True
        mark.data.fill_(7)
        torch.manual_seed(1)
        kept._init_weights(kept.get_input_embeddings())
    assert equal(ours, expected)
    assert not equal(ours, torchs)
    assert bool((mark == 7).all())
    assert equal(drawn(build), torchs)
    assert bound <= holders()


@pytest.mark.peer
def test_the_guards_of_transformers_go_on() -> None:
    hf = pytest.importorskip("transformers.initialization", reason="transformers is not installed")
    marked = torch.zeros(5)
    marked._is_hf_initialized = True
    with wi.patched():
        assert is_ours(hf.normal_)
        hf.normal_(marked)
        with hf.guard_torch_init_functions():
            assert is_ours(nn.init.normal_)
            nn.init.normal_(marked)
        with hf.no_init_weights():
            nn.init.normal_(marked)
        assert is_ours(nn.init.normal_)
    assert not marked.any()
    with hf.no_init_weights(), wi.patched():
        assert nn.Linear(3, 3) is not None
        nn.init.normal_(marked)
        assert is_ours(hf.normal_)
    assert not marked.any()


SOURCE = """
    from functools import partial
    from torch.nn import init
    from torch.nn.init import normal_, normal_ as alias, _no_grad_normal_
    from weightinit_cuda.init import normal_ as on_purpose
    class Layer:
        draw = staticmethod(normal_)
    def default(tensor, draw=normal_):
        return draw(tensor)
    bound = [normal_, alias, init.normal_, Layer.draw, default, partial(normal_, std=1.0)]
    bound.append(lambda tensor: _no_grad_normal_(tensor, 0.0, 1.0))
"""


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_users_module(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"bound_{when}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    if when == "before":
        importlib.import_module("bound_before")
    with wi.patched():
        module = importlib.import_module(f"bound_{when}")
        assert all(is_ours(draw) for draw in module.bound)
    assert not any(is_ours(draw) for draw in module.bound)
    assert module.alias is module.normal_ is TORCH["normal_"]
    assert module.on_purpose is wi.init.normal_
    assert is_ours(module.on_purpose)


def test_every_function_is_covered() -> None:
    public = {n for n, f in TORCH.items() if not n.startswith("_") and f.__code__.co_name != "deprecated_init"}
    assert set(patching._forks) == public | {"_no_grad_uniform_", "_no_grad_normal_", "_no_grad_trunc_normal_"}


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    *((name, ()) for name in ("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_")),
    *((name, ()) for name in ("kaiming_uniform_", "kaiming_normal_", "orthogonal_", "eye_", "ones_", "zeros_")),
    *(("sparse_", (0.5,)), ("constant_", (3.0,)), ("uniform_", (-1, 2)), ("trunc_normal_", (0, 1, 3, 4))),
]


@pytest.mark.parametrize(("name", "args"), CALLS)
def test_a_function_is_ours(name: str, args: tuple[Any, ...]) -> None:
    expected = drawn(lambda: getattr(wi.init, name)(torch.empty(6, 4), *args))
    with wi.patched():
        tensor = torch.empty(6, 4)
        assert drawn(lambda: getattr(nn.init, name)(tensor, *args)) is tensor
        assert torch.equal(tensor, expected)
        if hasattr(nn.init, name[:-1]):
            with pytest.warns(FutureWarning, match="deprecated in favor of"):
                assert torch.equal(drawn(lambda: getattr(nn.init, name[:-1])(torch.empty(6, 4), *args)), expected)
        assert nn.init.calculate_gain("gelu") == wi.init.calculate_gain("gelu")


def test_signature_and_source_stay_torchs() -> None:
    before = {name: (str(inspect.signature(f)), inspect.getsource(f)) for name, f in TORCH.items()}
    with wi.patched():
        assert {name: (str(inspect.signature(f)), inspect.getsource(f)) for name, f in TORCH.items()} == before
        with pytest.raises(TypeError, match=r"normal_\(\) got an unexpected keyword argument 'sigma'"):
            nn.init.normal_(torch.empty(3), sigma=1.0)
        with pytest.raises(RuntimeError, match=r"normal expects std >= 0\.0, but found std -1"):
            nn.init.normal_(torch.empty(3), std=-1)


# The methods of torch.Tensor.

METHOD_CALLS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "normal_()": (lambda t: t.normal_(), wi.init.normal_),
    "normal_(1, 2)": (lambda t: t.normal_(1, 2), lambda t: wi.init.normal_(t, 1.0, 2.0)),
    "normal_(std=)": (lambda t: t.normal_(std=0.02), lambda t: wi.init.normal_(t, std=0.02)),
    "uniform_()": (lambda t: t.uniform_(), wi.init.uniform_),
    "uniform_(-1, 1)": (lambda t: t.uniform_(-1, 1), lambda t: wi.init.uniform_(t, -1.0, 1.0)),
    "uniform_(-1, to=)": (lambda t: t.uniform_(-1, to=0), lambda t: wi.init.uniform_(t, -1.0, 0.0)),
    "uniform_(from=)": (lambda t: t.uniform_(**{"from": -1}), lambda t: wi.init.uniform_(t, -1.0, 1.0)),
    "unbound": (lambda t: Tensor.normal_(t), wi.init.normal_),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
@pytest.mark.parametrize("call", METHOD_CALLS)
def test_a_method_is_ours(call: str, dtype: torch.dtype) -> None:
    method, function = METHOD_CALLS[call]
    weight = nn.Parameter(torch.empty(6, 3, dtype=dtype))
    version = weight._version
    with wi.patched(), torch.no_grad():
        assert drawn(lambda: method(weight)) is weight
        assert weight._version > version
        columns = drawn(lambda: method(torch.empty(3, 6, dtype=dtype).t()))
        data = drawn(lambda: method(weight.detach().clone().data))
    expected = drawn(lambda: function(torch.empty(6, 3, dtype=dtype)))
    assert all(torch.equal(t, expected) for t in (weight, columns, data))
    assert not torch.equal(drawn(lambda: method(torch.empty(6, 3, dtype=dtype))), expected)


def test_a_method_takes_a_generator() -> None:
    with wi.patched(generators="ours"):
        drawn_by_it = torch.empty(5).normal_(generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn_by_it, wi.init.normal_(torch.empty(5), generator=torch.Generator().manual_seed(3)))


class Sub(Tensor):
    pass


def dual(t: Tensor) -> Tensor:
    with torch.autograd.forward_ad.dual_level():
        made = torch.autograd.forward_ad.make_dual(t, torch.ones(5)).normal_()
        assert not torch.autograd.forward_ad.unpack_dual(made).tangent.any()
    return t


LEFT_TO_TORCH: dict[str, Callable[[], Any]] = {
    "int": lambda: torch.zeros(5, dtype=torch.int32).normal_(),
    "no tensor": lambda: Tensor.normal_(3),
    "leaf": lambda: torch.zeros(5, requires_grad=True).normal_(),
    "graph": lambda: (torch.zeros(5, requires_grad=True) * 2).normal_(),
    "subclass": lambda: torch.empty(5).as_subclass(Sub).normal_(),
    "meta": lambda: torch.empty(5, device="meta").normal_(),
    "sparse": lambda: torch.empty(5).to_sparse().normal_(),
    "dual": lambda: dual(torch.zeros(5)),
    "vmap": lambda: torch.vmap(lambda t: torch.empty_like(t).normal_(), randomness="same")(torch.zeros(2, 5)),
    "vmap, function": lambda: torch.vmap(lambda t: nn.init.normal_(torch.empty_like(t)), randomness="same")(torch.zeros(2, 5)),
    "std": lambda: torch.zeros(5).normal_(0, -1),
    "bounds": lambda: torch.zeros(5).uniform_(2, 1),
    "three": lambda: torch.zeros(5).normal_(0, 1, None),
    "twice": lambda: torch.zeros(5).normal_(0, mean=1),
    "unknown": lambda: torch.zeros(5).normal_(seed=1),
    "generator": lambda: torch.zeros(5).normal_(generator=1),
    "exponential_": lambda: torch.zeros(5).exponential_(),
    "randn": lambda: torch.randn(5),
}


@pytest.mark.parametrize("case", LEFT_TO_TORCH)
def test_what_is_left_to_torch(case: str) -> None:
    def outcome() -> Any:
        try:
            result = drawn(LEFT_TO_TORCH[case])
        except Exception as error:
            return type(error), str(error)
        return str(result), type(getattr(result, "grad_fn", None)), result.is_meta

    expected = outcome()
    with wi.patched():
        assert outcome() == expected


class Modes(TorchFunctionMode):
    """Writes down what it sees; skips what an empty-init skips."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __torch_function__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(function)
        if getattr(function, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return function(*args, **(kwargs or {}))


def test_modes_see_torchs_functions_and_get_our_values() -> None:
    with wi.patched():
        with torch.device("cpu"):
            assert is_ours(lambda t: t.normal_())
            assert is_ours(nn.init.normal_)
        drawn_method, drawn_function = torch.empty(5), torch.zeros(5)
        torch.manual_seed(0)
        with Modes() as mode:
            drawn_method.normal_()
            nn.init.normal_(drawn_function)
    assert torch.equal(drawn_method, normals())
    assert not drawn_function.any()
    assert TORCH_METHOD in mode.seen
    assert TORCH["normal_"] in mode.seen
    assert {TORCH_METHOD: 1}[next(f for f in mode.seen if f == TORCH_METHOD)] == 1


def test_a_replacement_by_others_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(*args: Any) -> str:
        return "theirs"

    with monkeypatch.context() as m:
        m.setattr(nn.init, "normal_", theirs)
        m.setattr(Tensor, "uniform_", theirs, raising=False)
        with wi.patched():
            assert nn.init.normal_(torch.empty(1)) == torch.empty(1).uniform_() == "theirs"
            assert is_ours(TORCH["normal_"])
        assert nn.init.normal_ is Tensor.uniform_ is theirs
    torchs, eye = TORCH["eye_"].__code__, TORCH["eye_"]
    try:
        with wi.patched():
            exchanged, eye.__code__ = eye.__code__, theirs.__code__
            saved, Tensor.normal_ = Tensor.normal_, theirs
        assert (eye.__code__, Tensor.normal_) == (theirs.__code__, theirs)
        with wi.patched():
            assert eye(torch.empty(2, 2)) == "theirs"
        eye.__code__, Tensor.normal_ = exchanged, saved  # too late, but torch's all the same
        assert not is_ours(lambda t: t.normal_())
        assert eye(torch.empty(2, 2)).trace() == 2
    finally:
        eye.__code__ = torchs
        del Tensor.normal_


# When it begins and ends.


def test_nesting() -> None:
    one = wi.patched()
    for _ in range(2):
        with one:
            with one, wi.patched():
                assert is_ours(nn.init.normal_)
            assert is_ours(nn.init.normal_)
        assert not is_ours(nn.init.normal_)


def test_an_exception_passes_through_and_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), wi.patched(), wi.patched():
        _ = 1 / 0
    assert not is_ours(nn.init.normal_)


def test_ctrl_c_while_entering(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch_draws, "setattr", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt), wi.patched():
        raise AssertionError("entered")
    assert not is_ours(nn.init.normal_)


def test_decorators() -> None:
    @wi.patched()
    def with_parentheses(seed: int, *, n: int = 5) -> Tensor:
        """Doc."""
        torch.manual_seed(seed)
        return nn.init.normal_(torch.empty(n))

    @wi.patched
    def without(depth: int) -> bool:
        return is_ours(nn.init.normal_) if depth == 0 else without(depth - 1)

    class Layer(nn.Linear):
        @wi.patched()
        def reset_parameters(self) -> None:
            super().reset_parameters()

    assert torch.equal(with_parentheses(0), normals())
    assert (with_parentheses.__name__, with_parentheses.__doc__) == ("with_parentheses", "Doc.")
    assert without(3)
    assert equal(drawn(lambda: Layer(4, 3)), drawn(wi.patched(lambda: nn.Linear(4, 3))))
    assert not is_ours(nn.init.normal_)


def test_a_decorated_generator_is_patched_while_it_runs() -> None:
    @wi.patched()
    def twice() -> Iterator[bool]:
        yield is_ours(nn.init.normal_)
        yield is_ours(nn.init.normal_)

    steps = twice()
    for _ in range(2):
        assert next(steps)
        assert not is_ours(nn.init.normal_)
    assert list(steps) == []


async def coroutine() -> None: ...


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize("function", [coroutine, async_generator, nn.Linear])
def test_what_cannot_be_decorated(function: Any) -> None:
    with pytest.raises(TypeError, match="patched: only functions and generator functions can be decorated, got"):
        wi.patched()(function)


def in_thread(function: Callable[[], Any]) -> Any:
    """The result of ``function`` in another thread, or its exception."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


def test_other_threads_keep_torchs() -> None:
    with wi.patched():
        for draw in (nn.init.normal_, lambda t: t.normal_(), lambda t: nn.init._no_grad_normal_(t, 0.0, 1.0)):
            assert not in_thread(functools.partial(is_ours, draw))
        assert in_thread(wi.patched(lambda: is_ours(nn.init.normal_)))
        assert is_ours(nn.init.normal_)


def test_threads_at_the_same_time() -> None:
    """Half of them enter and leave all the time, half never do; each draws from its own generator."""
    wrong: list[str] = []
    start = threading.Barrier(4)

    def draw() -> Tensor:
        return nn.init.trunc_normal_(torch.empty(4), generator=torch.Generator().manual_seed(1))

    torchs, ours = draw(), wi.patched(generators="ours")(draw)()

    def work(patches: bool) -> None:
        start.wait()
        for _ in range(100):
            if not torch.equal(wi.patched(generators="ours")(draw)() if patches else draw(), ours if patches else torchs):
                wrong.append(f"patches={patches}")

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not torch.equal(torchs, ours)


def test_patch_is_for_all_threads() -> None:
    wi.patch()
    try:
        wi.patch()
        assert is_ours(nn.init.normal_)
        wi.unpatch()
        assert in_thread(lambda: is_ours(nn.init.normal_))
        with wi.patched():
            pass
        assert in_thread(lambda: is_ours(lambda t: t.normal_()))
    finally:
        wi.unpatch()
    assert not is_ours(nn.init.normal_)


# Where it is refused, and where torch's operators must be seen.


def test_unpatch_without_patch() -> None:
    with wi.patched(), pytest.raises(RuntimeError, match=r"unpatch: must follow a patch\(\), got none to take back"):
        wi.unpatch()


def test_leaving_in_another_thread() -> None:
    context = wi.patched()
    with pytest.raises(
        RuntimeError, match=r"patched: must be left in the thread that entered it, got thread .*, which has not"
    ):
        context.__exit__(None, None, None)
    with context:
        error = in_thread(lambda: context.__exit__(None, None, None))
        assert isinstance(error, RuntimeError)
        assert "must be left in the thread that entered it" in str(error)
        assert is_ours(nn.init.normal_)


@wi.patched()
def enters(x: Tensor) -> Tensor:
    return x + 1


def patches(x: Tensor) -> Tensor:
    wi.patch()
    return x + 1


REFUSED = "must be called outside of torch.compile and torch.jit.trace, got a call inside"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript() -> None:
    def noise(x: Tensor) -> Tensor:
        return x + nn.init.normal_(torch.empty(4)) + torch.empty(4).normal_()

    with wi.patched():
        graph = str(torch.jit.trace(noise, torch.zeros(4), check_trace=False).graph)
        scripted = torch.jit.script(lambda_source)
    assert graph.count("weightinit_cuda::normal_") == 2
    assert torch.equal(drawn(lambda: scripted(torch.empty(5))), torch_normals())
    for function, name in ((enters, "patched"), (patches, "patch")):
        with pytest.raises(RuntimeError, match=f"{name}: {REFUSED}"):
            torch.jit.trace(function, torch.zeros(4))


def lambda_source(x: Tensor) -> Tensor:
    return torch.nn.init.normal_(x)


def test_fake_tensors_and_recorded_graphs() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    with wi.patched():
        with FakeTensorMode():
            assert nn.init.trunc_normal_(torch.empty(4)).shape == (4,)  # torch's fails: it looks at values
            assert nn.Linear(3, 3).weight.normal_ is not None
        graph = make_fx(lambda x: nn.init.normal_(torch.empty(4)) + torch.empty(4).normal_() + x)(torch.zeros(4))
    assert graph.code.count("weightinit_cuda.normal_") == 2


def test_torch_compile() -> None:
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def noise(x: Tensor) -> Tensor:
        return x + nn.init.normal_(torch.empty(4)) + torch.empty(4).normal_()

    with wi.patched():
        torch.compile(noise, backend=backend, fullgraph=True)(torch.zeros(4))
    assert graphs[0].code.count("weightinit_cuda.normal_") == 1
    assert graphs[0].code.count(".normal_(") == 2  # the method is torch's: torch.compile knows it by its name
    for function, name in ((enters, "patched"), (patches, "patch")):
        with pytest.raises(RuntimeError, match=f"{name}: {REFUSED}"):
            torch.compile(function, backend=backend)(torch.zeros(4))
    torch._dynamo.reset()


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators.append(str(func))
        return func(*args, **(kwargs or {}))


FILLED_UNDER_MODES: dict[str, Callable[[], Tensor]] = {
    "a layer": lambda: nn.Linear(3, 4).weight.detach(),
    "a function": lambda: nn.init.trunc_normal_(torch.empty(5, 6)),
    "a method": lambda: torch.empty(7).normal_(),
}


@pytest.mark.parametrize("fill", FILLED_UNDER_MODES.values(), ids=FILLED_UNDER_MODES)
@pytest.mark.parametrize("mode", [lambda: FlopCounterMode(display=False), Seen])
def test_under_dispatch_modes_ours_are_operators(fill: Callable[[], Tensor], mode: Callable[[], Any]) -> None:
    with wi.patched():
        torch.manual_seed(0)
        expected = fill()
        torch.manual_seed(0)
        with mode() as active:
            assert torch.equal(fill(), expected)
    if isinstance(active, Seen):
        assert any(name.startswith("weightinit_cuda.") for name in active.operators)


def test_compiled_functions_follow_patched_in_their_thread() -> None:
    torch._dynamo.reset()

    def normal(x: Tensor) -> Tensor:
        return nn.init.normal_(x)

    compiled = torch.compile(normal, backend="aot_eager", fullgraph=True)

    def drawn_by(function: Callable[[Tensor], Tensor]) -> list[float]:
        torch.manual_seed(0)
        return function(torch.empty(5)).tolist()

    torchs = drawn_by(normal)
    others: list[Any] = []
    for _ in range(2):
        assert drawn_by(compiled) == torchs
        with wi.patched():
            ours = drawn_by(normal)
            assert drawn_by(compiled) == ours != torchs
            thread = threading.Thread(target=lambda: others.append(drawn_by(compiled)))
            thread.start()
            thread.join()
    assert others == [torchs, torchs]
    torch._dynamo.reset()


def _from_a_generator(x: Tensor) -> Tensor:
    return x + nn.init.normal_(torch.empty(4), generator=torch.Generator().manual_seed(0))


@pytest.mark.skipif(torch.__version__ < (2, 7), reason="torch 2.6 fails where a method leaves the graph")
def test_draws_from_generators_leave_the_graph() -> None:
    """No graph keeps a generator: such a draw is run outside of it, and is ours where they are asked for."""
    zeros = torch.zeros(4)
    torchs = _from_a_generator(zeros)
    for options, expected in (({}, torchs), ({"generators": "ours"}, None)):
        torch._dynamo.reset()
        with wi.patched(**options):
            plain = _from_a_generator(zeros)
            assert torch.equal(plain, torchs) == (expected is not None)
            assert torch.equal(torch.compile(_from_a_generator, backend="eager")(zeros), plain)
    torch._dynamo.reset()


def test_a_trace_keeps_no_generator() -> None:
    zeros = torch.zeros(4)
    with wi.patched():
        assert torch.jit.trace(_from_a_generator, zeros, check_trace=False)(zeros).shape == (4,)
    said = "normal_: a fill in torch.jit.trace must draw from the default generator or from a seed, got generator="
    with wi.patched(generators="ours"), pytest.raises(RuntimeError, match=said):
        torch.jit.trace(_from_a_generator, zeros, check_trace=False)
    with pytest.raises(RuntimeError, match=said):
        torch.jit.trace(lambda x: wi.init.normal_(x, generator=torch.Generator()), zeros, check_trace=False)


def test_nesting_compiles_nothing_anew() -> None:
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda x: nn.init.normal_(x), backend=backend, fullgraph=True)
    with ExitStack() as stack:
        for _ in range(12):  # torch compiles a function 8 times at most
            stack.enter_context(wi.patched())
            compiled(torch.zeros(4))
    assert len(graphs) == 1
    with wi.patched(report=True) as report:
        compiled(torch.zeros(4))
        assert report.of(nn.Linear(2, 2)).filled
    torch._dynamo.reset()
