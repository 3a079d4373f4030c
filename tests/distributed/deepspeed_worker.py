"""One rank of a world under DeepSpeed's ZeRO-3, see test_deepspeed.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import zero3
from bitwise import differing
from torch import nn

import weightinit_cuda as wi


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 7), nn.Embedding(11, 3, padding_idx=2))


def compared(net: nn.Module, expected: nn.Module) -> int:
    """Gathered by torch: what DeepSpeed gathers through gloo is now and then not there yet."""
    pairs = zip(net.parameters(), expected.parameters(), strict=True)
    return sum(differing(zero3.gathered(got), tensor.detach()) for got, tensor in pairs)


def main(scratch: Path) -> None:
    import deepspeed
    from deepspeed.runtime.zero import GatheredParameters, Init

    # DeepSpeed would compile a module for shared memory, which takes minutes and is not what is tested.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    deepspeed.init_distributed("gloo")
    size = dist.get_world_size()
    config = {"train_batch_size": size, "zero_optimization": {"stage": 3}}
    with Init(config_dict_or_path=config):
        net = model()
    plan = wi.plan(net, rules="torch", seed=3)
    found: dict[str, int] = {}
    wi.initialize_(net, seed=5)
    found["initialize_"] = compared(net, wi.initialize_(model(), seed=5))
    plan.apply_(net)
    found["apply_"] = compared(net, plan.apply_(model()))
    with GatheredParameters(list(net.parameters())):  # without a modifier: what is written to the whole alone is dropped
        wi.initialize_(net, seed=6)
    found["gathered, then partitioned"] = compared(net, wi.initialize_(model(), seed=6))
    alone = model()
    torch.manual_seed(dist.get_rank())
    wi.initialize_(net)
    torch.manual_seed(0)
    wi.initialize_(alone)
    found["drawn seeds"] = compared(net, alone)
    report = {"differing": found, "fingerprint": wi.fingerprint(net), "expected": wi.fingerprint(alone)}
    (scratch / f"{os.environ['RANK']}.json").write_text(json.dumps(report))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
