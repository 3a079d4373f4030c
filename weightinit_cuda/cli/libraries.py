"""Configurations of transformers, diffusers and timm: which model they are of, built without a network and without their code.

The libraries are imported when a configuration is theirs. What they say goes wrong becomes one sentence.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import nn

from ..plans.entry import dtype_name

__all__ = ["NONE", "WEIGHTS", "Permissions", "builder_of", "is_configuration", "offline_unless", "written_config"]

# The files of weights that libraries read whole, without an index. transformers reads shards.
WEIGHTS = {"timm": "model.safetensors", "diffusers": "diffusion_pytorch_model.safetensors"}
Build = Callable[[], nn.Module]


class Permissions(NamedTuple):
    """What a configuration may do.

    Args:
        online: what it names may be downloaded.
        remote_code: Python files beside it may be run.
        bare: the bare model of its type may stand for a class that nobody knows.
    """

    online: bool = False
    remote_code: bool = False
    bare: bool = False


NONE = Permissions()


def is_configuration(data: Mapping[str, Any]) -> bool:
    """Whether the content of a ``config.json`` is one of a library that we know."""
    return any(key in data for key in ("model_type", "architectures", "_class_name", "architecture"))


def builder_of(file: Path, data: Mapping[str, Any], permissions: Permissions) -> Build:
    """A function that builds the configuration's model.

    Raises:
        ImportError: the library is not installed.
        ValueError: the library refuses the configuration, or its class is not known; the function raises that, too.
    """
    if "model_type" in data or "architectures" in data:
        library, find = "transformers", lambda: _of_transformers(file, permissions)
    elif "_class_name" in data:
        library, find = "diffusers", lambda: _of_diffusers(file, data)
    else:
        library, find = "timm", lambda: _of_timm(file, data)
    try:
        importlib.import_module(library)
    except Exception as error:
        raise ImportError(f"{file} needs {library}, which cannot be imported ({_said(error)}). pip install {library}") from None
    asked = _Asked(library, file, "auto_map" in data, permissions)
    build = _in_a_sentence(asked, find)
    return lambda: _in_a_sentence(asked, build)


@contextmanager
def offline_unless(online: bool) -> Iterator[None]:
    """Inside, hubs are not asked for anything, unless that is allowed."""
    if online:
        yield
        return
    name = "HF_HUB_OFFLINE"
    before = os.environ.get(name)
    constants: Any = sys.modules.get("huggingface_hub.constants")
    was_offline = getattr(constants, name, before in ("1", "ON", "YES", "TRUE"))
    os.environ[name] = "1"
    if constants is not None:  # which has read the environment already
        setattr(constants, name, True)
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
        if (constants := sys.modules.get("huggingface_hub.constants")) is not None:
            setattr(constants, name, was_offline)


def written_config(model: nn.Module | None, file: Path | None, dtype: torch.dtype | None) -> dict[str, bytes]:
    """The files of the model's configuration, as its library writes them."""
    made: Any = model
    with TemporaryDirectory() as folder:
        if hasattr(getattr(made, "config", None), "save_pretrained"):  # transformers
            if dtype is not None:
                made.config.dtype = dtype_name(dtype)
            made.config.architectures = [type(made).__name__]
            made.config.save_pretrained(folder)
        elif hasattr(made, "save_config"):  # diffusers
            made.save_config(folder)
        elif file is not None:
            Path(folder, "config.json").write_bytes(_as_timm_reads_it(file.read_bytes()))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _as_timm_reads_it(config: bytes) -> bytes:
    """Without a ``pretrained_cfg`` timm takes all of it for one, in which it knows no ``model_args``."""
    data = json.loads(config)
    whole = "pretrained_cfg" in data or "model_args" not in data
    return config if whole else json.dumps({**data, "pretrained_cfg": {}}, indent=2).encode()


# ---- libraries -------------------------------------------------------------------------------------------------------


def _of_transformers(file: Path, permissions: Permissions) -> Build:
    """The first of the ``architectures``, else the bare model of the type, which has no head to lose."""
    transformers: Any = importlib.import_module("transformers")
    place = file.parent if file.name == "config.json" else file  # code lies beside it
    config = transformers.AutoConfig.from_pretrained(str(place), trust_remote_code=permissions.remote_code)
    names = config.architectures or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"architectures must be a list of names, got {names!r:.100}")
    if not names:
        return lambda: _module(transformers.AutoModel.from_config(config))
    kind: Any = getattr(transformers, names[0], None)
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        return lambda: _module(kind(config))
    remote = [path for path in (getattr(config, "auto_map", None) or {}).values() if str(path).endswith(f".{names[0]}")]
    if remote and permissions.remote_code:
        dynamic: Any = importlib.import_module("transformers.dynamic_module_utils")
        kind = dynamic.get_class_from_dynamic_module(remote[0], str(place))
        return lambda: _module(kind(config))
    if not permissions.bare:
        where = (
            "code beside the configuration, which runs with --trust-remote-code only" if remote else "no class of transformers"
        )
        raise ValueError(f"the class {names[0]} is {where}. --bare takes the model of its type without a head")
    return lambda: _module(transformers.AutoModel.from_config(config))


def _of_diffusers(file: Path, data: Mapping[str, Any]) -> Build:
    diffusers: Any = importlib.import_module("diffusers")
    kind = getattr(diffusers, str(data["_class_name"]), None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"_class_name must be a model of diffusers, got {data['_class_name']!r:.100}")
    made: Any = kind
    return lambda: _module(made.from_config(dict(data)))


def _of_timm(file: Path, data: Mapping[str, Any]) -> Build:
    timm: Any = importlib.import_module("timm")
    name, more = data["architecture"], dict(data.get("model_args") or {})
    if not isinstance(name, str) or not timm.is_model(name.split(".")[0]):
        raise ValueError(f"architecture must be a model of timm, got {name!r:.100}")
    classes = data.get("num_classes", (data.get("pretrained_cfg") or {}).get("num_classes"))
    more |= {} if classes is None else {"num_classes": classes}
    return lambda: _module(timm.create_model(name.split(".")[0], pretrained=False, **more))


def _module(made: object) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise ValueError(f"the configuration makes a {type(made).__name__}, which is no model")
    return made


# ---- errors ----------------------------------------------------------------------------------------------------------

_NETWORK = ("OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectError", "ConnectionError", "ConnectTimeout", "URLError")


class _Asked(NamedTuple):
    """What a library is asked for."""

    library: str
    file: Path
    has_code: bool
    permissions: Permissions


def _in_a_sentence(asked: _Asked, call: Callable[[], Any]) -> Any:
    """Makes the call into the library; whatever it raises is a ValueError of one sentence."""
    library, file, has_code, permissions = asked
    try:
        return call()
    except (Exception, SystemExit) as error:
        said = _said(error)
        if any(kind.__name__ in _NETWORK for one in _chain(error) for kind in type(one).__mro__):
            way = "The network did not answer" if permissions.online else "Nothing is downloaded without --online"
            said = f"{file} needs files that are not on this machine. {way} ({library}: {said.partition(': offline mode')[0]})."
        elif has_code and not permissions.remote_code and "trust_remote_code" in str(error):
            said = f"{file} comes with code of its own, which is run with --trust-remote-code only."
        else:
            said = f"{library} cannot build the model of {file}: {said}."
        raise ValueError(said) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it comes from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _said(error: BaseException) -> str:
    """The error in a line; its type where that is not said otherwise."""
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, ValueError) and text else type(error).__name__ + (": " if text else "")
    return (kind + text.rstrip(". "))[:300]
