"""add_noise_ and lerp_to_init_: which tensors they move, by what, in how much memory, and what they refuse.

The arithmetic of each element is `test_combining.py`'s; here results are compared with torch's own operations.
"""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from collections.abc import Callable

import meshes
import pytest
import torch
from bitwise import differing
from conftest import each_real_dtype, made
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.numerics.combine import lerp
from weightinit_cuda.numerics.distributions import Computed, Constant, Normal
from weightinit_cuda.numerics.reference import combined, convert
from weightinit_cuda.numerics.streams import noise_stream_of, stream_of
from weightinit_cuda.tensors.boxes import Box
from weightinit_cuda.tensors.named import named_tensors
from weightinit_cuda.tensors.shards import parts


class Net(nn.Module):
    """Parameters of several kinds, a buffer, an integer buffer, a frozen and a tied parameter."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6, padding_idx=3, dtype=dtype)
        self.linear = nn.Linear(6, 5, dtype=dtype)
        self.norm = nn.BatchNorm1d(5, dtype=dtype)
        self.head = nn.Linear(6, 11, bias=False, dtype=dtype)
        self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.ones((), dtype=dtype), requires_grad=False)
        self.codes = nn.Parameter(torch.arange(4), requires_grad=False)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def noise(name: str, shape: torch.Size, scale: float, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return made(Normal(0.0, scale), dtype, shape, seed, noise_stream_of(name))


NAMES = {"embedding.weight", "linear.weight", "linear.bias", "norm.weight", "norm.bias", "head.weight", "scale"}

# ---- noise ----------------------------------------------------------------------------------------------------------


def test_noise_goes_to_every_floating_parameter_once() -> None:
    net = Net()
    before = state(net)
    assert wi.add_noise_(net, 0.1, seed=5) is net
    assert moved(before, net) == NAMES
    for name, parameter in net.named_parameters():
        if parameter.is_floating_point():
            assert differing(parameter.detach(), before[name] + noise(name, parameter.shape, 0.1, 5)) == 0


@each_real_dtype
def test_noise_is_not_rounded_before_it_is_added(dtype: torch.dtype) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = made(Normal(0.0, 1.0), dtype, (40, 30))
    got = wi.add_noise_({"w": x.clone()}, 0.3, seed=1)["w"]
    assert differing(got, convert(x.to(wide) + noise("w", x.shape, 0.3, 1, wide), dtype)) == 0


def test_noise_is_standard_normal_times_scale() -> None:
    for scale in (0.5, -2.0):
        z = wi.add_noise_({"w": torch.zeros(200_000, dtype=torch.float64)}, scale, seed=9)["w"] / scale
        assert abs(z.mean()) < 5 / math.sqrt(200_000)
        assert abs(z.var() - 1) < 5 * math.sqrt(2 / 200_000)


def test_noise_has_nothing_to_do_with_initial_values() -> None:
    """Same seed and name: other words, so no correlation."""
    assert noise_stream_of("w") != stream_of("w")
    n = 100_000
    init = wi.init.normal_(torch.empty(n), seed=4, stream="w")
    z = wi.add_noise_({"w": torch.zeros(n)}, 1.0, seed=4)["w"]
    assert abs(torch.corrcoef(torch.stack((init, z)))[0, 1]) < 5 / math.sqrt(n)


def test_noise_of_a_parameter_does_not_depend_on_others() -> None:
    net, alone = Net(), Net()
    alone.load_state_dict(net.state_dict())
    wi.add_noise_(net, 0.1, seed=5)
    wi.add_noise_({"linear.weight": alone.linear.weight}, 0.1, seed=5)
    assert differing(alone.linear.weight.detach(), net.linear.weight.detach()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_mezo_steps_come_back(dtype: torch.dtype) -> None:
    """+eps, -2 eps, +eps: one rounding each, of numbers not larger than |x| + eps |z|."""
    net = Net(dtype)
    before, eps = state(net), 1e-2
    for scale, sign in ((eps, 1), (-2 * eps, -1), (eps, 0)):
        wi.add_noise_(net, scale, seed=77)
        for name, parameter in net.named_parameters():
            if parameter.is_floating_point():
                x = before[name].double()
                z = noise(name, parameter.shape, eps, 77, torch.float64 if dtype == torch.float64 else torch.float32).double()
                allowed = 3 * torch.finfo(dtype).eps * (x.abs() + z.abs())
                assert ((parameter.double() - x - sign * z).abs() <= allowed).all()


def test_undoing_is_exact_where_sums_are() -> None:
    x = torch.zeros(1000)
    for scale in (0.5, 0.5, -1.0, 0.25, -0.25):
        wi.add_noise_({"w": x}, scale, seed=3)
    assert not x.any()


def test_tied_parameters_of_a_state_dict_get_noise_once() -> None:
    """There they are two tensors on the same memory."""
    net, other = Net(), Net()
    other.load_state_dict(net.state_dict())
    wi.add_noise_(net, 0.1, seed=5)
    floating = {name: t for name, t in other.state_dict().items() if not name.startswith("norm.")}
    wi.add_noise_(floating, 0.1, seed=5)
    assert differing(other.head.weight.detach(), net.head.weight.detach()) == 0


def test_integers_and_scale_0_leave_everything() -> None:
    net = Net()
    before = state(net)
    versions = [p._version for p in net.parameters()]
    wi.add_noise_(net, 0.0, seed=5)
    wi.add_noise_({"codes": net.codes, "steps": net.norm.num_batches_tracked}, 1.0, seed=5)
    assert moved(before, net) == set()
    assert [p._version for p in net.parameters()] == versions


def test_meta_tensors_are_left_alone() -> None:
    with torch.device("meta"):
        net = Net()
    assert wi.add_noise_(net, 0.1, seed=5) is net
    assert wi.lerp_to_init_(net, plan_of(net), 0.1) is net
    mixed = {"here": torch.zeros(3), "there": torch.zeros(3, device="meta")}
    assert wi.add_noise_(mixed, 0.1, seed=5)["here"].all()


def test_complex_parts_and_views() -> None:
    x = torch.zeros(50, 2, dtype=torch.complex64)
    assert differing(torch.view_as_real(wi.add_noise_({"w": x}, 0.1, seed=5)["w"]), noise("w", (50, 2, 2), 0.1, 5)) == 0  # type: ignore[arg-type]
    strided, flat = torch.zeros(30, 20).t(), torch.zeros(20, 30)
    assert torch.equal(wi.add_noise_({"w": strided}, 0.1, seed=5)["w"], wi.add_noise_({"w": flat}, 0.1, seed=5)["w"])


def test_autograd() -> None:
    net = Net()
    loss = net.linear(torch.ones(2, 6)).square().sum()
    loss.backward()
    grad = net.linear.weight.grad
    wi.add_noise_(net, 0.1, seed=5)
    assert net.linear.weight.is_leaf
    assert net.linear.weight.requires_grad
    assert net.linear.weight.grad is grad
    product = (net.linear.weight * net.linear.weight).sum()
    wi.add_noise_(net, 0.1, seed=5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_inference_tensors_in_their_mode() -> None:
    with torch.inference_mode():
        x = torch.zeros(30)
        assert wi.add_noise_({"w": x}, 0.1, seed=5)["w"].all()


def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each call of the engine gets."""
    counts: list[int] = []
    original = engine.fill
    monkeypatch.setattr(engine, "fill", lambda jobs: (counts.append(len(jobs)), original(jobs)))
    return counts


