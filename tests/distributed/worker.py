"""One rank: runs every flow in turn and writes down what it found. Started by ``torchrun``, see test_distributed.py.

After a flow that fails the rank stops, because its collectives may be out of step with the others'; torchrun then stops those.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from flows import FLOWS, World

PATIENCE = timedelta(seconds=60)  # with ranks that do not come to a collective


def main(scratch: Path) -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = "cuda" if torch.cuda.device_count() >= size else "cpu"
    if device == "cuda":
        torch.cuda.set_device(rank)
    torch.set_num_threads(1)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    world = World(rank, size, device, scratch)
    with (scratch / f"{size}-{rank}.jsonl").open("w") as report:
        for name, flow in FLOWS.items():
            try:
                found = {"flow": name, **flow(world)}
            except Exception:
                print(json.dumps({"flow": name, "error": traceback.format_exc()}), file=report, flush=True)
                raise
            print(json.dumps(found), file=report, flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
