"""A model's own initialisation, recorded and then made in one pass, against eager construction: GPT-2 or any of transformers.

python examples/deferred.py                      GPT-2 small
python examples/deferred.py path/to/config.json  a model of your own, by its configuration
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

import weightinit_cuda as wi


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    return work(), time.perf_counter() - begin


def record(config: Any) -> tuple[torch.nn.Module, wi.Recording]:
    with wi.deferred() as recorded:
        model = transformers.AutoModelForCausalLM.from_config(config)
    return model, recorded


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else None
    config = transformers.AutoConfig.from_pretrained(path) if path else transformers.GPT2Config()
    with torch.device("meta"):
        transformers.AutoModelForCausalLM.from_config(config)  # imports the model's code, so that nobody below pays for it
    (model, recorded), recording = timed(lambda: record(config))
    print(recorded.plan(model, seed=0))
    _, materializing = timed(lambda: recorded.materialize_(model, seed=0))
    live = sum(parameter.numel() for parameter in model.parameters())
    _, eager = timed(lambda: transformers.AutoModelForCausalLM.from_config(config))
    print(f"\n{live:,} parameters; eager construction fills {recorded.filled:,} values in {eager:.2f} s")
    print(
        f"recorded in {recording:.2f} s, made in {materializing:.2f} s: {eager / (recording + materializing):.1f} times as fast"
    )


if __name__ == "__main__":
    main()
