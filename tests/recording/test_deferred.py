"""``deferred()``: what code does to its tensors is recorded, folded into distributions, and happens at materialisation.

``SAME`` compares with eager code bit for bit where nothing is random. Distributions are in ``test_deferred_folding``, real
models in ``test_deferred_clients``.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded import drawn, recorded
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.init import patching
from weightinit_cuda.numerics.distributions import Normal, Uniform


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    before = (
        list(vars(Tensor)),
        dict(vars(nn.init)),
        patching._users,
        patching._recorded,
        len(nn.modules.module._global_parameter_registration_hooks),
    )
    yield
    assert before == (
        list(vars(Tensor)),
        dict(vars(nn.init)),
        patching._users,
        patching._recorded,
        len(nn.modules.module._global_parameter_registration_hooks),
    )
    assert torch._C._len_torch_dispatch_stack() == 0


# ---- what is not random is what eager code makes ----------------------------------------------------------------------


def embed(tensor: Tensor) -> Tensor:
    """A sinusoidal table, as many models write it."""
    position = torch.arange(tensor.shape[0])[:, None]
    rate = torch.exp(torch.arange(0, tensor.shape[1], 2) * (-math.log(10000.0) / tensor.shape[1]))
    tensor[:, 0::2] = torch.sin(position * rate)
    tensor[:, 1::2] = torch.cos(position * rate)
    return tensor


def asked() -> Tensor:
    """Code that wants values."""
    x = torch.linspace(0, 1, 5)
    rates = [v.item() for v in x]
    answers = [bool((x >= 0).all()), float(x[1]) == 0.25, x.tolist() == rates, len(torch.nonzero(x)) == 4, 0.5 in x]
    answers += [torch.equal(x, x.clone()), torch.allclose(x, x + 1e-9), int(x.sum()) == 2, np.asarray(x)[2] == 0.5]
    answers += [x[x > 0.3].shape == (3,), x.cpu().numpy().sum() == 2.5, round(x[1].item(), 1) == 0.2]
    assert all(answers)
    return torch.tensor(rates) * torch.unique(torch.tensor([2, 2, 3])).shape[0]


def masked() -> Tensor:
    x = torch.zeros(3, 4)
    x[torch.eye(3, 4, dtype=torch.bool)] = 2.0
    x.masked_fill_(x == 0, -1)
    return x


def from_numpy() -> Tensor:
    x = torch.from_numpy(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    y = torch.zeros(2, 3)
    y += x
    y.copy_(x[:, :1] + y)
    return torch.cat([y, x], 1)


OUTSIDE = torch.tensor([3, 4])


def of_outside() -> Tensor:
    """What was there before goes where the parameters are."""
    w = torch.zeros(2)
    return OUTSIDE.to(w.device) * 2 + torch.ones(2, device=w.device)


def data_for(w: Tensor) -> Tensor:
    """Data that is to lie where a tensor is."""
    found = torch.tensor([1.0, 2.0], device=w.device) + torch.as_tensor([3, 4], device=w.device) + w.new_tensor([5, 6])
    return found + torch.tensor(np.ones(2), dtype=w.dtype, device=w.device).to(w)


def forward_pass() -> dict[str, Tensor]:
    """Models run themselves once to learn their sizes; batch norms count that."""
    norm = nn.BatchNorm1d(3)
    width = nn.Flatten()(norm(torch.arange(12.0).view(4, 3))).shape[1]
    return {**dict(norm.named_buffers()), "width": torch.zeros(width)}


def rewritten() -> Tensor:
    x = torch.ones(4)
    y = x * 2
    x.fill_(7)  # y has seen the ones
    y[1:] += x[1:]
    return y


def numbered_rows(n: int) -> Tensor:
    w = torch.empty(n, 2)
    for number in range(n):
        w[number] = number
    return w


SAME: dict[str, Callable[[], Any]] = {
    "sinusoids": lambda: embed(torch.zeros(6, 8)),
    "sinusoids in empty": lambda: embed(torch.empty(6, 8)),
    "causal mask": lambda: torch.full((5, 5), float("-inf")).triu(1),
    "tril bool": lambda: torch.tril(torch.ones(5, 5, dtype=torch.bool)).view(1, 1, 5, 5),
    "arange": lambda: torch.arange(5).expand((1, -1)),
    "eye": lambda: torch.eye(3, 4),
    "table": lambda: torch.tensor([[1, 2], [3, 4]]),
    "scalar": lambda: torch.tensor(2.6592),
    "int scalar": lambda: torch.tensor(7, dtype=torch.int64),
    "bool": lambda: torch.zeros(3, dtype=torch.bool).logical_not(),
    "asked": asked,
    "masked": masked,
    "numpy": from_numpy,
    "rewritten": rewritten,
    "of outside": of_outside,
    "data": lambda: data_for(torch.zeros(2)),
    "forward pass": forward_pass,
    "sparse": lambda: torch.sparse_coo_tensor(torch.tensor([[0, 1], [1, 0]]), torch.tensor([1.0, 2.0]), (2, 2)).to_dense(),
    "rows": lambda: numbered_rows(400),
    "legacy": lambda: torch.Tensor([1.0, 2.0]).mul(3),
    "out": lambda: torch.add(torch.ones(3), 2, out=torch.empty(3)),
    "out over a draw": lambda: torch.add(torch.ones(3), 2, out=torch.randn(3)),
    "foreach": lambda: torch._foreach_add([torch.ones(3), torch.ones(2)], 1.5)[0],
    "half": lambda: torch.full((3,), 0.1).half() * 3,
    "complex": lambda: torch.polar(torch.ones(4), torch.arange(4.0)),
    "conj": lambda: torch.polar(torch.ones(4), torch.arange(4.0)).conj(),
    "chunks": lambda: dict(zip("abc", torch.arange(12.0).chunk(3), strict=True)),
    "transposed": lambda: torch.arange(6.0).view(2, 3).t(),
    "channels last": lambda: torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "resized": lambda: torch.arange(6.0).resize_(2, 2),
    "set": lambda: torch.empty(3).set_(torch.arange(4.0)),
    "linalg": lambda: torch.linalg.qr(torch.arange(9.0).view(3, 3) + torch.eye(3)).Q,
    "cholesky": lambda: torch.linalg.cholesky(torch.eye(3) * 2 + 0.5),
    "constants": lambda: torch.ones(3).mul(0.3).add_(torch.full((3,), 0.1)).exp().div(3),
    "integers": lambda: torch.full((3,), 2**60),
    "nan": lambda: torch.full((3,), float("nan")).nan_to_num(5.0),
    "empty": lambda: torch.empty(0, 3),
    "concatenated": lambda: torch.cat([torch.zeros(2), torch.ones(0), torch.ones(2)]),
    "default dtype": lambda: torch.arange(3) / 7,
    "repeat": lambda: torch.arange(3).repeat_interleave(torch.tensor([1, 2, 3])),
    "bits": lambda: torch.tensor([1.5, 2.5]).view(torch.int32) + 1,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SAME)
def test_what_is_not_random_is_eagers(name: str, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        if dtype == torch.bfloat16 and name in ("asked", "numpy", "complex", "conj", "linalg", "cholesky", "bits"):
            pytest.skip("torch has none of it in bfloat16")
        expected = SAME[name]()
        recording, holder = recorded(SAME[name])
    finally:
        torch.set_default_dtype(torch.float32)
    recording.materialize_(holder)
    for key, tensor in (expected if isinstance(expected, dict) else {"w": expected}).items():
        ours = getattr(holder, key)
        assert ours.dtype == tensor.dtype
        assert ours.stride() == tensor.stride()
        torch.testing.assert_close(ours, tensor, rtol=0, atol=0, equal_nan=True)


# ---- what stays of a tensor -------------------------------------------------------------------------------------------


class Tagged(nn.Parameter):
    pass


def test_parameters_stay_themselves() -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
        net[1].weight = net[0].weight
        net[0].bias = Tagged(torch.zeros(3), requires_grad=False)
        net[0].weight.tag = "kept"
        net[0].register_buffer("view", net[0].weight.data.view(-1), persistent=False)
        net[0].plain = [net[0].weight.data, {"x": torch.arange(3)}]
    weight, bias = net[0].weight, net[0].bias
    calls: list[str] = []
    weight.register_hook(lambda grad: calls.append("hook"))
    handle = weight.register_post_accumulate_grad_hook(lambda tensor: calls.append("accumulated"))
    node = weight.expand_as(weight).grad_fn.next_functions[0][0]  # an AccumulateGrad that somebody holds
    reference = weakref.ref(weight)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    assert recording.plan(net)["1.weight"] == recording.plan(net)["0.weight"]
    assert recording.materialize_(net) is net
    assert node is not None
    assert net[0].weight is net[1].weight is weight is reference()
    assert net[0].bias is bias
    assert type(bias) is Tagged
    assert not bias.requires_grad
    assert weight.tag == "kept"
    assert weight.is_leaf
    assert not weight._is_view()
    assert net[0].view.data_ptr() == net[0].plain[0].data_ptr() == weight.data_ptr()
    assert net[0].plain[1]["x"].tolist() == [0, 1, 2]
    before = weight.detach().clone()
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert calls == ["hook", "accumulated"]
    assert not torch.equal(before, weight)
    handle.remove()
    net(torch.ones(1, 3)).sum().backward()
    assert calls == ["hook", "accumulated", "hook"]


def test_tensors_on_one_memory_stay_on_it() -> None:
    with wi.deferred() as recording:
        a, b = nn.Linear(3, 3), nn.Linear(3, 3)
        b.weight.data = a.weight.data
        net = nn.Sequential(a, b)
    assert recording.plan(net)["0.weight"][0].aliases == ("1.weight",)
    recording.materialize_(net)
    assert a.weight is not b.weight
    assert a.weight.data_ptr() == b.weight.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_dtype(dtype: torch.dtype) -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        net[0].register_buffer("rate", torch.arange(3.0) / 3)
    recording.materialize_(net, dtype=dtype, seed=0)
    assert net[0].weight.dtype == net[1].running_var.dtype == net[0].rate.dtype == dtype
    assert net[1].num_batches_tracked.dtype == torch.int64
    bound = 1 / math.sqrt(3)
    assert torch.equal(net[0].bias, drawn(Uniform(-bound, bound), 3, "0.bias", dtype))


def test_code_that_casts() -> None:
    with wi.deferred() as recording:
        net = nn.Linear(3, 3).to(torch.bfloat16).requires_grad_(False)
    assert recording.plan(net)["bias"][0].dtype == torch.bfloat16
    recording.materialize_(net)
    assert net.bias.dtype == torch.bfloat16


def test_later_casts_and_memory() -> None:
    """After the block the model may be cast, or given memory: names in their modules still tell what it gets."""
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    recording.materialize_(copy_of := net.bfloat16().to_empty(device="cpu"))
    assert copy_of[0].weight.dtype == torch.bfloat16
    plan = recording.plan(net)
    weight = net[0].weight.clone()
    net[0].weight.data.zero_()
    plan.apply_(net)
    assert torch.equal(net[0].weight, weight)
    net[0].weight.data.zero_()
    assert torch.equal(recording.materialize_(net)[0].weight, weight)


def test_parts_of_a_model() -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    recording.materialize_(net[0])
    assert net[1].weight.is_meta
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        net(torch.ones(3)).tolist()


# ---- errors -----------------------------------------------------------------------------------------------------------


class Unwritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, 3))
        self.partly = nn.Parameter(torch.empty(4, 3))
        self.strided = nn.Parameter(torch.empty(6))
        self.whole = nn.Parameter(torch.empty(4))
        self.copied = nn.Parameter(torch.empty(2).exp().clone())
        with torch.no_grad():
            self.partly[:3].normal_()
            self.strided[::2] = 1
            self.whole[:2], self.whole[2:] = 1, 2


def test_unwritten_tensors_are_named() -> None:
    with wi.deferred() as recording:
        net = Unwritten()
    with pytest.raises(ValueError, match=r"got 4 that it only allocates \(weight, partly, strided, copied\).*rules="):
        recording.materialize_(net)
    assert net.weight.is_meta
    with pytest.raises(ValueError, match=r"lies among values that it writes \(strided\)"):
        recording.materialize_(net, seed=0, rules=[wi.Rule("*", "constant_", val=5.0)])
    assert net.weight.is_meta
    del net.strided
    recording.materialize_(net, seed=0, rules=[wi.Rule("*", "constant_", val=5.0)])
    assert net.weight.tolist() == [[5.0] * 3] * 3
    assert net.partly[3:].tolist() == [[5.0] * 3]
    assert torch.equal(net.partly[:3], drawn(Normal(0.0, 1.0), (4, 3), "partly")[:3])
    assert net.whole.tolist() == [1, 1, 2, 2]


def test_strangers_are_named() -> None:
    with wi.deferred() as recording:
        nn.Linear(2, 2)
    with pytest.raises(ValueError, match="plan: tensors on meta must have been made in the block, got weight, bias"):
        recording.plan(nn.Linear(2, 2, device="meta"))


def test_misuse() -> None:
    with wi.deferred() as recording:
        net = nn.Linear(2, 2)
        with pytest.raises(RuntimeError, match="must not be nested"):
            wi.deferred().__enter__()
        with pytest.raises(RuntimeError, match="materialize_: must be called after the block"):
            recording.materialize_(net)
        inner = nn.Linear(2, 2)
    recording.materialize_(nn.ModuleList([net, inner]))
    assert nn.Linear(2, 2).weight.is_cpu


def failing(made: list[nn.Module]) -> wi.Recording:
    with wi.deferred() as recording:
        made += [nn.Linear(2, 2), recording]
        raise ZeroDivisionError


def test_an_error_in_the_block_ends_it() -> None:
    found: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        failing(found)
    net, recording = found
    assert recording.materialize_(net).weight.is_cpu
    assert nn.Linear(2, 2).weight.is_cpu


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: nn.init.orthogonal_(torch.empty(3)), ValueError),
        (lambda: nn.init.eye_(torch.empty(3)), ValueError),
        (lambda: nn.init.dirac_(torch.empty(3, 3)), ValueError),
        (lambda: nn.init.normal_(torch.empty(3), std=-1.0), RuntimeError),
        (lambda: nn.init.uniform_(torch.empty(3), 1.0, 0.0), RuntimeError),
        (lambda: nn.init.xavier_normal_(torch.empty(3)), ValueError),
        (lambda: torch.zeros(3) + torch.zeros(4), RuntimeError),
        (lambda: torch.zeros(1).expand(3).normal_(), RuntimeError),
        (lambda: torch.zeros(3, dtype=torch.int64).uniform_(), RuntimeError),
    ],
)
def test_errors_of_the_code_are_torchs(call: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error) as ours, wi.deferred():
        call()
    with pytest.raises(error) as torchs:
        call()
    assert str(ours.value).split("\n")[0] == str(torchs.value).split("\n")[0]


# ---- where it is used -------------------------------------------------------------------------------------------------


def same(build: Callable[[], nn.Module] = lambda: nn.Linear(3, 3)) -> Tensor:
    with wi.deferred() as recording:
        net = build()
    return recording.materialize_(net, seed=0).weight


def test_surroundings() -> None:
    """patched(), no_grad, inference_mode and a default device change no value."""
    expected = same()
    with wi.patched():
        assert torch.equal(same(), expected)
    with torch.no_grad():
        weight = same()
        assert torch.equal(weight, expected)
        assert weight.requires_grad
    with torch.inference_mode():
        assert torch.equal(same(), expected)
    with torch.device("meta"):
        weight = same()
    assert weight.is_cpu
    assert torch.equal(weight, expected)
    with wi.deferred() as recording, wi.patched(), torch.device("meta"):
        net = nn.Linear(3, 3)
    assert torch.equal(recording.materialize_(net, seed=0).weight, expected)
    assert torch.get_default_device() == torch.device("cpu")


def test_values_asked_for_in_inference_mode() -> None:
    with torch.inference_mode():
        recording, holder = recorded(asked)
    recording.materialize_(holder)
    assert torch.equal(holder.w, asked())


def test_default_dtype_of_the_block() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with wi.deferred() as recording:
            net = nn.Linear(3, 3)
            net.register_buffer("rate", torch.arange(3) / 7)
    finally:
        torch.set_default_dtype(torch.float32)
    recording.materialize_(net)
    assert net.weight.dtype == torch.float64
    assert torch.equal(net.rate, torch.arange(3, dtype=torch.float64) / 7)


def test_threads_record_apart() -> None:
    results: dict[int, Tensor] = {}
    barrier = threading.Barrier(3)

    def work(number: int) -> None:
        with wi.deferred() as recording:
            barrier.wait()
            net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(20)))
            barrier.wait()
        results[number] = recording.materialize_(net, seed=number)[number].weight.detach()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    eager = nn.Linear(3, 3)
    barrier.wait()
    for thread in threads:
        thread.join()
    assert eager.weight.is_cpu
    for number, tensor in results.items():
        bound = 1 / math.sqrt(3)
        assert tensor.abs().max() <= bound
        assert not torch.equal(tensor, results[1 - number])


def test_modules_from_outside() -> None:
    """A model on meta that was there before: what the block does to it is recorded; real tensors stay real."""
    net, real = nn.Linear(3, 3, device="meta"), nn.Linear(3, 3)
    before = real.weight.detach().clone()
    with wi.deferred() as recording:
        net.reset_parameters()
        net.bias.data.copy_(real.bias.data)
        real.bias.data.copy_(net.bias.data * 2)
        both = nn.Sequential(net, real)
    bias = real.bias.detach().clone()
    recording.materialize_(both)
    assert torch.equal(real.weight, before)
    assert torch.equal(net.bias * 2, bias)
    assert torch.equal(real.bias, bias)


def test_the_plan_is_a_plan() -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.Embedding(4, 3, padding_idx=0))
    plan = recording.plan(net, seed=7)
    assert plan.rules == "deferred"
    assert wi.Plan.from_json(plan.to_json()) == plan
    assert all(line.source.startswith("test_deferred.py:") for line in plan)
    eager = plan.apply_(nn.Sequential(nn.Linear(3, 3), nn.Embedding(4, 3)))
    recording.materialize_(net, seed=7)
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, eager.state_dict()[key])


def test_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with wi.deferred() as recording:
        net = nn.Transformer(8, 2, 1, 1, 16)
    calls: list[int] = []
    fill = engine.fill_whole

    def counted(tensors: list[torch.Tensor], *rest: Any) -> None:
        calls.append(len(tensors) + len(rest[-1]))
        fill(tensors, *rest)

    monkeypatch.setattr(engine, "fill_whole", counted)
    recording.materialize_(net)
    assert calls == [sum(1 for _ in net.parameters())]


def test_each_tensor_has_memory_and_hooks_of_its_own() -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        net[2].weight.requires_grad_(False)
        seen: list[torch.Size] = []
        net[0].weight.register_hook(lambda gradient: seen.append(gradient.shape))
    tensors = {id(tensor): name for name, tensor in net.state_dict(keep_vars=True).items()}
    recording.materialize_(net, seed=0)
    found = net.state_dict(keep_vars=True)
    assert {id(tensor): name for name, tensor in found.items()} == tensors
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == len(found)
    for name, tensor in found.items():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert tensor.is_leaf
        assert tensor.requires_grad == (isinstance(tensor, nn.Parameter) and name != "2.weight")
    net(torch.ones(2, 4)).sum().backward()
    assert seen == [(4, 4)]
    assert net[2].weight.grad is None


def test_tensors_alone_and_others_have_the_values_of_the_plan() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.row = self.first.bias[:2]
            self.register_buffer("steps", torch.arange(3.0))
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))
            self.register_buffer("ones", torch.ones(2, dtype=torch.int64))
            self.extra = [torch.full((2,), 3.0)]
            self.real = nn.Parameter(torch.empty(0))

    with wi.deferred() as recording:
        net = Net()
    plan = recording.plan(net, seed=0)
    recording.materialize_(net, seed=0)
    expected = plan.apply_(Net())
    expected.steps = torch.arange(3.0)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name
    assert net.second.weight is net.first.weight
    assert net.row.untyped_storage().data_ptr() == net.first.bias.untyped_storage().data_ptr()
    assert net.extra[0].tolist() == [3.0, 3.0]


def test_huge_pages_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from weightinit_cuda.recording import memory as materializing

    asked: list[int] = []
    monkeypatch.setattr(materializing, "_madvise", lambda: lambda begin, size, advice: asked.append(size.value))
    for wanted in (False, True):
        monkeypatch.setattr(materializing, "huge_pages_wanted", lambda wanted=wanted: wanted)
        with wi.deferred() as recording:
            net = nn.Linear(2048, 1024)
        recording.materialize_(net)
        assert len(asked) == wanted
    assert 0 <= 2048 * 1024 * 4 - asked[0] < 2 * 4096


@pytest.mark.parametrize(
    ("wish", "order", "wanted"),
    [
        ("auto", None, True),
        ("auto", "9\n", False),
        ("auto", "-1\n", True),
        ("auto", "4294967295\n", True),
        ("", "9\n", False),
        ("1", "9\n", True),
        ("0", None, False),
    ],
)
def test_huge_pages_are_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wish: str, order: str | None, wanted: bool
) -> None:
    """Not on a virtual machine that reports free pages, unless the user says so."""
    from weightinit_cuda.recording import memory as materializing

    if order is not None:
        (tmp_path / "order").write_text(order)
    monkeypatch.setattr(materializing, "REPORTING", tmp_path / "order")
    monkeypatch.setenv("WEIGHTINIT_HUGE_PAGES", wish)
    assert materializing.huge_pages_wanted.__wrapped__() is wanted


def test_huge_pages_by_no_other_word(monkeypatch: pytest.MonkeyPatch) -> None:
    from weightinit_cuda.recording import memory as materializing

    monkeypatch.setenv("WEIGHTINIT_HUGE_PAGES", "yes")
    with pytest.raises(ValueError, match="WEIGHTINIT_HUGE_PAGES: must be 0, 1 or auto, got 'yes'"):
        materializing.huge_pages_wanted.__wrapped__()


def test_torch_compile_is_first_used_in_the_block() -> None:
    """It makes a table of torch's functions once, by identity: not of those that stand in for them meanwhile."""
    torch._dynamo.trace_rules.clear_lru_cache()
    torch._dynamo.reset()

    def makes(x: Tensor) -> Tensor:
        return x + torch.zeros(3) + torch.ones(3) + torch.tensor(2.0) + nn.init.constant_(torch.empty(3), 1)

    torch._dynamo.utils.counters.clear()
    with wi.deferred():
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(3))
    if hasattr(torch._C._dynamo.eval_frame, "set_code_exec_strategy"):
        assert not torch._dynamo.utils.counters["frames"], "the recorder was compiled"
    assert torch.compile(makes, backend="eager", fullgraph=True)(torch.zeros(3)).tolist() == [4.0] * 3
    torch._dynamo.reset()