def test_one_call_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    plan, counts = plan_of(net), calls(monkeypatch)
    wi.add_noise_(net, 0.1, seed=5)
    wi.lerp_to_init_(net, plan, 0.5)
    assert counts == [6, 8]  # an embedding around its row of zeros is two boxes, and the row is one


# ---- towards the initial values -------------------------------------------------------------------------------------


def plan_of(model: nn.Module) -> wi.Plan:
    """Every floating parameter under its own stream; the embedding's row of zeros as a line of its own."""
    floating = [t for t in named_tensors(model, buffers=False) if t.tensor.is_floating_point()]
    lines = [
        wi.Entry(t.name, tuple(t.tensor.shape), t.tensor.dtype, Normal(0.0, 0.5), stream_of(t.name), "test", None, t.aliases)
        for t in floating
    ]
    embedding = next(line for line in lines if line.name == "embedding.weight")
    row = embedding._replace(distribution=Constant(0.0), box=Box((3, 0), (1, 6)))
    return wi.Plan((*lines, row), seed=3)


def trained(dtype: torch.dtype = torch.float32) -> tuple[Net, wi.Plan, dict[str, torch.Tensor]]:
    """A model away from its initial values, its plan, and those values."""
    net = Net(dtype)
    plan = plan_of(net)
    plan.fill_(dict(net.named_parameters()))
    init = state(net)
    return wi.add_noise_(net, 0.2, seed=8), plan, init


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_weights_move_towards_initial_values(dtype: torch.dtype) -> None:
    net, plan, init = trained(dtype)
    before = state(net)
    assert wi.lerp_to_init_(net, plan, 0.25) is net
    assert moved(before, net) == NAMES
    for name, parameter in net.named_parameters():
        x, v = before[name], init[name]
        if parameter.is_floating_point():
            assert differing(parameter.detach(), combined(x, v, lerp(0.25))) == 0
            exact = torch.lerp(x.double(), v.double(), 0.25)
            assert ((parameter.double() - exact).abs() <= torch.finfo(dtype).eps * (x.double().abs() + v.double().abs())).all()


