"""Checkpoints that are being written when the process is ended: what a loader finds is an old one, the new one or none, whole.

A child process is ended by a signal right before an operation on files, or between two pieces of values. ``taken`` is what
``from_pretrained`` of transformers would load from a folder.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitwise import same_bits

import weightinit_cuda as wi
from weightinit_cuda.__main__ import main
from weightinit_cuda.checkpoints import regenerate
from weightinit_cuda.checkpoints.export import export
from weightinit_cuda.checkpoints.folder import INDEX, UNFINISHED, claimed
from weightinit_cuda.checkpoints.verify import verify
from weightinit_cuda.numerics.distributions import Computed, Constant, Normal
from weightinit_cuda.numerics.streams import stream_of
from weightinit_cuda.plans.plan import Plan

safetensors = pytest.importorskip("safetensors.torch")

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.chmod", "fcntl.flock"}
PLAN = Plan(tuple(wi.Entry(f"layers.{i}.w", (8, 8), torch.float32, Normal(0.0, 1.0), stream_of(str(i)), "") for i in range(7)))
SHARD = 600  # bytes: two tensors


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values come in pieces of 16 elements, so that files are ended in the middle, too."""
    monkeypatch.setattr(regenerate, "_STREAMED", 16)


def write(seed: int, path: Path, **more: Any) -> list[Path]:
    return export(PLAN, path, seed=seed, shard_bytes=SHARD, overwrite=True, **more)


def in_child(work: Callable[[Callable[[], None]], object], end: Callable[[int], None] | None = None) -> tuple[int, int]:
    """Runs ``work`` in a child and calls ``end`` with the number of each moment. Returns how it ended, and the moments."""
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        moments = 0

        def moment(*_: object) -> None:
            nonlocal moments
            moments += 1
            if end is not None:
                end(moments)

        try:
            sys.addaudithook(lambda event, _: moment() if event in OPERATIONS else None)
            work(moment)
            os.write(written, str(moments).encode())
            os._exit(0)
        except OSError:
            os._exit(3)
        finally:
            os._exit(4)
    os.close(written)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(said or 0)


def taken(folder: Path) -> dict[str, torch.Tensor] | None:
    """What a loader takes: a single file, else what the index names, all of which must be there; else nothing."""
    if (folder / "model.safetensors").exists():
        return dict(safetensors.load_file(folder / "model.safetensors"))
    if not (folder / INDEX).exists():
        return None
    places: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    files = {file: safetensors.load_file(folder / file) for file in set(places.values())}
    return {name: files[file][name] for name, file in places.items()}


def seed_of(tensors: dict[str, torch.Tensor]) -> int:
    """Of all tensors, which must have the same."""
    for seed in (0, 1):
        expected = {name: wi.regenerate(PLAN, name, seed=seed) for name in PLAN.names()}
        if tensors.keys() == expected.keys() and all(same_bits(tensors[name], expected[name]) for name in expected):
            return seed
    raise AssertionError("parts of two checkpoints")


def old_shards(folder: Path) -> None:
    write(0, folder)


def old_file(folder: Path) -> None:
    folder.mkdir()
    export(PLAN, folder / "model.safetensors", seed=0)


def ended_after_two_shards(folder: Path, work: Callable[[], object]) -> None:
    def end(_: int) -> None:
        if len(list(folder.glob("model-*-of-*.safetensors"))) == 2:
            os._exit(0)

    in_child(lambda moment: work(), end)
    assert (folder / UNFINISHED).exists()


def ended(folder: Path) -> None:
    ended_after_two_shards(folder, lambda: write(1, folder))


def ended_of_another(folder: Path) -> None:
    ended_after_two_shards(folder, lambda: write(0, folder))


STARTS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,
    "shards": old_shards,
    "a single file": old_file,
    "an ended run": ended,
    "an ended run of another seed": ended_of_another,
}


def outcome_of(folder: Path, exit_code: int) -> str:
    """What is there after the end: nothing, the old one or the new one, marked as unfinished or not. Then it is run again."""
    tensors, marked = taken(folder) if folder.exists() else None, (folder / UNFINISHED).exists()
    found = "nothing" if tensors is None else ("old", "new")[seed_of(tensors)]
    if marked:
        with pytest.raises(ValueError, match="a complete checkpoint is required"):
            verify(PLAN, folder)
    elif tensors is not None:
        assert verify(PLAN, folder, seed=seed_of(tensors)).ok
    said: list[str] = []
    write(1, folder, note=said.append)
    assert bool(said) == marked
    assert verify(PLAN, folder, seed=1).ok
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"model-{i:05d}-of-00004.safetensors" for i in range(1, 5)),
        INDEX,
    ]
    again = "".join(words.partition(":")[0] for words in said) or "begins"
    return f"{exit_code}: {found}{', marked' if marked else ''}; run again, it {again}"


def killed_at(start: str, number: int, how: int, tmp_path: Path) -> str:
    """What becomes of a run that is ended at a moment."""
    folder = tmp_path / f"{number}.{how}"
    STARTS[start](folder)

    def end(moment: int) -> None:
        if moment == number:
            os.kill(os.getpid(), how)

    exit_code, _ = in_child(lambda moment: write(1, folder, progress=moment), end)
    assert exit_code == -how
    outcome = outcome_of(folder, exit_code)
    shutil.rmtree(folder)
    return outcome


