"""What the command line is given instead of a model: a plan that was saved, a configuration, or a function that makes a model.

A model is built under ``deferred()``, so that nothing of its size is allocated; its plan is then that of the model's own code,
or of rules.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..plans.by_rules import plan
from ..plans.plan import Plan
from ..plans.whole_file import read_whole
from ..recording.deferred import Recording, deferred
from ..rules import Rules
from .libraries import NONE, WEIGHTS, Permissions, builder_of, is_configuration, offline_unless, written_config
from .named_function import NAMED_FUNCTION, function_named
from .saved_names import SavedNames, saved_names

__all__ = ["Blueprint", "floating_dtype", "open_blueprint"]


class Blueprint(NamedTuple):
    """A plan; and where it was made of a model, what else is known.

    Args:
        plan: the plan.
        model: on meta.
        recorded: its construction.
        values: gives tensors whose values the plan does not say.
        config: the configuration's file.
        saved: how the library that made the model names its tensors in files; None if as the plan does.
    """

    plan: Plan
    model: nn.Module | None = None
    recorded: Recording | None = None
    values: Callable[[str], Tensor] | None = None
    config: Path | None = None
    saved: SavedNames | None = None

    @property
    def names(self) -> list[str]:
        """Of the tensors that belong in a checkpoint: of a model, not the buffers that are not persistent."""
        kept = None if self.model is None else self.model.state_dict().keys()
        return [name for name in self.plan.names() if kept is None or name in kept]

    def in_files(self) -> Blueprint:
        """The same under the names that the library gives the tensors in files."""
        if self.saved is None or self.values is None:
            return self
        plan, values = self.saved.renamed(self.plan, self.names, self.values)
        return self._replace(plan=plan, values=values, model=None, saved=None)

    @property
    def weights(self) -> str:
        """The one file that the library reads; empty if it reads shards."""
        return WEIGHTS.get(_library_of(self.model), "")

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating-point dtype of all parameters; None if there are several."""
        dtypes = {entry.dtype for entry in self.plan if not entry.buffer and entry.dtype.is_floating_point}
        return dtypes.pop() if len(dtypes) == 1 else None

    def config_files(self) -> dict[str, bytes]:
        """The configuration as its library reads it, in the plan's dtype, by name of the file; none if there is none."""
        return written_config(self.model, self.config, self.dtype)


def open_blueprint(
    source: str | Path,
    rules: Rules | None = None,
    seed: int | None = None,
    dtype: torch.dtype | None = None,
    permissions: Permissions = NONE,
    unwritten: Rules | None = None,
) -> Blueprint:
    """Reads a file of ``plan.save()`` or a ``config.json`` of transformers, diffusers or timm (or a folder with one), or calls
    a function that makes a model.

    Args:
        source: the file or folder, ``module:function`` or ``file.py:function``.
        rules: of a model: a set's name or a list of them, instead of the model's own code. What they do not speak of
            (buffers, mostly) stays as the code has it.
        seed: default the plan's, or 0.
        dtype: of floating-point tensors; default the plan's or the configuration's.
        permissions: what a configuration may do. By default nothing is downloaded and no code runs that came with it.
        unwritten: rules for tensors that the model's code allocates and never writes, where ``rules`` are not given.

    Raises:
        FileNotFoundError, ImportError: no such file, or the library is not installed.
        ValueError: it is none of these; the model cannot be built; no rule covers a parameter; or the code leaves one unwritten
            and there are no rules for it.
    """
    if NAMED_FUNCTION.fullmatch(str(source)) and not Path(source).exists():
        make = function_named(str(source))  # its module is imported as it is
        with deferred() as recorded:
            model = make()
        return _of_model(model, recorded, rules, unwritten, seed or 0, dtype)
    file = Path(source) / "config.json" if Path(source).is_dir() else Path(source)
    data = _json(file)
    if is_configuration(data):
        with offline_unless(permissions.online):
            build = builder_of(file, data, permissions)
            with deferred() as recorded:
                model = build()
        dtype = dtype or floating_dtype(data.get("dtype", data.get("torch_dtype")))
        made = _of_model(model, recorded, rules, unwritten, seed or 0, dtype)
        return made._replace(config=file)
    if data.get("library") != "weightinit_cuda":
        raise ValueError(
            "a plan of this library, or a config.json of transformers (with a model_type), diffusers (_class_name) or timm"
            f" (architecture) is required, got {file}."
        )
    if rules is not None:
        raise ValueError(f"rules belong to a model, got {rules} and a plan ({file}).")
    saved = Plan.load(file)
    saved = saved if seed is None else saved.with_seed(seed)
    return Blueprint(saved if dtype is None else saved.with_dtype(dtype))


def _json(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise FileNotFoundError(f"a file, or module:function, is required, got {file}, which does not exist.")
    if file.suffix == ".py":
        raise ValueError(f"a function of the file is required, got {file}. Name it: {file}:function.")
    text = read_whole(file)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "one that is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"a JSON file is required, got {what} ({file}).") from None
    if not isinstance(data, dict):
        raise ValueError(f"a JSON object is required, got a {type(data).__name__} ({file}).")
    return data


def _of_model(
    model: nn.Module,
    recorded: Recording,
    rules: Rules | None,
    unwritten: Rules | None,
    seed: int,
    dtype: torch.dtype | None,
) -> Blueprint:
    unwritten = unwritten if rules is None else rules
    made = recorded.plan(model, seed, rules=unwritten)
    if rules is not None:
        own, made = made, plan(model, rules, seed)
        made = Plan((*made, *(entry for entry in own if entry.name not in made)), seed, made.rules)
    values = recorded.values(model, seed, dtype=dtype, rules=unwritten)
    made = made if dtype is None else made.with_dtype(dtype)
    return Blueprint(made, model, recorded, values, saved=saved_names(model) if _library_of(model) == "transformers" else None)


def _library_of(model: nn.Module | None) -> str:
    bases: Sequence[type] = () if model is None else type(model).__mro__
    return next((top for base in bases if (top := base.__module__.split(".")[0]) in ("transformers", "diffusers", "timm")), "")


def floating_dtype(name: object) -> torch.dtype | None:
    """The floating-point dtype of that name; None if there is none."""
    dtype = getattr(torch, name.removeprefix("torch."), None) if isinstance(name, str) else None
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else None