def test_weight_0_leaves_and_weight_1_gives_the_initial_values() -> None:
    net, plan, init = trained()
    with torch.no_grad():
        net.linear.weight.fill_(math.nan)
    before, versions = state(net), [p._version for p in net.parameters()]
    wi.lerp_to_init_(net, plan, 0)
    assert all(differing(tensor, before[name]) == 0 for name, tensor in net.state_dict().items())
    assert [p._version for p in net.parameters()] == versions
    wi.lerp_to_init_(net, plan, 1.0)
    parameters = dict(net.named_parameters())
    assert all(differing(parameter.detach(), init[name]) == 0 for name, parameter in parameters.items())


def test_buffers_stay_and_dicts_choose() -> None:
    net, plan, _ = trained()
    before = state(net)
    wi.lerp_to_init_({"linear.bias": net.linear.bias, "codes": net.codes}, plan, 0.5)
    assert moved(before, net) == {"linear.bias"}
    before = state(net)
    wi.lerp_to_init_({"head.weight": net.head.weight}, plan, 0.5)  # the plan has it as embedding.weight
    assert moved(before, net) == {"embedding.weight", "head.weight"}
    wi.lerp_to_init_({"head.weight": net.head.weight}, plan, 1)
    assert not net.embedding.weight[3].any()


def test_all_misfits_are_named_and_nothing_is_written() -> None:
    net, plan, _ = trained()
    lines = {line.name: line for line in plan if line.box is None}
    lines["linear.weight"] = lines["linear.weight"]._replace(shape=(5, 7))
    lines["linear.bias"] = lines["linear.bias"]._replace(dtype=torch.float64)
    lines["norm.weight"] = lines["norm.weight"]._replace(distribution=Computed("arange"))
    lines["head"] = lines.pop("norm.bias")._replace(name="head")
    lines["scale"] = lines["scale"]._replace(distribution=Computed("full"))
    before = state(net)
    with pytest.raises(ValueError, match="got 5 differences") as caught:
        wi.lerp_to_init_(net, wi.Plan(tuple(lines.values())), 0.5)
    wrong = (
        "linear.weight: shape (5, 6)",
        "linear.bias: torch.float32",
        "norm.weight: Computed",
        "norm.bias: a param",
        "scale: Computed",
    )
    assert all(f"  {text}" in str(caught.value) for text in wrong)
    assert moved(before, net) == set()


@pytest.mark.parametrize("weight", [-0.1, 1.5, math.nan, math.inf])
def test_bad_weights(weight: float) -> None:
    net, plan, _ = trained()
    with pytest.raises(ValueError, match="lerp_to_init_: weight must be"):
        wi.lerp_to_init_(net, plan, weight)


