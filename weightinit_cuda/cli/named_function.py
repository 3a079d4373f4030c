"""``module:function`` and ``file.py:function``: a function of the user's own that makes a model."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from torch import nn

__all__ = ["NAMED_FUNCTION", "function_named"]

NAMED_FUNCTION = re.compile(r"(?P<module>[^:]*[^:/]):(?P<function>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)")


def function_named(source: str) -> Callable[[], nn.Module]:
    """The function (or class), to be called without arguments; what it raises is said in one sentence.

    Modules are looked for in the current folder first.

    Raises:
        ValueError: there is no such module or function, its code fails, or what it makes is no model.
    """
    match = NAMED_FUNCTION.fullmatch(source)
    if match is None:
        raise ValueError(f"module:function is required, got {source}.")
    module = _quoted(source, lambda: _module(match["module"]))
    found: object = module
    for name in match["function"].split("."):
        if not hasattr(found, name):
            raise ValueError(f"module:function is required, got {source}: {match['module']} has no {match['function']}.")
        found = getattr(found, name)
    if not callable(found):
        raise ValueError(f"a function that makes a model is required, got a thing of type {type(found).__name__} ({source}).")
    make: Callable[[], object] = found

    def made() -> nn.Module:
        model = _quoted(source, make)
        if not isinstance(model, nn.Module):
            what = type(model).__name__
            raise ValueError(
                f"a function that makes a model is required, got one that makes a thing of type {what} ({source})."
            )
        return model

    return made


def _module(name: str) -> ModuleType:
    file = Path(name)
    if file.suffix != ".py":
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(name)
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist")
    sys.path.insert(0, str(file.resolve().parent))  # for what it imports from beside it
    spec = spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = sys.modules[file.stem] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _quoted(source: str, call: Callable[[], object]) -> object:
    """Calls code of the user; what it raises becomes one sentence, with its line."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        last = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__][-1:]
        where = "".join(f", {Path(frame.filename).name} line {frame.lineno}" for frame in last if frame.filename[:1] != "<")
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"{source} fails: {type(error).__name__}{': ' if said else ''}{said}{where}.") from error
