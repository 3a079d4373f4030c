"""Pipeline stages: each rank makes the layers that are its own. Names decide the values, so the stages fit together.

torchrun --nproc-per-node 4 examples/distributed_pipeline.py
"""

from __future__ import annotations

import os

import torch
from llama import TINY, Config, Llama

import weightinit_cuda as wi


def build(stage: int, stages: int, config: Config = TINY, seed: int = 0, device: str = "cpu") -> Llama:
    """Stage ``stage``: a Llama without the parts of the others, under the names that they have in the whole."""
    with wi.deferred() as recorded:
        model = Llama(config)
    bounds = [config.layers * number // stages for number in (stage, stage + 1)]
    for number in set(range(config.layers)) - set(range(*bounds)):
        del model.layers[str(number)]
    if stage > 0:
        model.tok_embeddings = None
    if stage < stages - 1:
        model.norm = model.output = None
    return recorded.materialize_(model, device=device, seed=seed)  # only what is left takes memory


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.distributed.init_process_group()
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    stage = build(rank, size, device=device)
    print(f"stage {rank}: layers {list(stage.layers)}, {sum(p.numel() for p in stage.parameters()):,} values", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