@pytest.mark.parametrize("layout", ["rows", "columns", "uneven", "empty", "mesh", "strided uneven"])
def test_every_rank_moves_its_part(layout: str) -> None:
    """Shards of the moved tensor, whatever the mesh, without communication."""
    shape, mesh, placements = meshes.LAYOUTS[layout]
    start = made(Normal(0.0, 1.0), torch.float32, shape)
    plan = wi.Plan((wi.Entry("w", shape, torch.float32, Normal(0.0, 0.5), 1, "test"),))
    acts: tuple[Callable[[torch.Tensor], object], ...] = (
        lambda w: wi.add_noise_({"w": w}, 0.1, seed=0),
        lambda w: wi.lerp_to_init_({"w": w}, plan, 0.1),
    )
    for act in acts:
        whole = start.clone()
        act(whole)
        for tensor in meshes.each_rank(start, mesh, placements):
            version = tensor._version
            act(tensor)
            assert tensor._version > version
            for part, region in parts(tensor):
                assert region is not None
                assert differing(part, whole[region.slices(part.shape)]) == 0


# ---- what is refused ------------------------------------------------------------------------------------------------


def with_inference_tensor() -> torch.Tensor:
    with torch.inference_mode():
        return torch.ones(3)


BAD: dict[str, tuple[type[Exception], Callable[[], object]]] = {
    "inference": (RuntimeError, with_inference_tensor),
    "more than one element": (RuntimeError, lambda: torch.ones(1).expand(4)),
    r"must be strided, got layout torch.sparse_coo \(bad\)": (NotImplementedError, lambda: torch.eye(3).to_sparse()),
    r"got a lazy one \(bad\)": (ValueError, lambda: nn.LazyLinear(3).weight),
    r"got a list \('bad'\)": (TypeError, lambda: [1.0]),
    r"must have memory, got a Tensor of shape \(3,\) without \(bad\)": (RuntimeError, lambda: freed(torch.ones(3))),
    r"got torch.float8_e4m3fnuz \(bad\)": (NotImplementedError, lambda: torch.ones(3).to(torch.float8_e4m3fnuz)),
}


def freed(tensor: torch.Tensor) -> torch.Tensor:
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize("message", BAD)
def test_bad_tensors_are_refused_before_anything_is_written(message: str) -> None:
    error, make = BAD[message]
    good = torch.zeros(5)
    with pytest.raises(error, match=message):
        wi.add_noise_({"good": good, "bad": make()}, 0.1, seed=0)  # type: ignore[dict-item]
    assert not good.any()
    assert good._version == 0


def test_bad_numbers() -> None:
    x = torch.zeros(5)
    for scale in (math.nan, math.inf):
        with pytest.raises(ValueError, match="add_noise_: scale must be finite, got"):
            wi.add_noise_({"w": x}, scale, seed=0)
    with pytest.raises(TypeError, match="add_noise_: seed must be an integer"):
        wi.add_noise_({"w": x}, 0.1, seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="add_noise_: seed must be in"):
        wi.add_noise_({"w": x}, 0.1, seed=2**64)
    assert not x.any()


# ---- memory ---------------------------------------------------------------------------------------------------------

PEAK = """
    import re, sys
    from pathlib import Path
    import torch, weightinit_cuda as wi
    from weightinit_cuda.numerics.distributions import Normal

    def peak():  # MiB, of this process alone: ru_maxrss begins with that of its parent
        return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10

    MiB = 1 << 20
    x = torch.ones(8192, 32 * MiB // 8192, dtype=torch.bfloat16)  # 64 MiB, touched
    x = x.t() if sys.argv[1] == "transposed" else x
    entry = wi.Entry("w", tuple(x.shape), x.dtype, Normal(0.0, 0.02), 1, "test")
    plan = wi.Plan((entry,))
    for act in (lambda t: wi.add_noise_({"w": t}, 0.1, seed=0), lambda t: wi.lerp_to_init_({"w": t}, plan, 0.1)):
        wi.add_noise_({"w": torch.zeros(1 << 17)}, 0.1, seed=0)  # threads have their stacks
        before = peak()
        act(x)
        grown = peak() - before
        print(grown)
        assert grown < 8, grown
    before = peak()
    x.add_(torch.ones_like(x))
    assert peak() - before > 40, "the measure sees a copy"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
@pytest.mark.parametrize("layout", ["plain", "transposed"])
def test_no_second_copy_in_memory(layout: str) -> None:
    """The peak of the process does not grow by a noticeable part of the parameter."""
    if engine.backend_info().backend != "native":
        pytest.skip("the reference makes temporaries of 64 MiB at most")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(PEAK), layout], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
