"""How commands end: exit statuses, one sentence for each error, and output where a terminal or a pipe cannot take it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda.__main__ import main
from weightinit_cuda.cli import commands, ending, options

ROOT = Path(__file__).parents[2]
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    wi.plan(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), seed=0).save(tmp_path / "init.json")
    return tmp_path / "init.json"


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr says: one line, by the program's name, that ends."""
    said = capsys.readouterr().err
    assert said.startswith("weightinit-cuda: ")
    assert said.endswith(".\n")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert "[Errno" not in said
    return said


# ---- exit statuses --------------------------------------------------------------------------------------------------


def test_statuses(plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "model.safetensors")
    assert main(["init", str(plan_file), "--out", out]) == 0
    assert main(["verify", str(plan_file), out]) == 0
    assert main(["verify", str(plan_file), out, "--seed", "0xff"]) == 1
    capsys.readouterr()
    assert main(["verify", str(plan_file), str(tmp_path / "none.safetensors")]) == 2
    for error in ([], ["nonsense"], ["plan"], ["plan", str(plan_file), "--nonsense"], ["plan", str(plan_file), "--seed", "x"]):
        capsys.readouterr()
        assert main(error) == 2, error


@pytest.mark.parametrize("size", ["inf", "nan", "-inf", "0", "-1", "1e400", "much"])
def test_sizes_of_shards(size: str, plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(plan_file), "--out", str(tmp_path / "out"), "--shard-size", size]) == 2
    assert "a number of gigabytes above 0 is required" in sentence(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", [["--seed", "1.5"], ["--dtype", "int8"], ["--dtype", "nn"], ["--rules", "none"], ["--rules", ","]]
)
def test_bad_options(option: list[str], plan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(plan_file), *option]) == 2
    assert option[0] in sentence(capsys)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(28, "No space left on device", "x.json"), "x.json: No space left on device."),
        (KeyError("w"), "KeyError: 'w'."),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded."),
        (MemoryError(), "MemoryError."),
        (SystemExit(1), "SystemExit: 1."),
        (RuntimeError("of\nmany\nlines."), "RuntimeError: of many lines."),
        (ValueError("w: a matrix is required."), "w: a matrix is required."),
    ],
)
def test_whatever_is_raised_is_a_sentence(
    raised: BaseException, said: str, plan_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, never the 1 that means a difference."""

    def fails(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(options, "open_blueprint", fails)
    assert main(["plan", str(plan_file)]) == 2
    assert sentence(capsys).removeprefix("weightinit-cuda: ").startswith(said)


def test_interrupted(plan_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "open_blueprint", interrupted)
    assert main(["plan", str(plan_file)]) == 130
    assert capsys.readouterr().err.strip() == "weightinit-cuda: interrupted."


def test_a_traceback_on_demand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(ending.TRACEBACK, "1")
    assert main(["plan", "no_such_file"]) == 2
    assert "Traceback" in capsys.readouterr().err


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", DEEP),
        ("config.json", '{"model_type": "llama", "x": ' + DEEP + "}"),
        ("config.json", "\xff"),
        ("config.json", "null"),
        ("model.safetensors.index.json", '{"weight_map": ' + DEEP + "}"),
        ("model.safetensors", f'{{"a": {DEEP}}}'),
        ("model.pt", "no pickle"),
    ],
)
def test_hostile_files(name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = content.encode("latin-1")
    (tmp_path / name).write_bytes(len(data).to_bytes(8, "little") + data if name.endswith("safetensors") else data)
    assert main(["doctor", str(tmp_path / name)]) == 2
    sentence(capsys)


@pytest.mark.parametrize("state", [{1: torch.zeros(2)}, {"model": {0: torch.zeros(2), "a": torch.zeros(2)}}])
def test_integers_as_names(state: dict[Any, Any], tmp_path: Path, plan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(state, tmp_path / "model.pt")
    assert main(["verify", str(plan_file), str(tmp_path / "model.pt")]) == 2
    assert "names must be text" in sentence(capsys)


def test_pipes_as_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert main(["plan", str(tmp_path)]) == 2
    assert "a regular file is required" in sentence(capsys)


def test_a_python_file_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text("")
    assert main(["doctor", str(tmp_path / "model.py")]) == 2
    assert "model.py:function" in sentence(capsys)


# ---- terminals and pipes --------------------------------------------------------------------------------------------

ESCAPES = "a\x1b[31mred\x1b]0;title\x07\x9b\u202e.weight"


def test_escapes_never_reach_a_terminal(plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({ESCAPES: torch.full((2, 2), torch.inf)}, tmp_path / "model.pt")
    data = json.loads(plan_file.read_text())
    data["entries"][0] |= {"name": ESCAPES, "source": ESCAPES}
    (tmp_path / "hostile.json").write_text(json.dumps(data))
    main(["doctor", str(tmp_path / "model.pt")])
    main(["verify", str(plan_file), str(tmp_path / "model.pt")])
    main(["plan", str(tmp_path / "hostile.json")])
    main(["doctor", str(tmp_path / "hostile.json")])
    main(["plan", ESCAPES])
    main(["plan", str(plan_file), "--" + ESCAPES])
    main(["init", str(plan_file), "--out", str(tmp_path / ESCAPES.replace("/", "")), "--shard-size", "1"])
    shown = "".join(capsys.readouterr())
    assert not set("\x1b\x07\x9b\u202e") & set(shown)
    assert shown.count(r"a\x1b[31mred") >= 7


def run(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The program in a process of its own; ``shell`` is what stands behind it."""
    own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "weightinit_cuda", *arguments]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}; exit ${{PIPESTATUS[0]}}', "bash", *command]
    return subprocess.run(command, env=own, capture_output=True, timeout=120)


