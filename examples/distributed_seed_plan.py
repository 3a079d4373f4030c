"""Instead of a seed checkpoint: a plan of some kilobytes, made once without memory, from which each rank fills its shards.

torchtitan makes all ranks start alike by a checkpoint that one process writes and all load. A plan says the same in text.

python examples/distributed_seed_plan.py seed.json
torchrun --nproc-per-node 4 examples/distributed_seed_plan.py seed.json
"""

from __future__ import annotations

import os
import sys

import torch
from distributed_fsdp2 import build as sharded
from llama import TINY, Config, Llama, rotations
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

import weightinit_cuda as wi


def save(path: str, config: Config = TINY, seed: int = 0) -> None:
    """One process, once, whatever the number of ranks will be: the model's own code is recorded, nothing is allocated."""
    with wi.deferred() as recorded:
        model = Llama(config)
    recorded.plan(model, seed=seed).save(path)


def build(mesh: DeviceMesh, path: str, config: Config = TINY) -> Llama:
    """The sharded model, its parameters from the file; buffers are not random, and computed as ever."""
    with torch.device("meta"):
        model = Llama(config)
    for block in model.layers.values():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device=mesh.device_type)
    model.rotation.copy_(rotations(config))
    return wi.Plan.load(path).apply_(model)


def main(path: str) -> None:
    if "WORLD_SIZE" not in os.environ:
        save(path)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (int(os.environ["WORLD_SIZE"]),))
    model = build(mesh, path)
    fingerprint = wi.fingerprint(model)  # the same for any number of ranks, and that of the model made by its own code
    same = fingerprint == wi.fingerprint(sharded(mesh))
    print(f"rank {mesh.get_rank()} of {mesh.size()}: fingerprint {fingerprint}, as recorded: {same}", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
