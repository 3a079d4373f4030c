"""The models: class, published sizes, dtype. Building one needs transformers; nothing is downloaded, no weights are read."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

__all__ = ["MODELS", "build", "file_name"]

# Name: class of model and of configuration, the published sizes, what makes a thin copy (for generate.py), dtype of training.
# Sizes: microsoft/resnet-50, google/vit-large-patch16-224, openai-community/gpt2 and gpt2-xl, meta-llama/Meta-Llama-3-8B,
# mistralai/Mixtral-8x7B-v0.1, deepseek-ai/DeepSeek-V2-Lite (16 B parameters, 64 experts of which 6 are used, 2 shared).
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], str]] = {
    "ResNet-50": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3], "num_labels": 1000},
        {},
        "float32",
    ),
    "ViT-L": (
        "ViTForImageClassification",
        "ViTConfig",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "num_labels": 1000,
        },
        {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 2},
        "float32",
    ),
    "GPT-2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {},
        {"n_embd": 12, "vocab_size": 32, "n_positions": 16},
        "float32",
    ),
    "GPT-2 XL": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 1600, "n_layer": 48, "n_head": 25},
        {"n_embd": 16, "n_head": 2, "vocab_size": 32, "n_positions": 16},
        "float32",
    ),
    "Llama-3-8B": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2},
        "bfloat16",
    ),
    "Mixtral-8x7B": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
        },
        {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2},
        "bfloat16",
    ),
    "DeepSeek-V2-Lite": (
        "DeepseekV2ForCausalLM",
        "DeepseekV2Config",
        {
            "vocab_size": 102400,
            "hidden_size": 2048,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "q_lora_rank": None,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "first_k_dense_replace": 1,
        },
        {
            "vocab_size": 32,
            "hidden_size": 32,
            "intermediate_size": 16,
            "moe_intermediate_size": 8,
            "kv_lora_rank": 8,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
        },
        "bfloat16",
    ),
}


def build(name: str, changes: dict[str, Any] | None = None) -> nn.Module:
    """The model, initialised by its own code, on the device and in the dtype that are torch's defaults.

    Args:
        name: of MODELS.
        changes: entries of the configuration that differ from the published ones.
    """
    transformers: Any = importlib.import_module("transformers")
    model, config, sizes, _, _ = MODELS[name]
    made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**(sizes | (changes or {}))))
    return made


def file_name(name: str) -> str:
    """Of the table: Llama-3-8B -> llama-3-8b.json."""
    return name.lower().replace(" ", "-") + ".json"