def moments(start: str, tmp_path: Path) -> int:
    """How many moments a run has that is not ended."""
    STARTS[start](tmp_path / "whole")
    exit_code, number = in_child(lambda moment: write(1, tmp_path / "whole", progress=moment))
    assert exit_code == 0
    shutil.rmtree(tmp_path / "whole")
    return number


@pytest.mark.parametrize("start", STARTS)
def test_ended_at_some_moment(start: str, tmp_path: Path) -> None:
    number = random.Random(start).randrange(moments(start, tmp_path)) + 1
    how = signal.SIGKILL if number % 2 else signal.SIGTERM
    assert killed_at(start, number, how, tmp_path).startswith(f"-{int(how)}: ")


@pytest.mark.exhaustive
@pytest.mark.parametrize("start", STARTS)
def test_ended_at_every_moment(start: str, tmp_path: Path) -> None:
    """The kill table: ``make test-exhaustive ARGS="-s -k every_moment"`` prints it."""
    outcomes = Counter(
        killed_at(start, number, how, tmp_path)
        for number in range(1, moments(start, tmp_path) + 1)
        for how in (signal.SIGKILL, signal.SIGTERM)
    )
    for outcome, count in sorted(outcomes.items()):
        print(f"{start}: {count} times {outcome}")
    assert outcomes


@pytest.mark.exhaustive
def test_ended_at_50_random_times(tmp_path: Path) -> None:
    """By an alarm clock, which rings anywhere: in the middle of a write, too."""
    outcomes = Counter[str]()
    for number in range(50):
        folder = tmp_path / str(number)
        old_shards(folder)

        def work(moment: Callable[[], None], folder: Path = folder) -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 0.03))
            write(1, folder)

        exit_code, _ = in_child(work)
        assert exit_code in (0, -signal.SIGALRM)
        outcomes[outcome_of(folder, exit_code)] += 1
    for outcome, count in sorted(outcomes.items()):
        print(f"{count} times {outcome}")
    assert any(outcome.startswith("-") for outcome in outcomes), "none was ended"


# ---- full disks ------------------------------------------------------------------------------------------------------