def test_ascii_locales(plan_file: Path) -> None:
    done = run("plan", str(plan_file), LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.returncode == 0
    assert done.stderr == b""
    assert b"-----" in done.stdout
    done.stdout.decode("ascii")


@pytest.mark.parametrize(
    ("shell", "seed", "status"),
    [("| head -c 1 >/dev/null", "0", 0), ("| true", "1", 1), (">&-", "0", 0), (">&- 2>&-", "1", 1), ("2>&-", "x", 2)],
)
def test_closed_pipes(shell: str, seed: str, status: int, plan_file: Path, tmp_path: Path) -> None:
    """Nobody reads, and the status is what it would be."""
    wi.export(wi.Plan.load(plan_file), tmp_path / "model.safetensors")
    done = run("verify", str(plan_file), str(tmp_path / "model.safetensors"), "--all", "--seed", seed, shell=shell)
    assert done.returncode == status
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_stdout(plan_file: Path) -> None:
    done = run("plan", str(plan_file), shell=">/dev/full")
    assert done.returncode == 2
    assert done.stderr == b"weightinit-cuda: stdout: No space left on device.\n"


def test_piped_output_has_no_progress(plan_file: Path, tmp_path: Path) -> None:
    done = run("init", str(plan_file), "--out", str(tmp_path / "model.safetensors"))
    assert done.returncode == 0
    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == 1


# ---- help and version -----------------------------------------------------------------------------------------------


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert wi.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", ["plan", "init", "verify", "doctor"])
def test_help_has_examples_and_rules(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"\n  weightinit-cuda {command} " in shown
    assert all(name in shown for name in wi.RULE_SETS)


def test_examples_of_help_are_valid() -> None:
    """Every example parses: its options exist."""
    for command in (commands.plan_command, commands.init_command, commands.verify_command, commands.doctor_command):
        lines = [line.split() for line in (command.help or "").splitlines() if "weightinit-cuda " in line]
        assert lines
        for _, name, *arguments in lines:
            assert name == command.name
            command.make_context(name, [argument.strip("'") for argument in arguments])


def test_the_library_does_not_need_click() -> None:
    """It is the command line's alone."""
    code = "import sys; sys.modules['click'] = None; import weightinit_cuda as wi; wi.plan, wi.export, wi.verify, wi.probe"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
    code = "import sys; sys.modules['click'] = None; from weightinit_cuda.__main__ import main; sys.exit(main(['--version']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == b"weightinit-cuda: click is not installed. pip install click\n"


def test_no_gpu_is_said_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["doctor"]) == 0
    cuda = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("cuda"))
    assert "no GPU" in cuda or "built without CUDA" in cuda
    assert "cudaError" not in cuda
