"""The group "neighbour": who takes part, and who else is at work on the machine meanwhile, which the case's label says.

Neighbours are processes of their own. They end with the block, and by themselves should this process be gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace

from ..case import Case
from ..contestants import BASELINE, EAGER, OURS, OURS_ALONE, OURS_PATCHED, OURS_PATCHED_ALONE, Call, contestants
from . import memory, models
from .correctness import check_ours

__all__ = ["LOADS", "MODEL", "beside", "calls"]

MODEL = "ResNet-50"  # 161 tensors, many of them too small for two threads
LOADS = {
    "quiet": "nobody else: what a second thread is good for",
    "a niced neighbour": "one process that counts, at the lowest priority: something in the background",
    "a neighbour": "one process that counts: a DataLoader's worker",
    "a neighbour a core": "as many as there are cores: a shared machine",
    "two processes a core": "all of them fill: ranks that do not know of one another",
    "one CPU": "the affinity mask has one CPU left: taskset, a worker's init function",
}

# Each says when it has begun, and ends when its parent is another one than at first.
_BEGIN = "import os; parent = os.getppid(); print(flush=True)\n"
_COUNTS = _BEGIN + "while os.getppid() == parent:\n    for _ in range(100_000): pass"
_FILLS = f"""
import torch, weightinit_cuda as wi
torch.set_num_threads({{threads}})
tensor = torch.empty(1 << 20)
wi.init.uniform_(tensor)
{_BEGIN}
while os.getppid() == parent:
    for _ in range(100): wi.init.uniform_(tensor)
"""


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _processes(code: str, count: int, nice: int = 0) -> Iterator[None]:
    command = [sys.executable, "-c", f"import os; os.nice({nice})\n{code}"]
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)  # before it is waited for
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"neighbours: a process must begin, got exit status {process.wait()}. Run {command}.")
        yield


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    """As under ``taskset``: this thread, and those that it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def beside(label: str, threads: int) -> AbstractContextManager[None]:
    """A block that has the company which ``label`` names.

    Args:
        label: one of LOADS.
        threads: of each process that fills, too.
    """
    match label:
        case "a niced neighbour":
            return _processes(_COUNTS, 1, nice=19)
        case "a neighbour":
            return _processes(_COUNTS, 1)
        case "a neighbour a core":
            return _processes(_COUNTS, _cpus())
        case "two processes a core":
            return _processes(_FILLS.format(threads=threads), 2 * _cpus() - 1)
        case "one CPU":
            return _on_one_cpu()
        case _:
            return nullcontext()


def calls(case: Case) -> dict[str, tuple[Call, int]] | str:
    """Each contestant's call and its number of threads, or why there is none.

    Raises:
        WrongValuesError: ours does not write what it should.
    """
    ours: Call | str
    usual: Call | str
    if case.call == "construct":
        usual = models.builder(replace(case, label=MODEL))
        if isinstance(usual, str):
            return usual
        names, ours = (OURS_PATCHED, OURS_PATCHED_ALONE, EAGER), dict(models.CONSTRUCT)[OURS_PATCHED](usual)
    else:
        tensor = memory.warm(case)
        names, (ours, usual) = (OURS, OURS_ALONE, BASELINE), (one.enter(case, tensor) for one in contestants(case))
    assert not isinstance(ours, str)
    assert not isinstance(usual, str)
    if case.call != "construct":
        check_ours(case, tensor, ours)
    return dict(zip(names, ((ours, case.threads), (ours, 1), (usual, case.threads)), strict=True))
