"""The libraries of the zoo and how each builds a model of a configuration: offline, with random weights.

Most configurations are Python, evaluated with the names of their library. Those of transformers are a type and a class; the
type's default configuration is made small by one table of sizes.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["LIBRARIES", "Build", "builder", "configurations", "version"]

Build = Callable[[], nn.Module]
_FILE = Path(__file__).with_name("configurations.json")
# Each library and the modules whose names its configurations use.
LIBRARIES = {
    "torch": ("torch.nn",),
    "transformers": ("transformers",),
    "timm": ("timm",),
    "torch_geometric": ("torch_geometric.nn", "torch_geometric.nn.models"),
    "diffusers": ("diffusers",),
    "e3nn": ("e3nn.o3", "e3nn.nn", "e3nn.nn.models.v2106.gate_points_networks"),
    "peft": ("transformers", "peft"),
}


def configurations(library: str) -> list[str]:
    """The names of its configurations, in the order of the file."""
    return list(_data()[library])


def version(library: str) -> str:
    """Of the library that is installed.

    Raises:
        Exception: whatever its import raises.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    made: Any = importlib.import_module(library)
    for module in LIBRARIES[library]:
        importlib.import_module(module)
    return str(made.__version__)


def builder(library: str, configuration: str) -> Build:
    """What builds the model. Modules are imported here, and not when the model is built."""
    version(library)
    if library == "transformers":
        return _of_transformers(configuration, _data()[library][configuration])
    if library == "timm":
        return partial(importlib.import_module("timm").create_model, configuration, pretrained=False)
    return _evaluated(library, configuration)


def _data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found


def _evaluated(library: str, expression: str) -> Build:
    """A model by Python, put into what is around it in the file."""
    expression = _data()["around"].get(library, "{}").format(expression)
    names: dict[str, Any] = {"torch": torch, "nn": nn}
    for module in LIBRARIES[library]:
        made = importlib.import_module(module)
        names |= {name: getattr(made, name) for name in dir(made) if name in expression}
    code = compile(expression, library, "eval")

    def build() -> nn.Module:
        model = eval(code, names)  # of the file beside this one
        assert isinstance(model, nn.Module)
        return model

    return build


def _of_transformers(kind: str, name: str) -> Build:
    transformers: Any = importlib.import_module("transformers")
    transformers.logging.set_verbosity_error()
    config = transformers.CONFIG_MAPPING[kind]
    arguments, make = _small(config), getattr(transformers, name)

    def build() -> nn.Module:
        model = make(config(**arguments))
        assert isinstance(model, nn.Module)
        return model

    return build


def _small(config: Any) -> dict[str, Any]:
    """Arguments for a small one: sizes of the table that it has, and so for the configurations inside."""
    names = set(inspect.signature(config.__init__).parameters) | set(getattr(config, "__dataclass_fields__", ()))
    names -= set(getattr(config, "attribute_map", None) or ())
    usual = config()
    numbers = {
        name: value for name, value in _data()["sizes"].items() if name in names and _is_number(getattr(usual, name, None))
    }
    inner = {name: sub for name, sub in (getattr(config, "sub_configs", None) or {}).items() if name in names}
    return numbers | {name: _small(sub) for name, sub in inner.items() if sub.__name__ != "AutoConfig"}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
