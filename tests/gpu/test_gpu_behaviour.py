"""How a fill behaves on a GPU: streams, graphs, many tensors at once, no synchronisation or allocation, devices."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import pytest
import torch
from bitwise import same_bits
from on_device import job, on_cpu, on_gpu

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, TruncNormal, Uniform

pytestmark = [*on_gpu]

KINDS: tuple[Distribution, ...] = (Normal(0.0, 0.02), Uniform(-1.0, 1.0), TruncNormal(0.0, 1.0, -2.0, 2.0), Constant(1.0))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e5m2)
PAUSE = 1_000_000_000  # cycles: half a second and more on any GPU
HALF_OF_PAUSE = 0.2  # seconds


def jobs(count: int, device: str, seed: int = 1) -> list[FillJob]:
    """Small tensors of all kinds; ten in a row of one dtype, so that kind and dtype meet in every pair."""
    made = []
    for i in range(count):
        tensor = torch.zeros(50 + 37 * i % 3000, dtype=DTYPES[i // 10 % len(DTYPES)], device=device)
        made.append(job(tensor, KINDS[i % len(KINDS)], seed, stream=i))
    return made


def check(done: list[FillJob]) -> None:
    for i, (tensor, distribution, seed, stream, *_) in enumerate(done):
        assert same_bits(tensor, on_cpu(distribution, tensor.dtype, tensor.shape, seed, stream)), f"tensor {i}: {tensor.dtype}"


@contextmanager
def synchronising_is_an_error() -> Iterator[None]:
    """torch's own calls raise if they synchronise; ours would show as time, behind work that is not done."""
    torch.cuda.synchronize()
    torch.cuda._sleep(PAUSE)
    torch.cuda.set_sync_debug_mode("error")
    start = perf_counter()
    try:
        yield
        seconds = perf_counter() - start
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert seconds < HALF_OF_PAUSE, f"{seconds:.3f} s: the host waited for the device"
    assert not torch.cuda.current_stream().query(), "the device had finished before the call returned"
    torch.cuda.synchronize()


@pytest.fixture(autouse=True)
def warm() -> None:
    """Loads the kernels, which may synchronise, and fills torch's caches."""
    engine.fill(jobs(20, "cuda"))
    torch.cuda._sleep(1)
    torch.cuda.synchronize()


def test_the_current_stream_is_used() -> None:
    tensor = torch.zeros(2**20, device="cuda")
    tensor.clone()
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(PAUSE)
        engine.fill([job(tensor, KINDS[0])])
    before = tensor.clone()  # on the default stream, which does not wait
    torch.cuda.default_stream().synchronize()
    assert not stream.query(), "the pause was too short for this test"
    assert bool((before == 0).all()), "the fill did not wait for its stream"
    stream.synchronize()
    assert same_bits(tensor, on_cpu(KINDS[0], torch.float32, tensor.shape))


def test_a_table_in_device_memory_on_another_stream() -> None:
    done = jobs(100, "cuda")
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        engine.fill(done)
    stream.synchronize()
    check(done)


