"""Inputs for a model that is probed without any: from the example that it declares, or from its configuration.

Only what is known is made up; else the error says what to give.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..tensors.torch_private import tree_map

__all__ = ["Inputs", "made_up"]

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
DECLARED = ("example_inputs", "example_input_array", "dummy_inputs")  # the second is Lightning's
SAMPLES, TOKENS, PIXELS = 8, 64, 64


def made_up(model: nn.Module, seed: int) -> tuple[Inputs, str]:
    """Arguments for ``model.forward``, on its device and in its dtype, and a sentence that says where they come from.

    Raises:
        ValueError: nothing says what the model takes.
    """
    generator = torch.Generator().manual_seed(seed)
    found, where = _declared(model)
    if found is None and getattr(model, "config", None) is not None:
        found, where = _of_config(model, generator), "its configuration"
    if found is None and (size := (getattr(model, "pretrained_cfg", None) or {}).get("input_size")):  # timm
        found, where = torch.randn(SAMPLES, *size, generator=generator), "pretrained_cfg"
    if found is None and _takes_nothing(model):
        return ((), {}), ""
    if found is None:
        raise ValueError(
            f"probe: inputs are required, got none, and {type(model).__name__} does not say what it takes. Give a batch"
            f"{_example(model)}, or set model.example_inputs."
        )
    found = tree_map(lambda value: _moved(value, model) if isinstance(value, Tensor) else value, found)
    note = f"Inputs were made up from {where}: give a batch of your own for exact figures."
    if isinstance(found, Mapping):
        return ((), dict(found)), note
    return (tuple(found) if isinstance(found, (tuple, list)) else (found,), {}), note


def _declared(model: nn.Module) -> tuple[Any, str]:
    transformers = hasattr(model, "main_input_name")  # whose dummy_inputs are token ids even for images
    for name in DECLARED:
        value = getattr(model, name, None)
        if value is None or (name == "dummy_inputs" and transformers):
            continue
        return (value() if callable(value) and not isinstance(value, Tensor) else value), name
    return None, ""


def _moved(value: Tensor, model: nn.Module) -> Tensor:
    like = next(model.parameters())
    return value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)


def _takes_nothing(model: nn.Module) -> bool:
    given = inspect.signature(model.forward).parameters.values()
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in given) and not any(
        p.kind is p.VAR_POSITIONAL for p in given
    )


def _example(model: nn.Module) -> str:
    """Of a model that begins with a layer of torch, one that would do."""
    first = next((m for m in model.modules() if isinstance(m, (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd))), None)
    if isinstance(first, nn.Linear):
        return f", such as torch.randn(64, {first.in_features})"
    if isinstance(first, nn.Embedding):
        return f", such as torch.randint({first.num_embeddings}, (8, 64))"
    if isinstance(first, nn.Conv2d):
        return f", such as torch.randn(8, {first.in_channels}, 64, 64)"
    return ""


# ---- transformers ----------------------------------------------------------------------------------------------------


def _of_config(model: nn.Module, generator: torch.Generator) -> dict[str, Any] | None:
    """By the model's main input: token ids, pixels, audio; with labels where the class's name says what it is for."""
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    main = getattr(model, "main_input_name", "input_ids")
    if main == "pixel_values" and getattr(config, "num_channels", None):
        size = getattr(config, "image_size", PIXELS)
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        made: dict[str, Any] = {main: torch.randn(SAMPLES, config.num_channels, height, width, generator=generator)}
    elif main == "input_features" and getattr(config, "num_mel_bins", None) and getattr(config, "max_source_positions", None):
        made = {main: torch.randn(SAMPLES, config.num_mel_bins, 2 * config.max_source_positions, generator=generator)}
    elif main == "input_ids" and getattr(text, "vocab_size", None):
        made = {main: _ids(text, generator)}
    else:
        return None
    if getattr(config, "is_encoder_decoder", False) and getattr(text, "vocab_size", None):
        made["decoder_input_ids"] = _ids(text, generator)
    return made | _labels(model, made, generator)


def _ids(text: Any, generator: torch.Generator) -> Tensor:
    length = min(TOKENS, getattr(text, "max_position_embeddings", TOKENS) or TOKENS)
    return torch.randint(text.vocab_size, (SAMPLES, length), generator=generator)


def _labels(model: nn.Module, made: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
    kind, config = type(model).__name__, getattr(model, "config", None)
    if kind.endswith(("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForConditionalGeneration")) and "pixel_values" not in made:
        ids = made.get("decoder_input_ids", made.get("input_ids"))
        return {} if ids is None else {"labels": ids}
    if kind.endswith("ForImageClassification") and (classes := getattr(config, "num_labels", 0)) > 1:
        return {"labels": torch.randint(classes, (SAMPLES,), generator=generator)}
    return {}
