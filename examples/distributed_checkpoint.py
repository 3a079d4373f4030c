"""A checkpoint of the initial weights: saved by some ranks, loaded by others, and it is the same model.

torchrun --nproc-per-node 4 examples/distributed_checkpoint.py save checkpoint
torchrun --nproc-per-node 2 examples/distributed_checkpoint.py load checkpoint
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed.checkpoint as dcp
from distributed_fsdp2 import build
from llama import Llama
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh

import weightinit_cuda as wi


def save(model: Llama, folder: str) -> str:
    """Writes the model; returns its fingerprint."""
    dcp.save(get_model_state_dict(model), checkpoint_id=folder)
    return wi.fingerprint(model)


def load_(model: Llama, folder: str) -> str:
    """Reads into the model, sharded as it may be; returns its fingerprint."""
    state = get_model_state_dict(model)
    dcp.load(state, checkpoint_id=folder)
    set_model_state_dict(model, state)
    return wi.fingerprint(model)


def main(action: str, folder: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (int(os.environ["WORLD_SIZE"]),))
    model = build(mesh, seed=0 if action == "save" else 1)
    fingerprint = (save if action == "save" else load_)(model, folder)
    if mesh.get_rank() == 0:
        print(f"{action}: {mesh.size()} ranks, fingerprint {fingerprint}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