@pytest.mark.parametrize("count", [1, 5, 12, 13, 50])
def test_graphs(count: int) -> None:
    """With given seeds; more tensors than fit into the parameters become several launches."""
    captured = jobs(count, "cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        engine.fill(captured)
    for _ in range(2):
        for captured_job in captured:
            captured_job.tensor.view(torch.uint8).zero_()
        graph.replay()
        torch.cuda.synchronize()
        check(captured)


def test_a_drop_in_call_in_a_graph() -> None:
    tensor = torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        wi.init.normal_(tensor, seed=5)
    graph.replay()
    torch.cuda.synchronize()
    assert same_bits(tensor, wi.init.normal_(torch.empty(1000), seed=5))


def test_a_draw_in_a_graph_is_refused() -> None:
    """As docs/reproducibility.md says; the capture goes on."""
    tensor = torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with pytest.raises(RuntimeError, match="during CUDA graph capture"):
            wi.init.normal_(tensor)
        wi.init.normal_(tensor, seed=5)
    graph.replay()
    torch.cuda.synchronize()
    assert same_bits(tensor, wi.init.normal_(torch.empty(1000), seed=5))


@pytest.mark.parametrize("count", [11, 12, 13, 500])
def test_many_tensors_are_one_launch(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    launch = engine.native.launch
    monkeypatch.setattr(
        engine.native, "launch", lambda device, table, *how: (calls.append(len(table)), launch(device, table, *how))
    )
    done = jobs(count, "cuda")
    engine.fill(done)
    assert calls == [count]
    check(done)


def test_tables_outlive_their_launches() -> None:
    """Host and device memory of one table is used again for the next, while launches are still waiting."""
    runs = [jobs(40, "cuda", seed) for seed in range(30)]
    torch.cuda.synchronize()
    torch.cuda._sleep(PAUSE // 4)
    for run in runs:
        engine.fill(run)
    for run in runs:
        check(run)


@pytest.mark.parametrize("count", [5, 500])
def test_prepared_jobs(count: int) -> None:
    """One table, launched under one seed after another, also while launches of it are waiting, and in a graph."""
    done = jobs(count, "cuda")
    prepared = engine.Prepared(done)
    for seed in (0, 2**64 - 1):
        torch.cuda._sleep(PAUSE // 4)
        prepared.run(7)
        prepared.run(seed)
        check([job._replace(seed=seed) for job in done])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        prepared.run(3)
    graph.replay()
    torch.cuda.synchronize()
    check([job._replace(seed=3) for job in done])


def test_a_bound_plan() -> None:
    net = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(20)], torch.nn.Embedding(9, 4, padding_idx=1)).cuda()
    plan = wi.plan(net)
    fill = plan.bind(net)
    for seed in (0, -1):
        fill(seed=seed)
        expected = plan.apply_(copy.deepcopy(net).cpu(), seed=seed).state_dict()
        assert all(same_bits(tensor, expected[name]) for name, tensor in net.state_dict().items())


def test_both_devices_in_one_call() -> None:
    mixed = [pair for pairs in zip(jobs(30, "cuda"), jobs(30, "cpu"), strict=True) for pair in pairs]
    engine.fill(mixed)
    check(mixed)


def test_nothing_synchronises() -> None:
    parameter, generator = torch.nn.Parameter(torch.empty(300, 200, device="cuda")), torch.Generator("cuda")
    conv = torch.empty(64, 3, 7, 7, device="cuda").to(memory_format=torch.channels_last)
    small, many = jobs(5, "cuda"), jobs(500, "cuda")
    for attempt in range(2):
        with synchronising_is_an_error() if attempt else torch.no_grad():  # the first makes what is made once
            wi.init.normal_(parameter)
            wi.init.uniform_(parameter, generator=generator)
            wi.init.trunc_normal_(parameter, std=0.02, seed=0, stream="name")
            wi.init.kaiming_uniform_(conv)
            wi.init.zeros_(parameter)
            wi.init.eye_(parameter)
            engine.fill(small)
    for attempt in range(2):
        with synchronising_is_an_error() if attempt else torch.no_grad():
            engine.fill(many)


def test_small_tables_allocate_nothing() -> None:
    parameter, twelve = torch.nn.Parameter(torch.empty(300, 200, device="cuda")), jobs(12, "cuda")
    counted = "allocation.all.allocated"
    before = torch.cuda.memory_stats()[counted]
    wi.init.normal_(parameter)
    wi.init.uniform_(parameter, seed=1)
    engine.fill(twelve)
    assert torch.cuda.memory_stats()[counted] == before
    engine.fill(jobs(12, "cuda") + twelve)
    assert torch.cuda.memory_stats()[counted] > before, "the counter counts"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_tensors_device_is_used() -> None:
    first, second = jobs(20, "cuda:0"), jobs(20, "cuda:1")
    with torch.cuda.device(0):
        engine.fill([*second, *first])
        engine.fill(second[:3])
        wi.init.normal_(torch.empty(100, device="cuda:1"))
        assert torch.cuda.current_device() == 0
    check([*first, *second])
