"""Files that nobody sane would write: each gets an answer or a ValueError, in a time that follows from its size."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weightinit_cuda as wi
from weightinit_cuda.checkpoints import files
from weightinit_cuda.checkpoints.export import export
from weightinit_cuda.checkpoints.verify import Report, verify
from weightinit_cuda.numerics.distributions import Computed, Constant, Normal
from weightinit_cuda.plans.plan import Plan

safetensors = pytest.importorskip("safetensors.torch")
PLAN = Plan(tuple(wi.Entry(name, (4, 6), torch.float32, Normal(0.0, 1.0), 1, "") for name in ("0.weight", "1.bias")))
HUGE = Plan((wi.Entry("w", (2**40, 2**20), torch.uint8, Constant(0), 1, ""),))


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def expanded(path: Path) -> None:
    torch.save({"w": torch.zeros(1, dtype=torch.uint8).expand(2**40, 2**20)}, path)


def overlapping(path: Path) -> None:
    torch.save({"w": torch.zeros(9).as_strided((2**20, 5), (0, 1))}, path)


def index(**places: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({"weight_map": places}))


# A file by what is at its name, and the words that refuse it.
FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a pipe": ("a.safetensors", os.mkfifo, "a regular file is required"),
    "a pipe as an old file": ("a.pt", os.mkfifo, "a regular file is required"),
    "a pipe as an index": ("a.index.json", os.mkfifo, "a regular file is required"),
    "a device": ("a.pt", lambda path: path.symlink_to("/dev/zero"), "a regular file is required"),
    "expanded": ("a.pt", expanded, "must have all its elements, got w expanded"),
    "overlapping": ("a.pt", overlapping, "must have all its elements, got w expanded"),
    "integers as names": ("a.pt", lambda path: torch.save({3: torch.zeros(1)}, path), "names must be text, got 3"),
    "a deep pickle": ("a.pt", lambda path: path.write_bytes(b"(" * 100_000 + b"."), "a file of safetensors or torch.save"),
    "another pickle": ("a.pt", lambda path: path.write_bytes(pickle.dumps({"w": Path("x")})), "safetensors or torch.save"),
    "a cut zip": ("a.pt", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "safetensors or torch.save"),
    "an empty file": ("a.pt", lambda path: path.write_bytes(b""), "safetensors or torch.save"),
    "a deep header": (
        "a.safetensors",
        lambda path: path.write_bytes(header(b'{"w":' * 10_000)),
        "a safetensors file is required",
    ),
    "a long header": (
        "a.safetensors",
        lambda path: path.write_bytes(struct.pack("<Q", 2**63)),
        "a safetensors file is required",
    ),
    "a deep index": ("a.index.json", lambda path: path.write_bytes(b"[" * 100_000), "an index with a"),
    "an index of nothing": ("a.index.json", lambda path: path.write_bytes(b"[]"), "an index with a"),
    "an index of numbers": ("a.index.json", index(w=3), "must name files with tensors in its folder, got 3"),
    "an index of a list": ("a.index.json", lambda path: path.write_text('{"weight_map": ["a"]}'), "an index with a"),
    "an index that is no text": ("a.index.json", lambda path: path.write_bytes(b"\xff\xfe{"), "an index with a"),
    "an index of its folder": ("a.index.json", index(w="."), "must name files with tensors"),
    "an index of no name": ("a.index.json", index(w=""), "must name files with tensors"),
    "an index of itself": ("a.index.json", index(w="a.index.json"), "must name files with tensors"),
    "an index of above": ("a.index.json", index(w="../a.safetensors"), "must name files with tensors"),
    "an index of above within": ("a.index.json", index(w="b/../../a.safetensors"), "must name files with tensors"),
    "an absolute index": ("a.index.json", index(w="/etc/passwd"), "must name files with tensors"),
    "an index with a zero": ("a.index.json", index(w="a\0b"), "must name files with tensors"),
}


@pytest.mark.parametrize("case", FILES)
def test_files(case: str, tmp_path: Path) -> None:
    name, make, words = FILES[case]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=words) as caught:
        verify(HUGE, tmp_path / name)
    assert len(str(caught.value)) < 1000


def test_shards_that_are_no_files(tmp_path: Path) -> None:
    index(w="sub")(tmp_path / "a.index.json")
    with pytest.raises(FileNotFoundError, match="every shard of the index must be there, got none at sub"):
        verify(PLAN, tmp_path / "a.index.json")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match="a regular file is required"):
        verify(PLAN, tmp_path / "a.index.json")
    (tmp_path / "sub").rmdir()
    (tmp_path / "sub").symlink_to(tmp_path / "sub")
    with pytest.raises((ValueError, OSError)):
        verify(PLAN, tmp_path / "a.index.json")


def test_shards_may_be_links_and_lie_deeper(tmp_path: Path) -> None:
    """As caches of hubs have them."""
    (blobs := tmp_path / "blobs").mkdir()
    (folder := tmp_path / "snapshot" / "sub").mkdir(parents=True)
    (made,) = export(PLAN, blobs / "made.safetensors")
    (folder / "a.safetensors").symlink_to(made)
    index(**dict.fromkeys(PLAN.names(), "sub/a.safetensors"))(tmp_path / "snapshot" / "a.safetensors.index.json")
    assert verify(PLAN, tmp_path / "snapshot").ok


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for every tensor: of n tensors that would take a time of n**2."""
    plan = Plan(tuple(wi.Entry(f"{i}", (4,), torch.float32, Constant(0.0), 1, "") for i in range(200)))
    (file,) = export(plan, tmp_path / "a.safetensors")
    opened = 0
    safe_open = files._safe_open

    def counted(path: Path) -> Any:
        nonlocal opened
        opened += 1
        return safe_open(path)

    monkeypatch.setattr(files, "_safe_open", counted)
    assert verify(plan, file).ok
    assert opened == 1


