"""FSDP2 with parameters that live on the host: they are filled there, and have the bits they would have on the GPU.

torchrun --nproc-per-node 4 examples/distributed_offload.py
"""

from __future__ import annotations

import os

import torch
from llama import TINY, Config, Llama
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

import weightinit_cuda as wi


def build(mesh: DeviceMesh, config: Config = TINY, seed: int = 0) -> Llama:
    """The sharded model, all of it on the CPU."""
    with wi.deferred() as recorded:
        model = Llama(config)
    policy = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
    for block in model.layers.values():
        fully_shard(block, mesh=mesh, offload_policy=policy)
    fully_shard(model, mesh=mesh, offload_policy=policy)
    return recorded.materialize_(model, device="cpu", seed=seed)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (int(os.environ["WORLD_SIZE"]),))
    model = build(mesh)
    places = {str(parameter.to_local().device) for parameter in model.parameters()}
    print(f"rank {mesh.get_rank()}: on {', '.join(places)}, fingerprint {wi.fingerprint(model)}", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
