"""A Llama of 1.5 billion parameters in one process and in four: what each of them holds, and that it is the same model.

make demo-distributed          or: python examples/distributed_demo.py [processes]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from distributed_fsdp2 import build
from llama import LLAMA_1B
from torch.distributed.device_mesh import init_device_mesh

import weightinit_cuda as wi

KILOBYTE = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE


def rank(folder: Path) -> None:
    """One process of a world: builds its shards and writes down what that took."""
    mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
    before, start = peak(), time.perf_counter()
    model = build(mesh, LLAMA_1B)
    built, took = peak(), time.perf_counter() - start
    found = {
        "values": sum(parameter.to_local().numel() for parameter in model.parameters()),
        "peak": built - before,
        "seconds": took,
        "fingerprint": wi.fingerprint(model),
    }
    (folder / f"{mesh.size()}-{mesh.get_rank()}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def run(size: int, folder: Path) -> list[dict[str, Any]]:
    """A world of ``size`` processes, and what each of them found."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    threads = max(1, (os.cpu_count() or 1) // size)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([*torchrun, __file__, "rank", str(folder)], check=True, env=environment)
    return [json.loads((folder / f"{size}-{number}.json").read_text()) for number in range(size)]


def show(worlds: list[list[dict[str, Any]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    whole = worlds[0][0]
    table = Table("processes", "rank", "values", "peak memory added", "of one process", "seconds", "fingerprint")
    for found in worlds:
        for number, one in enumerate(found):
            memory, share = f"{one['peak'] / 1e9:.2f} GB", f"{one['peak'] / whole['peak']:.0%}"
            size = str(len(found)) if number == 0 else ""
            table.add_row(size, str(number), f"{one['values']:,}", memory, share, f"{one['seconds']:.1f}", one["fingerprint"])
        table.add_section()
    same = len({one["fingerprint"] for found in worlds for one in found}) == 1
    Console(width=None if sys.stdout.isatty() else 120).print(table, f"the same model: {'yes' if same else 'NO'}")
    if not same:
        sys.exit(1)


def main(size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        show([run(processes, Path(folder)) for processes in (1, size)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 4)