# ---- tensors in memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 40], ids=["freed", "too small"])
def test_storage_that_is_not_there(size: int) -> None:
    tensors = {name: torch.zeros(4, 6) for name in PLAN.names()}
    tensors["1.bias"].untyped_storage().resize_(size)
    with pytest.raises(ValueError, match=r"a strided tensor with memory, got 1\.bias \(the mapping\)"):
        verify(PLAN, tensors)
    with pytest.raises(ValueError, match="have memory"):
        wi.fingerprint(tensors)


def test_expanded_tensors_in_memory_are_compared() -> None:
    plan = Plan((wi.Entry("w", (4, 6), torch.float32, Constant(2.0), 1, ""),))
    assert verify(plan, {"w": torch.full((1,), 2.0).expand(4, 6)}).ok


# ---- arguments that mean something else ------------------------------------------------------------------------------


def filled() -> dict[str, torch.Tensor]:
    return PLAN.apply_({name: torch.zeros(4, 6) for name in PLAN.names()})


def test_ignore_takes_one_glob_or_several() -> None:
    wrong = {**filled(), "1.bias": torch.zeros(4, 6)}
    assert verify(PLAN, wrong, ignore="*.bias").counts == {"equal": 1}
    assert verify(PLAN, wrong, ignore="*.bias").ok
    assert verify(PLAN, wrong, ignore=["*.bias"]).ok
    assert not verify(PLAN, wrong, ignore="bias").ok
    for strange in (3, [3], [b"*"], None):
        with pytest.raises(TypeError, match="ignore must be globs of names"):
            verify(PLAN, wrong, ignore=strange)  # type: ignore[arg-type]


def test_nothing_compared_is_never_equal() -> None:
    report = verify(PLAN, filled(), ignore="*")
    assert not report.ok
    assert report.summary() == "0 tensors: nothing was compared"
    assert not Report(()).ok
    computed = Plan((wi.Entry("w", (4,), torch.float32, Computed("arange"), 1, ""),))
    report = verify(computed, {"w": torch.arange(4.0)})
    assert not report.ok
    assert report.summary() == "1 tensors: 1 unchecked, nothing was compared"


def test_names_to_export_are_names(tmp_path: Path) -> None:
    (file,) = export(PLAN, tmp_path / "a.safetensors", names="0.weight")
    assert list(safetensors.load_file(file)) == ["0.weight"]
    for wrong in ("0.weight 1.bias", ["0.weight", "weight"], "*"):
        with pytest.raises(ValueError, match=r"names of the plan are required, got '"):
            export(PLAN, tmp_path / "b.safetensors", names=wrong)
    assert not (tmp_path / "b.safetensors").exists()


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    plan = Plan((wi.Entry("__metadata__", (4,), torch.float32, Constant(0.0), 1, ""),))
    plan.apply_({"__metadata__": torch.ones(4)})
    with pytest.raises(ValueError, match="a name that safetensors can store is required, got '__metadata__'"):
        export(plan, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["seed", "stream", "n", "start"])
def test_raw_words_take_integers_of_64_bits(argument: str) -> None:
    """As ``init`` does, and as torch.manual_seed."""
    given: dict[str, Any] = {"seed": 1, "stream": 2, "n": 4, "start": 8}
    expected = wi.bits(**given)
    assert torch.equal(wi.bits(**{**given, argument: np.int64(given[argument])}).long(), expected.long())
    for wrong, error in ((True, TypeError), (1.0, TypeError), ("1", TypeError), (2**70, ValueError), (-(2**64), ValueError)):
        with pytest.raises(error, match=f"bits: {argument} must be"):
            wi.bits(**{**given, argument: wrong})
    assert torch.equal(wi.bits(-1, 2, 4).long(), wi.bits(2**64 - 1, 2, 4).long())


# ---- any bytes -------------------------------------------------------------------------------------------------------


def damaged(good: bytes, chance: random.Random) -> bytes:
    """The bytes with some replaced, put in, taken out, or cut."""
    data = bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data))
        some = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
        begin, end, more = chance.choice(
            ((at, at + 1, some[:1]), (at, at, some), (at, at + len(some), b""), (at + 1, len(data), b""))
        )
        data[begin:end] = more
        data = data or bytearray(some)
    return bytes(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["a.pt", "old.pt", "a.safetensors", "a.index.json"])
def test_damaged_files_are_compared_or_refused(name: str, tmp_path: Path) -> None:
    tensors, chance = filled(), random.Random(name)
    export(PLAN, tmp_path / "good.safetensors")
    torch.save(tensors, tmp_path / "good.pt")
    torch.save(tensors, tmp_path / "good.old.pt", _use_new_zipfile_serialization=False)
    index(**dict.fromkeys(PLAN.names(), "good.safetensors"))(tmp_path / "good.index.json")
    good = (tmp_path / f"good.{name.removeprefix('a.')}").read_bytes()
    outcomes = Counter[str]()
    for _ in range(150):
        (tmp_path / name).write_bytes(damaged(good, chance))
        try:
            outcomes["compared" if verify(PLAN, tmp_path / name).findings else "empty"] += 1
        except (ValueError, FileNotFoundError):
            outcomes["refused"] += 1
    assert outcomes["refused"] > 50
