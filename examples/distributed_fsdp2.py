"""FSDP2: every rank makes its shards of a Llama, by the Llama's own code, and none ever holds the whole.

torchrun --nproc-per-node 4 examples/distributed_fsdp2.py
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from llama import TINY, Config, Llama
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

import weightinit_cuda as wi


def build(mesh: DeviceMesh, config: Config = TINY, seed: int = 0, **options: Any) -> Llama:
    """The sharded model; ``options`` go to fully_shard."""
    with wi.deferred() as recorded:
        model = Llama(config)
    for block in model.layers.values():
        fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return recorded.materialize_(model, device=mesh.device_type, seed=seed)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (int(os.environ["WORLD_SIZE"]),))
    model = build(mesh)
    here = sum(parameter.to_local().numel() for parameter in model.parameters())
    whole = sum(parameter.numel() for parameter in model.parameters())
    fingerprint = wi.fingerprint(model)  # the same for any number of ranks
    print(f"rank {mesh.get_rank()}: {here:,} of {whole:,} values, fingerprint {fingerprint}", flush=True)
    tokens = torch.randint(0, TINY.vocabulary, (2, 17), device=device)  # an ordinary model from here on
    F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
