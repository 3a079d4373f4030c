"""transformers: a model to be trained from scratch, by its own code, on any device, with the plan beside its checkpoint."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

import weightinit_cuda as wi


def build(config: PretrainedConfig, folder: Path, device: str = "cpu", seed: int = 0) -> PreTrainedModel:
    with wi.deferred() as recorded:  # nothing of the model's size is allocated
        model = AutoModelForCausalLM.from_config(config)
    plan = recorded.plan(model, seed)
    recorded.materialize_(model, device=device, seed=seed)
    model.save_pretrained(folder)
    plan.save(folder / "init.json")  # `weightinit-cuda verify folder/init.json folder` tells if training has begun
    return model
