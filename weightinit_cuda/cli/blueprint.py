"""What the command line is given instead of a model: a plan that was saved, or the configuration of a model of transformers.

A configuration is built under ``deferred()``, so that nothing of the model's size is allocated; its plan is then that of the
model's own code, or of rules.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..plans.plan import Plan, plan
from ..recording.deferred import Recording, deferred
from ..rules import Rules

__all__ = ["Blueprint", "open_blueprint"]


class Blueprint(NamedTuple):
    """A plan; and where it was made of a configuration, what else is known.

    Args:
        plan: the plan.
        model: on meta.
        recorded: its construction.
        values: gives tensors whose values the plan does not say.
    """

    plan: Plan
    model: nn.Module | None = None
    recorded: Recording | None = None
    values: Callable[[str], Tensor] | None = None

    @property
    def names(self) -> list[str]:
        """Of the tensors that belong in a checkpoint: of a model, not the buffers that are not persistent."""
        kept = None if self.model is None else self.model.state_dict().keys()
        return [name for name in self.plan.names() if kept is None or name in kept]

    def save_config(self, folder: Path) -> bool:
        """Writes the configuration as transformers reads it, in the plan's dtype; False if there is none."""
        config: Any = getattr(self.model, "config", None)
        if config is None:
            return False
        dtypes = {entry.dtype for entry in self.plan if not entry.buffer and entry.dtype.is_floating_point}
        if len(dtypes) == 1:
            config.dtype = str(dtypes.pop()).removeprefix("torch.")
        config.architectures = [type(self.model).__name__]
        config.save_pretrained(folder)
        return True


def open_blueprint(
    path: str | Path, rules: Rules | None = None, seed: int | None = None, dtype: torch.dtype | None = None
) -> Blueprint:
    """Reads a file of ``plan.save()``, or a ``config.json`` of transformers (or a folder with one).

    Args:
        path: of the file or folder; nothing is downloaded.
        rules: for a configuration: a set's name or a list of them, instead of the model's own code. What they do not speak of
            (buffers, mostly) stays as the code has it.
        seed: default the plan's, or 0.
        dtype: of floating-point tensors; default the plan's or the configuration's.

    Raises:
        FileNotFoundError, ImportError: no such file, or no transformers.
        ValueError: it is neither; no rule covers a parameter; or the code leaves one unwritten and there are no rules.
    """
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    data = _json(file)
    if "model_type" in data or "architectures" in data:
        return _of_config(file, data, rules, seed or 0, dtype)
    if data.get("library") != "weightinit_cuda":
        raise ValueError(
            f"a plan of this library, or a config.json of transformers with a model_type, is required, got {file}."
        )
    if rules is not None:
        raise ValueError(f"rules belong to a config.json, got {rules} and a plan ({file}).")
    made = Plan.load(file)
    made = made if seed is None else made.with_seed(seed)
    return Blueprint(made if dtype is None else made.with_dtype(dtype))


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"a JSON file is required, got {error} ({file}).") from None
    if not isinstance(data, dict):
        raise ValueError(f"a JSON object is required, got a {type(data).__name__} ({file}).")
    return data


def _of_config(file: Path, data: dict[str, Any], rules: Rules | None, seed: int, dtype: torch.dtype | None) -> Blueprint:
    model, recorded = _recorded(file)
    dtype = dtype or _dtype(data.get("dtype", data.get("torch_dtype")))
    made = recorded.plan(model, seed, rules=rules)
    if rules is not None:
        own, made = made, plan(model, rules, seed)
        made = Plan((*made, *(entry for entry in own if entry.name not in made)), seed, made.rules)
    values = recorded.values(model, seed, dtype=dtype, rules=rules)
    return Blueprint(made if dtype is None else made.with_dtype(dtype), model, recorded, values)


def _recorded(file: Path) -> tuple[nn.Module, Recording]:
    """The model that the configuration is of: the first of its ``architectures``, else the bare model of its type."""
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            f"a config.json needs transformers, which cannot be imported ({error}). pip install transformers"
        ) from None
    config = transformers.AutoConfig.from_pretrained(str(file), trust_remote_code=False)
    found = [kind for name in config.architectures or () if (kind := getattr(transformers, name, None)) is not None]
    with deferred() as recorded:
        model: nn.Module = found[0](config) if found else transformers.AutoModel.from_config(config)
    return model, recorded


def _dtype(name: str | None) -> torch.dtype | None:
    dtype = None if name is None else getattr(torch, str(name).removeprefix("torch."), None)
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else None