def limited(size: int, work: Callable[[], object]) -> int:
    """How a child ends that can write files of so many bytes only."""

    def run(moment: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        work()

    return in_child(run)[0]


def test_a_full_disk_keeps_the_good_plan(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "init.json")
    assert limited(500, lambda: PLAN.with_seed(5).save(tmp_path / "init.json")) == 3
    assert Plan.load(tmp_path / "init.json") == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["init.json"]


def test_a_full_disk_keeps_the_good_file(tmp_path: Path) -> None:
    export(PLAN, tmp_path / "a.safetensors", seed=0)
    assert limited(500, lambda: export(PLAN, tmp_path / "a.safetensors", seed=1, overwrite=True)) == 3
    assert verify(PLAN, tmp_path / "a.safetensors", seed=0).ok
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_full_disk_leaves_an_unfinished_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    old_shards(folder)
    assert limited(700, lambda: write(1, folder)) == 3
    assert outcome_of(folder, 3) == "3: nothing, marked; run again, it restarts"


# ---- what else is there ----------------------------------------------------------------------------------------------


def test_an_older_checkpoint_is_not_replaced_unasked(tmp_path: Path) -> None:
    old_shards(tmp_path / "a")
    old_file(tmp_path / "b")
    for folder, names in ((tmp_path / "a", "model.safetensors.index.json, model-00001"), (tmp_path / "b", "model.safetensors")):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(FileExistsError, match=rf"got {names}.* Ask for overwrite \(init --overwrite\)"):
            export(PLAN, folder, seed=1)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(FileExistsError, match=r"got model\.safetensors"):
        export(PLAN, tmp_path / "b" / "model.safetensors", seed=1)


def test_the_remains_of_another_run_are_not_removed_unasked(tmp_path: Path) -> None:
    ended_of_another(tmp_path / "out")
    shards = {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    assert len(shards) == 2
    with pytest.raises(FileExistsError):
        export(PLAN, tmp_path / "out", seed=1, shard_bytes=SHARD)
    assert {path.name for path in (tmp_path / "out").glob("*.safetensors")} == shards
    said: list[str] = []
    export(PLAN, tmp_path / "out", seed=0, shard_bytes=SHARD, note=said.append)  # the same run again needs no permission
    assert said == ["resumes: a run before this one was ended in the middle, 2 of 4 shards are there"]
    assert verify(PLAN, tmp_path / "out").ok


def test_values_that_code_computes_are_made_again(tmp_path: Path) -> None:
    """A shard of an ended run is kept only if the plan says all of its values: the code could compute others today."""
    angles = wi.Entry("angles", (4,), torch.float32, Computed("arange"), 1, "")
    plan, folder = Plan((angles, *PLAN.entries)), tmp_path / "out"

    def work(value: float) -> list[Path]:
        return export(plan, folder, shard_bytes=16, values=lambda name: torch.full((4,), value))

    ended_after_two_shards(folder, lambda: work(1.0))
    work(2.0)
    assert taken(folder)["angles"].tolist() == [2.0] * 4  # type: ignore[index]


def test_two_runs_do_not_meet(tmp_path: Path) -> None:
    old_shards(tmp_path / "out")
    with claimed(tmp_path / "out"), pytest.raises(BlockingIOError, match="another run is writing"):
        write(1, tmp_path / "out")

    def second(_: int) -> None:
        with pytest.raises(BlockingIOError, match=r"another run is writing a\.safetensors"):
            export(PLAN, tmp_path / "a.safetensors", seed=1)

    export(PLAN, tmp_path / "a.safetensors", seed=0, progress=second)
    assert verify(PLAN, tmp_path / "a.safetensors").ok
    assert verify(PLAN, tmp_path / "out").ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "out"]


@pytest.mark.parametrize("name", ["model-00001-of-00004.safetensors", "model-00001-of-00004.safetensors.unfinished", INDEX])
def test_links_are_not_written_through(name: str, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("precious")
    (folder := tmp_path / "out").mkdir()
    (folder / name).symlink_to(victim)
    write(1, folder)
    assert victim.read_text() == "precious"
    assert verify(PLAN, folder, seed=1).ok
    assert not (folder / name).is_symlink()


@pytest.mark.parametrize("name", [UNFINISHED, "a.safetensors", "a.safetensors.unfinished", "init.json"])
def test_links_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("precious")
    (folder := tmp_path / "out").mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(ValueError, match="which is a symbolic link"):
        PLAN.save(folder / name) if name == "init.json" else write(1, folder / ("a.safetensors" if name[0] == "a" else ""))
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", [UNFINISHED, "a.safetensors", "init.json"])
def test_pipes_and_folders_are_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="which is a pipe"):
        PLAN.save(tmp_path / name) if name == "init.json" else write(1, tmp_path / ("a.safetensors" if name[0] == "a" else ""))
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(ValueError, match="which is a folder"):
        write(1, tmp_path / "b.safetensors")


def test_no_name_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    PLAN.save("plan.json")
    assert main(["init", "plan.json", "--out", ""]) == 2
    assert "the name of a file or folder is required, got ''" in capsys.readouterr().err
    assert os.listdir() == ["plan.json"]


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--overwrite`` is asked for; a run that was ended is resumed, and says so; the plan is there before the index."""
    PLAN.save(tmp_path / "plan.json")
    arguments = ["init", str(tmp_path / "plan.json"), "--out", str(tmp_path / "out"), "--shard-size", "6e-7"]
    assert main(arguments) == 0
    assert main([*arguments, "--seed", "1"]) == 2
    assert "Ask for overwrite (init --overwrite)" in capsys.readouterr().err
    assert main([*arguments, "--seed", "1", "--overwrite"]) == 0
    assert main(["verify", str(tmp_path / "out" / "init.json"), str(tmp_path / "out")]) == 0
    assert Plan.load(tmp_path / "out" / "init.json").seed == 1
    shutil.rmtree(tmp_path / "out")
    ended_after_two_shards(tmp_path / "out", lambda: main(arguments))
    assert not (tmp_path / "out" / INDEX).exists()
    assert main(arguments) == 0
    assert "resumes: a run before this one was ended" in capsys.readouterr().err


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_one_checkpoint_a_folder(tmp_path: Path) -> None:
    """Loaders take a single file before an index, so nobody can say what such a folder holds."""
    write(1, tmp_path)
    (other,) = export(PLAN, tmp_path / "model.safetensors", seed=0)
    with pytest.raises(ValueError, match=r"one checkpoint, got model\.safetensors beside model\.safetensors\.index\.json"):
        verify(PLAN, tmp_path, seed=1)
    other.rename(tmp_path / "model-00001-of-00009.safetensors")
    with pytest.raises(ValueError, match=r"got model-00001-of-00009\.safetensors beside"):
        verify(PLAN, tmp_path, seed=1)
    (tmp_path / "model-00001-of-00009.safetensors").rename(tmp_path / "adapter.safetensors")
    assert verify(PLAN, tmp_path, seed=1).ok


def test_the_seed_of_every_shard_is_checked(tmp_path: Path) -> None:
    """Of constants bits cannot tell; the files say it themselves."""
    plan = Plan(tuple(wi.Entry(name, (8,), torch.float32, Constant(0.0), 1, "") for name in "abc"))
    write_plan = {seed: export(plan, tmp_path / str(seed), seed=seed, shard_bytes=1) for seed in (0, 1)}
    assert verify(plan, tmp_path / "0").ok
    shutil.copy(write_plan[1][1], write_plan[0][1])
    report = verify(plan, tmp_path / "0")
    assert report.counts == {"equal": 3, "seed": 1}
    assert not report.ok
    assert "model-00002-of-00003.safetensors" in str(report)
    assert "written with seed 1 in format 1, not 0 and 1" in str(report)
