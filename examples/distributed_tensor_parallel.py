"""FSDP2 over tensor parallelism: a mesh of two dimensions, both of which cut the same weights.

torchrun --nproc-per-node 4 examples/distributed_tensor_parallel.py
"""

from __future__ import annotations

import os

import torch
from llama import TINY, Config, Llama
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import weightinit_cuda as wi


def build(mesh: DeviceMesh, config: Config = TINY, seed: int = 0) -> Llama:
    """The model on a mesh with dimensions "data" and "tensor"."""
    with wi.deferred() as recorded:
        model = Llama(config)
    column, row = ColwiseParallel, RowwiseParallel
    for block in model.layers.values():
        attention = {"attention.wq": column(), "attention.wk": column(), "attention.wv": column(), "attention.wo": row()}
        feed_forward = {"feed_forward.w1": column(), "feed_forward.w3": column(), "feed_forward.w2": row()}
        parallelize_module(block, mesh["tensor"], attention | feed_forward)
        fully_shard(block, mesh=mesh["data"])
    ends = {"tok_embeddings": row(input_layouts=Replicate()), "output": column(output_layouts=Shard(-1))}
    parallelize_module(model, mesh["tensor"], ends)
    fully_shard(model, mesh=mesh["data"])
    return recorded.materialize_(model, device=mesh.device_type, seed=seed)


def main() -> None:
    size = int(os.environ["WORLD_SIZE"])
    tensor = 2 if size % 2 == 0 else 1
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (size // tensor, tensor), mesh_dim_names=("data", "tensor"))
    model = build(mesh)
    fingerprint = wi.fingerprint(model)
    if mesh.get_rank() == 0:
        for name, parameter in model.layers["0"].named_parameters():
            print(f"{name:28} {tuple(parameter.shape)!s:10} {parameter.placements}")
        print(f"fingerprint {fingerprint}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
