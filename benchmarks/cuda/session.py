"""Measures all GPU cases: checks bits and distributions first, then takes time, prints tables, writes the JSON file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from weightinit_cuda import engine

from ..case import Case
from ..contestants import ONE_TENSOR, OURS, PREPARED, STORES, Call, on_gpu
from ..measuring import models
from ..measuring.correctness import check_distribution, check_ours
from ..measuring.environment import environment
from ..measuring.row import Row, row_of
from ..measuring.timing import Samples
from ..showing.results_file import write_json
from ..showing.targets import judge
from . import tables
from .cases import cases
from .timing import HEAD_START, Flush, GpuPolicy, measure, seconds_of

__all__ = ["run", "why_not"]

DEVICE = "cuda"
FLUSH_CACHES = 4  # times the cache's size
FIRST = (2**28, 2**26, 2**30, 2**32)  # sizes that targets are about, in the order of what they are worth
JUST_LAUNCHES = (PREPARED, ONE_TENSOR, *STORES)  # in whole models; of the other calls Python is a part that counts


def run(
    suite: str,
    json: Path | None,
    sizes: Sequence[int] | None = None,
    quick: bool = False,
    listed: bool = False,
    seconds: float | None = None,
) -> int:
    """The command line's part for a GPU: 0, or 1 where there is none to measure.

    The rows that decide targets come first, and the file is written after each row: whatever ends the run, what was measured
    stays.

    Args:
        seconds: no further row is begun after so many.
    """
    chosen = sorted(cases(suite, sizes, quick), key=_importance)
    if listed:
        tables.print_cases(chosen)
        return 0
    if reason := why_not():
        print(f"benchmarks: --device cuda needs a GPU: {reason}", file=sys.stderr)
        return 1
    context = environment([0]) | gpu_environment()
    print(f"{context['gpu']}, driver {context['driver']}, CUDA {context['cuda']}, torch {context['versions']['torch']}")
    policy = GpuPolicy(row_seconds=0.1) if quick else GpuPolicy()
    rows: list[Row] = []
    begin = perf_counter()
    for number, case in enumerate(chosen, 1):
        start = perf_counter()
        if seconds is not None and start - begin > seconds:
            print(f"benchmarks: {seconds:.0f} s are over; {len(chosen) - len(rows)} rows are not measured", file=sys.stderr)
            break
        rows.append(measured(case, policy))
        if json:
            write_json(json, suite, context, rows, judge(rows))
        print(f"{number}/{len(chosen)} {case.name} {perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    tables.print_rows(rows)
    tables.print_verdicts(judge(rows))
    if json and rows:
        print(f"written: {json}")
    return 0


def _importance(case: Case) -> tuple[int, int]:
    """Fills of large tensors, whole models, then the rest: all distributions of one size after those of another."""
    if case.group == "fill" and case.values in FIRST:
        return 0, FIRST.index(case.values)
    return {"model": 1, "fill": 2}.get(case.group, 3), case.values


def why_not() -> str:
    """Why nothing can be measured; empty where it can."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device"
    cuda = engine.backend_info().cuda
    return "" if cuda == "native" else f"weightinit_cuda has no CUDA kernels ({cuda}). WEIGHTINIT_CUDA=1 make build"


def gpu_environment() -> dict[str, Any]:
    """What a figure depends on besides what environment() says."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    query = [
        "nvidia-smi",
        "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem",
        "--format=csv,noheader,nounits",
        "-i",
        "0",
    ]
    try:
        driver, core_clock, memory_clock = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split(",")
    except (OSError, subprocess.CalledProcessError, ValueError):
        driver = core_clock = memory_clock = "unknown"
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "memory": properties.total_memory,
        "cache": cache_bytes(),
        "cuda": torch.version.cuda,
        "driver": driver.strip(),
        "max_clocks_mhz": [core_clock.strip(), memory_clock.strip()],
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def cache_bytes() -> int:
    """Of the second level; torch names it since 2.4."""
    return int(getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "L2_cache_size", 0)) or 64 << 20


def measured(case: Case, policy: GpuPolicy) -> Row:
    """One row. Its memory is given back before the next."""
    free, _ = torch.cuda.mem_get_info()
    if case.bytes > 0.8 * free:
        return row_of(case, {}, [], {OURS: f"needs {case.bytes >> 20} MiB, {free >> 20} are free"})
    try:
        calls, skipped = _model_calls(case) if case.group == "model" else _fill_calls(case)
        for name in [name for name in calls if name != OURS]:
            if (seconds := seconds_of(calls[name], 1)[0]) > policy.call_seconds:
                skipped[name] = f"one call takes {seconds:.1f} s"
                del calls[name]
        samples: dict[str, Samples] = measure(calls, policy, _flush(case) if case.bytes >= policy.large_bytes else None)
        return row_of(case, samples, [], skipped)
    finally:
        calls = {}
        torch.cuda.empty_cache()


def _flush(case: Case) -> Flush:
    """Empties the cache, and gives the host a head start where Python is not to be measured."""
    buffer = torch.empty(FLUSH_CACHES * cache_bytes(), dtype=torch.uint8, device=DEVICE)
    cuda: Any = torch.cuda  # _sleep is untyped; torch's own benchmarks use it

    def before(name: str) -> None:
        buffer.zero_()
        if case.group != "model" or name in JUST_LAUNCHES:
            cuda._sleep(HEAD_START)

    return before


def _fill_calls(case: Case) -> tuple[dict[str, Call], dict[str, str]]:
    """The contestants, each checked as it was entered."""
    tensor = torch.zeros(case.shape, dtype=case.dtype, device=DEVICE)
    calls: dict[str, Call] = {}
    skipped: dict[str, str] = {}
    for contestant in on_gpu(case):
        call = contestant.enter(case, tensor)
        if isinstance(call, str):
            skipped[contestant.name] = call
            continue
        if contestant.name == OURS:
            check_ours(case, tensor, call)
        tensor.zero_()
        try:
            call()
            if contestant.draws:
                check_distribution(case, tensor, contestant.name)
        except Exception as error:
            if contestant.name == OURS:
                raise
            first = next(iter(str(error).splitlines()), "")  # a peer's defect stops nobody else
            skipped[contestant.name] = f"failed with {type(error).__name__}: {first}"
            continue
        calls[contestant.name] = call
    return calls, skipped


def _model_calls(case: Case) -> tuple[dict[str, Call], dict[str, str]]:
    """As the CPU's: every one of ours is compared with the reference."""
    table = models.table_of(case)
    model = models.module_of(table, DEVICE)
    calls: dict[str, Call] = {}
    skipped: dict[str, str] = {}
    for name, enter in models.MODEL:
        call = enter(table, model)
        if isinstance(call, str):
            skipped[name] = call
            continue
        torch._foreach_zero_(models.tensors_of(model))
        call()
        if name in models.SAME_VALUES:
            models.check_model(case, table, model, name)
        calls[name] = call
    return calls, skipped
