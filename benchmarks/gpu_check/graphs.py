"""What a process does once, or to another one: CUDA graphs, streams, threads and fork, each check in a fresh process.

The parent imports the library and never touches the GPU; every check is a fork of it. So a first fill may happen inside a
capture, a fork may come before or after the first use of the GPU, and a check that hangs is ended alone.
"""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, TruncNormal, Uniform

from .files import write_json
from .layouts import LAYOUTS, base
from .stages import Status

__all__ = ["CHECKS", "run"]

DEVICE = "cuda"
EACH = 20.0  # seconds of a check
THREADS, DRAWS = 4, 100
KINDS: tuple[Distribution, ...] = (Normal(0.0, 0.02), Uniform(-1.0, 1.0), TruncNormal(0.0, 1.0, -2.0, 2.0), Constant(1.0))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def run(file: Path, seconds: float) -> tuple[Status, str]:
    """One check after the other; one that fails stops none."""
    found: dict[str, dict[str, object]] = {}
    begin = perf_counter()
    for check in CHECKS:
        start = perf_counter()
        if start - begin > seconds:
            break
        error = in_fork(check, min(EACH, max(1.0, seconds - (start - begin))))
        found[check.__name__] = {"seconds": round(perf_counter() - start, 2), "error": error}
        print(f"{check.__name__}: {error or 'fine'}", flush=True)
        write_json(file, found)
    wrong = [name for name, of in found.items() if of["error"]]
    if wrong:
        return Status.WRONG, f"{len(wrong)} of {len(found)} checks failed: {', '.join(wrong)}"
    done = f"{len(found)} of {len(CHECKS)} checks in fresh processes"
    return (Status.FINE if len(found) == len(CHECKS) else Status.CUT_SHORT), done


def in_fork(check: Callable[[], None], seconds: float) -> str:
    """What a fork of this process says of the check; empty if it is fine."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_reported, args=(check, sender))
    process.start()
    sender.close()
    said = f"did not end in {seconds:.0f} s"
    if receiver.poll(seconds):
        try:
            said = receiver.recv()
        except EOFError:
            process.join(1)
            said = f"the process died, exit status {process.exitcode}"
    process.kill()
    process.join(5)
    return str(said)


def _reported(check: Callable[[], None], sender: Connection) -> None:
    try:
        check()
        sender.send("")
    except BaseException as error:
        traceback.print_exc()
        sender.send(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")


# ---- what the checks share ------------------------------------------------------------------------------------------------


def jobs(count: int, device: str, seed: int = 1) -> list[FillJob]:
    """Small tensors of all kinds, every third of them a view of seven dimensions: many rows in the table of a launch."""
    made = []
    for i in range(count):
        layout, dtype = LAYOUTS["seven dimensions"], DTYPES[i % len(DTYPES)]
        plain = torch.zeros(50 + 37 * i % 3000, dtype=dtype, device=device)
        tensor = plain if i % 3 else layout.view(base(layout.elements, dtype, device))
        made.append(FillJob(tensor, KINDS[i % len(KINDS)], seed, i, None, f"tensor {i}"))
    return made


def compare(done: Sequence[FillJob]) -> None:
    """With what the CPU makes."""
    torch.cuda.synchronize()
    for job in done:
        expected = torch.empty(job.tensor.shape, dtype=job.tensor.dtype)
        engine.fill([job._replace(tensor=expected)])
        got = job.tensor.cpu().contiguous()
        assert torch.equal(got.reshape(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8)), f"{job.name} differs"


def captured(call: Callable[[], None]) -> Callable[[], None]:
    """The call as a CUDA graph, to be replayed."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    replay: Callable[[], None] = graph.replay
    return replay


def in_threads(work: Callable[[], None]) -> None:
    """The same work in several threads at once."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# ---- the checks -----------------------------------------------------------------------------------------------------------


def the_first_fill_is_in_a_capture() -> None:
    done = jobs(5, DEVICE)
    torch.cuda.synchronize()
    captured(lambda: engine.fill(done))()
    compare(done)


def graphs_of_many_rows() -> None:
    for count in (1, 2, 12, 13, 50):
        done = jobs(count, DEVICE)
        torch.cuda.synchronize()
        replay = captured(lambda done=done: engine.fill(done))  # type: ignore[misc]
        for _ in range(2):
            for job in done:
                job.tensor.zero_()
            replay()
            compare(done)


def a_stream_for_each_thread() -> None:
    def work() -> None:
        for seed in range(10):
            stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call, unused-ignore]
            with torch.cuda.stream(stream):
                done = jobs(20, DEVICE, seed)
                engine.fill(done)
            stream.synchronize()
            compare(done)

    in_threads(work)


def threads_draw_different_seeds() -> None:
    drawn: list[Tensor] = []

    def work() -> None:
        for _ in range(DRAWS):
            drawn.append(wi.init.uniform_(torch.empty(4, device=DEVICE)))

    in_threads(work)
    different = {tuple(tensor.tolist()) for tensor in drawn}
    assert len(different) == THREADS * DRAWS, f"{THREADS * DRAWS} draws gave {len(different)} different seeds"


def _fill_here() -> None:
    done = jobs(20, DEVICE)
    engine.fill(done)
    compare(done)


def a_fork_before_the_first_use() -> None:
    """Whoever asks what is compiled in has not used the GPU yet: a fork may."""
    wi.backend_info()
    error = in_fork(_fill_here, EACH / 2)
    assert not error, f"in the fork: {error}"
    _fill_here()


def a_fork_after_use() -> None:
    """As a loader of data is forked: it may fill on the CPU; on the GPU it is refused by torch, in words."""
    _fill_here()

    def on_the_cpu() -> None:
        expected = wi.init.normal_(torch.empty(300_000), seed=5, stream=1)
        assert torch.equal(expected, wi.init.normal_(torch.empty(300_000), seed=5, stream=1))

    def refused_or_right() -> None:
        try:
            _fill_here()
        except RuntimeError as error:
            if "fork" not in str(error):
                raise

    for inner in (on_the_cpu, refused_or_right):
        error = in_fork(inner, EACH / 3)
        assert not error, f"in the fork, {inner.__name__}: {error}"


CHECKS: tuple[Callable[[], None], ...] = (
    the_first_fill_is_in_a_capture,
    graphs_of_many_rows,
    a_stream_for_each_thread,
    threads_draw_different_seeds,
    a_fork_before_the_first_use,
    a_fork_after_use,
)
