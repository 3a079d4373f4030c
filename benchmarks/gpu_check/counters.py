"""Hardware counters of the main kernels, by ncu where it is installed; what it watches is this file, run as a program.

ncu is told where to look by cudaProfilerStart and -Stop around one fill each, so nothing here knows a kernel's name. Its values
go into the file as they come, one object a launch.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .files import write_json
from .stages import Status

__all__ = ["run"]

DEVICE = "cuda"
VALUES = 2**28
COLUMNS = 2**12
SECTIONS = (
    *("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "InstructionStats"),
    *("SchedulerStats", "WarpStateStats", "LaunchStats", "Occupancy"),
)
PEAK = "avg.pct_of_peak_sustained_elapsed"
SHOWN = {  # the first of each that ncu gives
    "us": ("gpu__time_duration.sum",),
    "memory %": (f"gpu__dram_throughput.{PEAK}", f"gpu__compute_memory_throughput.{PEAK}"),
    "processors %": (f"sm__throughput.{PEAK}",),
    "issue %": ("sm__inst_issued.avg.pct_of_peak_sustained_active", "smsp__issue_active.avg.pct"),
    "registers": ("launch__registers_per_thread",),
}


class Launch(NamedTuple):
    """One fill that is watched."""

    call: str
    dtype: str
    strided: bool = False

    @property
    def name(self) -> str:
        return f"{self.call}/{self.dtype}/2^28{', every other row' if self.strided else ''}"


LAUNCHES = (
    *(Launch(call, dtype) for call in ("uniform_", "normal_", "trunc_normal_") for dtype in ("float32", "bfloat16")),
    Launch("normal_", "float32", strided=True),
)


def watched() -> None:
    """Makes the launches, each in memory that exists and after a first one that loads the kernels."""
    import torch  # not above: where there is no ncu, nothing is to be imported

    import weightinit_cuda as wi

    profiler: Any = torch.cuda.profiler
    for launch in LAUNCHES:
        count = (2 if launch.strided else 1) * VALUES
        rows = torch.zeros(count, dtype=getattr(torch, launch.dtype), device=DEVICE).view(-1, COLUMNS)
        tensor = rows[::2] if launch.strided else rows
        fill = getattr(wi.init, launch.call)
        fill(tensor, seed=1)
        torch.cuda.synchronize()
        profiler.start()
        fill(tensor, seed=1)
        torch.cuda.synchronize()
        profiler.stop()
        del rows, tensor


def run(file: Path, seconds: float) -> tuple[Status, str]:
    """Lets ncu watch, and writes what it counted."""
    ncu = shutil.which("ncu", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/cuda/bin")))
    if ncu is None:
        return Status.LEFT_OUT, "ncu (Nsight Compute) is not installed"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table.csv")
        sections = [word for section in SECTIONS for word in ("--section", section)]
        how = ["--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw", "--log-file", str(table)]
        target = [sys.executable, "-m", "benchmarks.gpu_check.counters"]
        status: int | None = None
        with suppress(subprocess.TimeoutExpired):
            status = subprocess.run([ncu, *how, *sections, *target], check=False, timeout=seconds).returncode
        text = table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""
    launches = list(counted(text))
    errors = [line for line in text.splitlines() if line.startswith("==ERROR==")]
    kept = {} if launches else {"text": text}
    write_json(file, {"ncu": ncu, "status": status, "errors": errors, "launches": launches} | kept)
    for launch in launches:
        print(launch["launch"], "  ".join(f"{name} {value}" for name, value in launch["shown"].items()))
    if not launches and errors:  # a machine that lets nobody read its counters, and says so
        return Status.LEFT_OUT, f"ncu: {errors[0].removeprefix('==ERROR==').strip()}"
    complete = status == 0 and len(launches) == len(LAUNCHES)
    return (Status.FINE if complete else Status.CUT_SHORT), f"{len(launches)} of {len(LAUNCHES)} launches counted"


def counted(text: str) -> Iterator[dict[str, Any]]:
    """The launches of ``ncu --csv --page raw``: a line of names, one of units, one a launch; ncu's own lines between them."""
    lines = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
    if len(lines) < 2:
        return
    names, units, *rows = lines
    for number, row in enumerate(rows):
        values = dict(zip(names, row, strict=False))
        measured = ((name, unit) for name, unit in zip(names, units, strict=False) if "__" in name and values.get(name))
        metrics = {name: f"{values[name]} {unit}".strip() for name, unit in measured}
        yield {
            "launch": LAUNCHES[number].name if len(rows) == len(LAUNCHES) else f"launch {number}",
            "kernel": values.get("Kernel Name"),
            "grid": values.get("Grid Size"),
            "block": values.get("Block Size"),
            "shown": {title: metrics[name] for title, choice in SHOWN.items() if (name := _first(choice, metrics))},
            "metrics": metrics,
        }


def _first(choice: tuple[str, ...], metrics: dict[str, str]) -> str:
    return next((name for name in choice if name in metrics), "")


if __name__ == "__main__":
    watched()
