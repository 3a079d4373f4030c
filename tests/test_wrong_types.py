"""Every public callable with arguments of wrong types: 2,000 calls, each of which works, or is refused in words.

Each parameter in turn gets each value of a table, all others being right. What is refused is a TypeError or a ValueError that
names the function, never what some line inside stumbles over; where torch has a twin, its type of exception is torch's. After
an error the bytes of all tensors are what they were, and no file is there.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Normal
from weightinit_cuda.plans.entry import Entry

WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "0": lambda: 0,
    "-1": lambda: -1,
    "2**70": lambda: 2**70,
    "2.5": lambda: 2.5,
    "nan": lambda: float("nan"),
    "1j": lambda: 1j,
    "text": lambda: "no such thing",
    "empty text": lambda: "",
    "bytes": lambda: b"bytes",
    "list": lambda: [3, "x"],
    "empty list": list,
    "dict": lambda: {"weight": 3},
    "odd keys": lambda: {3: torch.zeros(2)},
    "set": lambda: {1.5},
    "object": object,
    "class": lambda: nn.Linear,
    "function": lambda: lambda *_: 3,
    "dtype": lambda: torch.float32,
    "tensor": lambda: torch.zeros(2),
    "module": nn.ReLU,
    "slice": lambda: slice(None),
    "generator": torch.Generator,
}
# What Python and torch say of a wrong argument that nobody looked at.
STUMBLES = re.compile(
    r"has no attribute|object is not (iterable|callable|subscriptable)|expected str, bytes or os\.PathLike|must be real number"
    r"|unsupported operand|not supported between|unhashable|argument of type|cannot unpack|unexpected keyword"
    r"|takes \d+ positional"
    r"|cannot be interpreted as an integer|object cannot be converted|could not convert|indices must be|required positional"
    r"|maximum recursion|is not a (mapping|sequence)|float\(\) argument|int\(\) argument|not enough values"
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))


def plan() -> wi.Plan:
    return wi.plan(network(), "xavier", seed=0)


def recorded() -> tuple[wi.Recording, nn.Module]:
    with wi.deferred() as recording:
        net = network()
    return recording, net


def _recording_of(method: str) -> Callable[..., Any]:
    """The method of a new recording; its model, if none is given, is of that."""

    def call(model: Any = ..., **others: Any) -> Any:
        recording, own = recorded()
        return getattr(recording, method)(own if model is ... else model, **others)

    return call


# Public callables with right arguments, made anew for each call. `...` stands for "left out" where the call above fills it in.
CALLS: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    "plan": (wi.plan, lambda: {"model": network(), "rules": "xavier", "seed": 0, "prefix": ""}),
    "initialize_": (wi.initialize_, lambda: {"model": network(), "rules": "xavier", "seed": 0, "prefix": ""}),
    "apply_": (lambda **a: plan().apply_(**a), lambda: {"model": network(), "seed": 0}),
    "bind": (lambda **a: plan().bind(**a), lambda: {"model": network()}),
    "jobs": (lambda **a: plan().jobs(**a), lambda: {"tensors": dict(network().named_parameters()), "seed": 0}),
    "with_seed": (lambda **a: plan().with_seed(**a), lambda: {"seed": 0}),
    "with_dtype": (lambda **a: plan().with_dtype(**a), lambda: {"dtype": torch.float16}),
    "diff": (lambda **a: plan().diff(**a), lambda: {"other": plan()}),
    "from_json": (wi.Plan.from_json, lambda: {"text": plan().to_json(), "where": "here"}),
    "save": (lambda **a: plan().save(**a), lambda: {"path": "saved.json"}),
    "load": (wi.Plan.load, lambda: {"path": "init.json"}),
    "Plan": (wi.Plan, lambda: {"entries": plan().entries, "seed": 0, "rules": "custom", "format": 1, "version": "1"}),
    "Entry in a plan": (
        lambda **a: wi.Plan((Entry(**a),)),
        lambda: {
            "name": "w",
            "shape": (2,),
            "dtype": torch.float32,
            "distribution": Normal(0.0, 1.0),
            "stream": 3,
            "source": "here",
            "box": None,
            "aliases": (),
            "buffer": False,
        },
    ),
    "fingerprint": (wi.fingerprint, lambda: {"model": network(), "buffers": "all"}),
    "verify": (
        wi.verify,
        lambda: {"plan": plan(), "checkpoint": network(), "seed": 0, "ignore": (), "values": None, "progress": abs},
    ),
    "export": (
        wi.export,
        lambda: {
            "plan": plan(),
            "path": "out.safetensors",
            "seed": 0,
            "shard_bytes": 10**9,
            "names": None,
            "values": None,
            "progress": abs,
            "overwrite": True,
            "also": None,
            "note": len,
        },
    ),
    "regenerate": (wi.regenerate, lambda: {"plan": plan(), "name": "0.weight", "index": 0, "seed": 0, "device": "cpu"}),
    "restore_": (wi.restore_, lambda: {"model": network(), "plan": plan(), "names": None, "mask": None, "seed": 0}),
    "add_noise_": (wi.add_noise_, lambda: {"model": network(), "scale": 0.1, "seed": 0}),
    "lerp_to_init_": (wi.lerp_to_init_, lambda: {"model": network(), "plan": plan(), "weight": 0.5}),
    "bits": (wi.bits, lambda: {"seed": 0, "stream": 0, "n": 2, "start": 0}),
    "diagnose": (wi.diagnose, lambda: {"plan": plan(), "model": network(), "recorded": None}),
    "examine": (wi.examine, lambda: {"checkpoint": network(), "progress": abs}),
    "recorded.plan": (_recording_of("plan"), lambda: {"model": ..., "seed": 0, "rules": None}),
    "materialize_": (_recording_of("materialize_"), lambda: {"model": ..., "device": "cpu", "dtype": None, "seed": 0}),
    "values": (_recording_of("values"), lambda: {"model": ..., "seed": 0, "dtype": None}),
    "unwritten": (_recording_of("unwritten"), lambda: {"model": ...}),
    "Rule": (wi.Rule, lambda: {"match": "*", "init": "zeros_"}),
}


def _shaped(name: str) -> dict[str, Any]:
    """Right arguments of a function of init."""
    more: dict[str, Any] = {
        "constant_": {"val": 1.0},
        "sparse_": {"sparsity": 0.5},
    }.get(name, {})
    return {"tensor": torch.zeros(4, 4) if name != "delta_orthogonal_" else torch.zeros(4, 4, 3), **more}


def _init_calls() -> Iterator[tuple[str, Callable[..., Any], Callable[[], dict[str, Any]]]]:
    for name in wi.init.__all__:
        if not name.endswith("_"):
            continue
        function = getattr(wi.init, name)
        named = inspect.signature(function).parameters.values()
        defaults = {one.name: one.default for one in named if one.default is not one.empty}
        yield f"init.{name}", function, lambda name=name, defaults=defaults: {**defaults, **_shaped(name)}


ALL = [*((name, function, right) for name, (function, right) in CALLS.items()), *_init_calls()]
CASES = [(name, function, right, parameter) for name, function, right in ALL for parameter in right()]


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.state_dict().values()
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)


def bytes_of(arguments: dict[str, Any]) -> list[bytes]:
    return [
        bytes(one.detach().view(torch.uint8).flatten().tolist())
        for v in arguments.values()
        for one in tensors_in(v)
        if one.dim()
    ]


def twin_of(name: str, parameter: str) -> Callable[..., Any] | None:
    """The function of torch that takes the parameter, too."""
    if (name, parameter) == ("init.delta_orthogonal_", "gain"):
        return nn.init.orthogonal_
    twin = getattr(nn.init, name.removeprefix("init."), None) if name.startswith("init.") else None
    return twin if twin is not None and parameter in inspect.signature(twin).parameters else None


def outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> Exception | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**arguments)
        except Exception as error:
            return error
    return None


@pytest.mark.parametrize(("name", "function", "right", "parameter"), CASES, ids=[f"{case[0]}-{case[3]}" for case in CASES])
def test_wrong_types(
    name: str, function: Callable[..., Any], right: Any, parameter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan().save("init.json")
    faults = []
    for kind, make in WRONG.items():
        if (parameter, kind) == ("progress", "class"):
            continue  # the class is called, as any function is, and what it says is its own
        arguments = {**right(), parameter: make()}
        before = bytes_of(arguments)
        error = outcome(function, arguments)
        if error is None:
            continue
        if bytes_of(arguments) != before:
            faults.append(f"{kind}: written, and then {error!r:.150}")
        if twin := twin_of(name, parameter):
            shared = inspect.signature(twin).parameters
            torchs = outcome(twin, {key: value for key, value in {**right(), parameter: make()}.items() if key in shared})
            if torchs is not None and type(torchs) is not type(error):
                faults.append(f"{kind}: {error!r:.150}, where torch has {torchs!r:.100}")
            continue
        known = (TypeError, ValueError, KeyError, IndexError, OSError, NotImplementedError, RuntimeError)
        if not isinstance(error, known) or STUMBLES.search(str(error)):
            faults.append(f"{kind}: {error!r:.200}")
    assert {path.name for path in tmp_path.iterdir()} <= {"init.json", "saved.json", "no such thing", "out.safetensors"}
    assert not faults, "\n".join([f"{name}({parameter}=...)", *faults])


def test_there_are_two_thousand_calls() -> None:
    assert len(CASES) * len(WRONG) >= 2000


def test_every_public_callable_is_called() -> None:
    """Those that are left out run a model, or other processes."""
    left_out = {"check_ranks", "coordinate_check", "data_dependent_", "deferred", "probe", "patch", "patched", "unpatch"}
    results = {
        "BackendInfo",
        "CoordinateCheck",
        "ProbeReport",
        "Recording",
        "Report",
        "Symptom",
        "FillJob",
        "Region",
        "RuleSet",
    }
    called = {name.rpartition(".")[2] for name in CALLS} | {"Entry"}
    public = {name for name in wi.__all__ if callable(getattr(wi, name))}
    assert public - called - left_out - results == {"backend_info"}
