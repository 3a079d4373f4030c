"""The program of `make gpu-check`: whatever a stage does, the next one runs; and every stage with an emulated device."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from conftest import DISTRIBUTIONS
from emulation import EXTREME

import weightinit_cuda as wi
from benchmarks.gpu_check import bits, bundle, counters, emulated, facts, gpu_tests, graphs, module, report, timed, work
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.stages import STAGES, Stage, State, Status, granted
from benchmarks.showing import readme_table, results_file
from weightinit_cuda import engine
from weightinit_cuda.numerics.combine import Mode
from weightinit_cuda.numerics.lowering import lower

ROOT = Path(__file__).resolve().parents[2]


def script(name: str, text: str, limit: float = 20.0, file: str = "") -> Stage:
    """A stage that is a few lines of Python, which starts in no time."""
    return Stage(name, f"a stage that is {name}", limit, 0.0, file, (sys.executable, "-S", "-c", textwrap.dedent(text)))


def hanging(out: Path) -> Stage:
    """It keeps a finding, starts a process, ignores being interrupted, and never ends."""
    text = f"""
    import os, pathlib, signal, subprocess, sys
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
    pathlib.Path({str(out / "kept.txt")!r}).write_text(str(child.pid))
    print("waiting for the device", flush=True)
    signal.pause()
    """
    return script("hanging", text, 1.0, "kept.txt")


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def checked(stages: Sequence[Stage], out: Path, seconds: float = 60.0) -> tuple[Check, dict[str, Any]]:
    """A check that was run without a word, and its file."""
    check = Check(seconds, out, stages=stages, show=lambda text: None)
    check.run()
    return check, json.loads((out / "check.json").read_text())


# ---- stages that do what stages should not --------------------------------------------------------------------------


def test_no_stage_stops_the_next(tmp_path: Path) -> None:
    stages = [
        script("fine", "print('all is well')"),
        hanging(tmp_path),
        script("failing", "raise SystemExit('the device is lost')"),
        script("killed", "import os, signal; print('so far'); os.kill(os.getpid(), signal.SIGKILL)"),
        script("wrong", f"print('2 bits differ'); raise SystemExit({Status.WRONG})"),
        script("missing", f"print('ncu is not installed'); raise SystemExit({Status.LEFT_OUT})"),
        script("short", f"print('3 of 4'); raise SystemExit({Status.CUT_SHORT})"),
        replace(script("absent", ""), command=("/no/such/program",)),
        script("last", "print('still here')"),
    ]
    check, file = checked(stages, tmp_path)
    assert [(outcome.state, outcome.said) for outcome in check.outcomes] == [
        (State.FINE, "all is well"),
        (State.LOST, "ended at its limit of 1.0 s; last: waiting for the device"),
        (State.LOST, "broke off (exit status 1): the device is lost"),
        (State.LOST, "broke off (signal 9): so far"),
        (State.WRONG, "2 bits differ"),
        (State.LEFT_OUT, "ncu is not installed"),
        (State.CUT_SHORT, "3 of 4"),
        (State.LOST, "broke off (exit status 127): [Errno 2] No such file or directory: '/no/such/program'"),
        (State.FINE, "still here"),
    ]
    assert not check.passed
    assert [stage["state"] for stage in file["stages"]] == [outcome.state.value for outcome in check.outcomes]
    assert file["passed"] is False
    child = int((tmp_path / "kept.txt").read_text())  # what was kept is there; whoever was started is not
    assert not is_running(child)


def test_left_out_is_no_failure(tmp_path: Path) -> None:
    left_out = script("missing", f"print('pytest is not installed'); raise SystemExit({Status.LEFT_OUT})")
    check, file = checked([script("fine", "print('well')"), left_out], tmp_path)
    assert check.passed
    assert file["passed"] is True


def test_each_stage_is_in_the_file_before_the_next_begins(tmp_path: Path) -> None:
    look = f"import json; f = json.load(open({str(tmp_path / 'check.json')!r})); print([s['state'] for s in f['stages']])"
    check, _ = checked([script("first", "print(1)"), script("second", look), script("third", "print(3)")], tmp_path)
    assert check.outcomes[1].said == "['fine', 'not begun', 'not begun']"


def test_what_was_written_before_is_not_taken_for_new(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("old")
    checked([script("failing", "raise SystemExit(1)", file="rows.json")], tmp_path)
    assert not (tmp_path / "rows.json").exists()


def test_a_spent_budget(tmp_path: Path) -> None:
    """The stage that hangs gets what is left and not its limit; the next ones nothing."""
    stages = [replace(hanging(tmp_path), limit=100.0), script("next", "print('too late')")]
    check, _ = checked(stages, tmp_path, seconds=5.5)
    assert [outcome.state for outcome in check.outcomes] == [State.LOST, State.LOST]
    assert check.outcomes[0].seconds < 4.0
    assert check.outcomes[1].said == "the budget of 5.5 s was spent before it"


@pytest.mark.parametrize("seconds", [10.0, 120.0, 300.0, 540.0, 900.0, 2000.0])
def test_whatever_stages_take_they_fit(seconds: float) -> None:
    """All take what they are granted. Where there is enough for the least of each, each gets it."""
    left, given = seconds, list[float]()
    for number in range(len(STAGES)):
        given.append(granted(STAGES[number:], left))
        left -= given[-1]
    assert left >= 0
    assert all(its <= stage.limit for stage, its in zip(STAGES, given, strict=True))
    if seconds >= sum(stage.least for stage in STAGES):
        assert all(its >= stage.least for stage, its in zip(STAGES, given, strict=True))


def test_the_least_of_all_stages_fits_into_one_call() -> None:
    assert sum(stage.least for stage in STAGES) < 540 - 60
    assert all(0 < stage.least < stage.limit for stage in STAGES)


def test_nothing_runs_without_a_gpu(tmp_path: Path) -> None:
    unusable = script("device", f"print('no GPU: there is none'); raise SystemExit({Status.UNUSABLE})")
    check, _ = checked([unusable, script("next", "print('ran')")], tmp_path)
    assert [outcome.state for outcome in check.outcomes] == [State.UNUSABLE, State.NOT_BEGUN]
    assert check.outcomes[1].said == "no GPU: there is none"
    assert not check.passed


INTERRUPTED = """
import sys
from pathlib import Path
from benchmarks.gpu_check import __main__ as program
from benchmarks.gpu_check.stages import Stage
forever = (sys.executable, "-S", "-c", "import os, signal; print(os.getpid(), flush=True); signal.pause()")
program.STAGES = (Stage("forever", "never ends", 60.0, command=forever), Stage("next", "is not begun", 60.0))
sys.exit(program.main(["--out", sys.argv[1]]))
"""


def test_whoever_ends_it_is_shown_what_there_is(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("== 0 s: forever")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 1, said
    assert "gpu_check: NOT passed: forever lost, next lost" in said
    assert said.count("the whole check was interrupted") == 2


# ---- all of it, with an emulated device -----------------------------------------------------------------------------

WITHOUT = """
from functools import partial
from importlib.machinery import PathFinder
def find_spec(find, name, *where):
    absent = ("numpy", "rich", "scipy", "matplotlib", "transformers")
    return None if name.partition(".")[0] in absent else find(name, *where)
PathFinder.find_spec = partial(find_spec, PathFinder.find_spec)
"""


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Check, Path]:
    """The program's stages, but one that hangs and one that fails; on a machine that has torch and pytest alone."""
    out, site = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(WITHOUT)
    instead = {
        "models": replace(hanging(out), name="models"),
        "fill_2_26": script("fill_2_26", "raise RuntimeError('an error of the device')", file="fill_2_26.json"),
    }
    wanted = ("device", "fill_2_28", "models", "fill_2_26", "tests", "graphs")
    stages = [instead.get(stage.name, stage) for stage in STAGES if stage.name in wanted]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site))
        check = Check(300.0, out, emulated=True, stages=stages, show=lambda text: None)
        check.run()
    return check, out


def test_dry_run(dry_run: tuple[Check, Path]) -> None:
    check, out = dry_run
    found = {outcome.stage.name: (outcome.state, outcome.said) for outcome in check.outcomes}
    failed = {name: said for name, (state, said) in found.items() if state is not State.FINE}
    assert set(failed) == {"models", "fill_2_26"}, {o.stage.name: o.output for o in check.outcomes}
    assert found["models"] == (State.LOST, "ended at its limit of 1.0 s; last: waiting for the device")
    assert found["fill_2_26"] == (State.LOST, "broke off (exit status 1): RuntimeError: an error of the device")
    assert found["fill_2_28"][1].startswith("10 of 10 rows")
    assert not check.passed

    files = sorted(path.name for path in out.iterdir())
    assert files == ["check.json", "fill_2_28.json", "kept.txt", "tests.xml"]
    suite = ElementTree.parse(out / "tests.xml").getroot()[0]
    assert (int(suite.attrib["tests"]) > 0, suite.attrib["failures"], suite.attrib["errors"]) == (True, "0", "0")
    whole = json.loads((out / "check.json").read_text())
    assert whole["emulated"] is True
    assert whole["found"]["device"]["gpu"]["name"] == emulated.NAME
    assert set(whole["found"]["graphs"]) == {check.__name__ for check in graphs.CHECKS}


def test_the_real_program_writes_at_most_eight_files() -> None:
    files = [stage.file for stage in STAGES if stage.file]
    assert len({*files, "check.json"}) == len(files) + 1 <= 8
    assert [stage.name for stage in STAGES] == list(work.WORK)


def test_tables_and_pages_read_the_folder(dry_run: tuple[Check, Path], tmp_path: Path) -> None:
    _, out = dry_run
    run = results_file.read(out)
    assert len(run["rows"]) == 10
    assert emulated.NAME in "\n".join(readme_table._gpu(run))

    one, other = (json.loads((out / "fill_2_28.json").read_text()) for _ in range(2))
    target = one["targets"][0]
    for part, median in ((one, 0.9), (other, 0.7)):
        part["targets"] = [target | {"measured": {"median": median}, "met": str(median)}, *part["targets"][1:]]
    (tmp_path / "a.json").write_text(json.dumps(one))
    (tmp_path / "b.json").write_text(json.dumps(other))
    together = results_file.read(tmp_path)
    assert len(together["rows"]) == 20
    assert [verdict["met"] for verdict in together["targets"]][:2] == ["0.7", "not measured"], "the worst row decides"
    assert len(together["targets"]) == len(one["targets"])
    (tmp_path / "a.json").unlink()
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(results_file.ResultsError, match="must have a file with `environment` and `rows`"):
        results_file.read(tmp_path)


def test_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there of the module, and no bit that differs: the rest of what the dry run leaves to this process."""
    assert work.main(["build", str(tmp_path / "build.json"), "--emulate"]) == Status.FINE
    assert ", found; first fill " in capsys.readouterr().out
    facts = json.loads((tmp_path / "build.json").read_text())
    assert (facts["backend"]["backend"], facts["version"]) == ("native", wi.__version__)
    assert work.main(["bits", str(tmp_path / "bits.json"), "--emulate"]) == Status.FINE
    assert capsys.readouterr().out.splitlines()[-1].startswith("no bit differs: ")
    parts = json.loads((tmp_path / "bits.json").read_text())["parts"]
    assert all(part["compared"] == part["items"] > 0 for part in parts.values())


@pytest.mark.parametrize(("name", "rows"), [("models", 4), ("sizes", 20)])
def test_stages_of_time(name: str, rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    assert work.main([name, str(file), "--emulate"]) == Status.FINE
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{rows} of {rows} rows; ")
    assert len(results_file.read(file)["rows"]) == rows
    assert work.main([name, str(tmp_path / "none.json"), "--seconds", "-1", "--emulate"]) == Status.CUT_SHORT
    assert capsys.readouterr().out.splitlines()[-1] == f"no row of {rows} in time"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_gpu(tmp_path: Path) -> None:
    """The command itself: exit status 1, and the table says why."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--seconds", "60", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "gpu_check: NOT passed: device unusable, build not begun" in done.stdout
    assert "finds no CUDA device" in done.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["check.json"]


# ---- bits -----------------------------------------------------------------------------------------------------------


def test_every_program_is_compared() -> None:
    """Whatever a distribution of the tests lowers to, in each real dtype and each way of combining."""
    possible = {(lower(of, dtype).kind, dtype) for of in (DISTRIBUTIONS | EXTREME).values() for dtype in bits.REAL}
    compared = {
        (lower(of.distribution, of.dtype).kind, of.dtype, of.combine.mode) for of in bits.PROGRAMS if of.dtype in bits.REAL
    }
    assert {(*program, mode) for program in possible for mode in Mode} <= compared
    assert {dtype for _, dtype, _ in compared} | set(bits.COMPLEX) == {program.dtype for program in bits.PROGRAMS}


def test_a_bit_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The second fill of a comparison is the device's: one bit there, in one layout."""
    right, calls = engine.fill, list[int]()

    def wrong(jobs: Sequence[engine.FillJob]) -> None:
        right(jobs)
        calls.append(len(jobs))
        if len(calls) == 2:
            next(job.tensor for job in jobs if job.name == "rows").view(torch.uint8)[5, 7] ^= 1

    monkeypatch.setattr(engine, "fill", wrong)
    assert work.main(["bits", str(tmp_path / "bits.json"), "--emulate"]) == Status.WRONG
    assert "1 differences in " in capsys.readouterr().out.splitlines()[-1]
    (difference,) = json.loads((tmp_path / "bits.json").read_text())["differences"]
    assert difference["what"] == f"{bits.PROGRAMS[0].name}, rows"
    assert difference["bytes"] == 1


def test_a_launch_that_fails_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is compared nevertheless, but not for ever."""
    right = engine.fill

    def failing(jobs: Sequence[engine.FillJob]) -> None:
        if jobs[0].distribution == bits.DISTRIBUTIONS["one_hot"]:
            raise RuntimeError("CUDA error: an illegal memory access\nmore")
        right(jobs)

    monkeypatch.setattr(engine, "fill", failing)
    one_hot = next(program for program in bits.PROGRAMS if program.label == "one_hot")
    with emulated.device():
        monkeypatch.setattr(bits, "PROGRAMS", (one_hot, bits.PROGRAMS[0]))
        status, said = bits.run(tmp_path / "bits.json", 60.0)
        assert status is Status.WRONG
        assert said.endswith("one_hot/float32 RuntimeError: CUDA error: an illegal memory access")
        parts = json.loads((tmp_path / "bits.json").read_text())["parts"]
        assert all(part["compared"] == part["items"] for part in parts.values())
        monkeypatch.setattr(bits, "PROGRAMS", (one_hot,) * 100)
        bits.run(tmp_path / "bits.json", 60.0)
    file = json.loads((tmp_path / "bits.json").read_text())
    assert len(file["differences"]) == bits.MAY_DIFFER + 1


def test_bits_in_time_and_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated.device():
        assert bits.run(tmp_path / "bits.json", -1.0)[0] is Status.CUT_SHORT
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 1000))
        monkeypatch.setattr(bits, "PROGRAMS", bits.PROGRAMS[:1])
        status, said = bits.run(tmp_path / "bits.json", 60.0)
    assert status is Status.FINE
    assert "left out: beyond 2^32 elements of float8_e4m3fn: needs 0 MiB of GPU memory, 0 are free" in said


# ---- counters, tests, graphs ----------------------------------------------------------------------------------------

NCU = """#!{python}
import sys
log = sys.argv[sys.argv.index("--log-file") + 1]
names = ["ID", "Kernel Name", "Block Size", "Grid Size", "gpu__time_duration.sum", "sm__throughput.{peak}", "n__none"]
lines = [names, ["", "", "", "", "us", "%", ""]]
lines += [[str(i), "void k<4, 1>(T, int)", "(256, 1, 1)", "(528, 1, 1)", "1,234.5", "81.2", ""] for i in range({launches})]
with open(log, "w") as file:
    file.write("==PROF== Connected to process 7\\n")
    file.writelines(",".join('"' + cell + '"' for cell in line) + "\\n" for line in lines)
    file.write("{error}==PROF== Disconnected\\n")
sys.exit({status})
"""


def test_without_ncu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    assert counters.run(tmp_path / "counters.json", 60.0) == (Status.LEFT_OUT, "ncu (Nsight Compute) is not installed")


@pytest.mark.parametrize(
    ("launches", "error", "status", "expected", "said"),
    [
        (7, "", 0, Status.FINE, "7 of 7 launches counted"),
        (3, "", 1, Status.CUT_SHORT, "3 of 7 launches counted"),
        (0, "==ERROR== ERR_NVGPUCTRPERM\\n", 1, Status.LEFT_OUT, "ncu: ERR_NVGPUCTRPERM"),
    ],
)
def test_counters(
    launches: int, error: str, status: int, expected: Status, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ncu = tmp_path / "ncu"
    text = NCU.format(python=sys.executable, peak=counters.PEAK, launches=launches, error=error, status=status)
    ncu.write_text(text)
    ncu.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert counters.run(tmp_path / "counters.json", 60.0) == (expected, said)
    file = json.loads((tmp_path / "counters.json").read_text())
    assert len(file["launches"]) == launches
    if launches == len(counters.LAUNCHES):
        first = file["launches"][0]
        assert first["launch"] == "uniform_/float32/2^28"
        assert (first["kernel"], first["grid"]) == ("void k<4, 1>(T, int)", "(528, 1, 1)")
        assert first["shown"] == {"us": "1,234.5 us", "processors %": "81.2 %"}
        assert "n__none" not in first["metrics"]


def test_what_ncu_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fill of each between start and stop, on memory of that layout."""
    said: list[str] = []
    with emulated.device():
        monkeypatch.setattr(counters, "DEVICE", "cpu")
        monkeypatch.setattr(counters, "VALUES", 2**16)
        monkeypatch.setattr(counters, "COLUMNS", 16)
        monkeypatch.setattr(
            torch.cuda, "profiler", SimpleNamespace(start=lambda: said.append("["), stop=lambda: said.append("]"))
        )
        for call in ("uniform_", "normal_", "trunc_normal_"):
            monkeypatch.setattr(wi.init, call, lambda tensor, seed, call=call: said.append(f"{call}{tensor.stride()}"))
        counters.watched()
    assert len(said) == 4 * len(counters.LAUNCHES)
    assert said[:4] == ["uniform_(16, 1)", "[", "uniform_(16, 1)", "]"]
    assert said[-4:] == ["normal_(32, 1)", "[", "normal_(32, 1)", "]"]


def test_no_test_is_begun_when_the_time_is_over() -> None:
    for seconds, stops in ((60.0, False), (-1.0, True)):
        counting, session = gpu_tests.Counting(seconds), SimpleNamespace(shouldstop=False)
        counting.pytest_runtest_teardown(SimpleNamespace(session=session), nextitem=None)
        assert counting.in_time, "all were run"
        counting.pytest_runtest_teardown(SimpleNamespace(session=session), nextitem="another")
        assert (bool(session.shouldstop), counting.in_time) == (stops, not stops)


@pytest.mark.parametrize(
    ("reports", "exit_status", "seconds", "expected"),
    [
        (["passed", "skipped"], 0, 60.0, (Status.FINE, "1 passed, 1 skipped")),
        (["skipped"] * 3, 0, 60.0, (Status.WRONG, "3 skipped")),
        (["passed", "failed"], 1, 60.0, (Status.WRONG, "1 passed, 1 failed")),
        (["passed"], 2, -1.0, (Status.CUT_SHORT, "1 passed; then the time was over")),
        ([], 5, 60.0, (Status.WRONG, "no test was run")),
    ],
)
def test_what_tests_come_to(
    reports: list[str],
    exit_status: int,
    seconds: float,
    expected: tuple[Status, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Skipped tests prove nothing, although pytest's exit status is 0 then."""

    def main(arguments: list[str], plugins: list[Any]) -> int:
        files = [Path(argument).name for argument in arguments if argument.endswith(".py")]
        assert files[-1] == gpu_tests.LAST
        assert "test_gpu_proofs.py" in files
        for outcome in reports:
            plugins[0].pytest_runtest_logreport(SimpleNamespace(when="call", outcome=outcome))
            plugins[0].pytest_runtest_logreport(SimpleNamespace(when="teardown", outcome="passed"))
        if seconds < 0:
            plugins[0].pytest_runtest_teardown(SimpleNamespace(session=SimpleNamespace()), nextitem="another")
        return exit_status

    monkeypatch.setattr(pytest, "main", main)
    assert gpu_tests.run(tmp_path / "tests.xml", seconds) == expected


def test_without_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert gpu_tests.run(tmp_path / "tests.xml", 60.0) == (Status.LEFT_OUT, "pytest is not installed")


def fails() -> None:
    raise ValueError("a bit\nand more")


def test_a_check_in_a_fork() -> None:
    assert graphs.in_fork(lambda: None, 10.0) == ""
    assert graphs.in_fork(fails, 10.0) == "ValueError: a bit"
    assert graphs.in_fork(lambda: os._exit(3), 10.0) == "the process died, exit status 3"
    assert graphs.in_fork(signal.pause, 0.2) == "did not end in 0 s"


def test_a_failed_check_stops_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fine() -> None:
        pass

    monkeypatch.setattr(graphs, "CHECKS", (fails, fine))
    assert graphs.run(tmp_path / "graphs.json", 60.0) == (Status.WRONG, "1 of 2 checks failed: fails")
    assert [of["error"] for of in json.loads((tmp_path / "graphs.json").read_text()).values()] == ["ValueError: a bit", ""]


def test_graphs_without_a_gpu() -> None:
    """What the checks rest on tells right from wrong."""
    with emulated.device():
        jobs = graphs.jobs(7, "cpu")
        engine.fill(jobs)
        graphs.compare(jobs)
        jobs[4].tensor.view(torch.uint8)[9] ^= 1
        with pytest.raises(AssertionError, match="tensor 4 differs"):
            graphs.compare(jobs)
    with pytest.raises(ValueError, match="a bit"):
        graphs.in_threads(fails)


# ---- the module and the bundle --------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Sources, and a module for this Python."""
    for name in ("CMakeLists.txt", "weightinit_cuda/_version.py", "csrc/job.h", "csrc/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1000, 1000))
    path = tmp_path / "weightinit_cuda" / f"_C{module.EXTENSION_SUFFIXES[0]}"
    path.write_bytes(b"\x7fELF and code")
    return tmp_path


def test_a_module_in_the_tree_is_taken(tree: Path) -> None:
    path = module.found(root=tree)
    assert path is not None
    assert module.stamp(path) is None
    assert module.why_not_as_it_is(tree) == "", "newer than its sources"
    os.utime(path, (500, 500))
    assert module.why_not_as_it_is(tree) == f"{path.name} was made from other sources"
    module.set_stamp(path, "abc123", tree)
    os.utime(path, (500, 500))
    assert module.why_not_as_it_is(tree) == "", "the stamp counts, not the time: the tree was copied"
    assert module.stamp(path) == (module.sources(tree), "abc123")

    module.set_stamp(path, "def456", tree)
    assert path.read_bytes().count(b"weightinit_cuda of sources") == 1
    (tree / "csrc" / "README.md").write_text("other words")
    assert module.why_not_as_it_is(tree) == "", "the build does not read it"
    (tree / "csrc" / "job.h").write_text("other code")
    assert module.why_not_as_it_is(tree) == f"{path.name} was made from other sources"
    path.rename(path.with_name("_C.cpython-27-other.so"))
    assert module.why_not_as_it_is(tree).startswith("no module for CPython 3.")


def test_the_module_is_built_where_there_is_none(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    with emulated.device():
        monkeypatch.setattr(module, "why_not_as_it_is", lambda: "no module lies in the tree")
        monkeypatch.setattr(module, "build", lambda architectures: built.append(architectures) or 1)
        status, said = facts.build(tmp_path / "found.json", 60.0)
    assert built == ["90-real"]
    assert status is Status.FINE
    assert ", built in " in said
    assert json.loads((tmp_path / "found.json").read_text())["build_status"] == 1


def test_how_it_is_built(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("WEIGHTINIT_CUDA", "WEIGHTINIT_CUDA_ARCHITECTURES")
    (tree / "setup.py").write_text(f"import os, sys; open('said', 'w').write(repr([sys.argv[1:], *map(os.getenv, {names})]))")
    monkeypatch.delenv("WEIGHTINIT_CUDA_ARCHITECTURES", raising=False)
    assert module.build("90-real", tree) == 0
    assert (tree / "said").read_text() == "[['-q', 'build_ext', '--inplace'], '1', '90-real']"
    (tree / "setup.py").write_text("raise SystemExit(3)")
    assert module.build("90-real", tree) == 3


def test_no_kernels_for_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated.device():
        monkeypatch.setattr(engine, "has_kernels", lambda device: False)
        status, said = facts.build(tmp_path / "found.json", 60.0)
    assert status is Status.UNUSABLE
    assert said.startswith("no kernels for this GPU: ")


def test_a_gpu_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: int) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nmore")

    with emulated.device():
        monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
        status, said = facts.device(tmp_path / "found.json", 60.0)
    assert (status, said) == (Status.UNUSABLE, "no GPU: RuntimeError: CUDA error: unspecified launch failure")
    assert json.loads((tmp_path / "found.json").read_text())["torch"] == torch.__version__


def interpreter(folder: Path, answer: str) -> str:
    path = folder / "python3.12"
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return str(path)


def test_which_python_a_bundle_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert bundle.main(["--python", "3.99"]) == 1
    assert "a CPython 3.99 with its headers is required, got none (looked at: nothing of that name)" in capsys.readouterr().err
    interpreter(tmp_path, "exit 1")
    with pytest.raises(bundle.BundleError, match=r"python3\.12 does not run"):
        bundle.wanted("3.12")
    answer = """echo '["cpython", "3.12", [".so"], false, "/usr/include/python3.12/Python.h"]'"""
    interpreter(tmp_path, answer)
    with pytest.raises(bundle.BundleError, match=r"is cpython 3\.12 without /usr/include/python3\.12/Python\.h"):
        bundle.wanted("3.12")
    path = interpreter(tmp_path, answer.replace("false", "true"))
    assert bundle.wanted("3.12") == bundle.wanted(path) == (path, "3.12", [".so"])
    assert bundle.wanted(sys.executable).suffixes == list(module.EXTENSION_SUFFIXES)


def test_what_a_module_needs(tmp_path: Path) -> None:
    path = tmp_path / "_C.so"
    path.write_bytes(b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.17\0GLIBCXX_3.4.9\0GLIBCXX_3.4.29\0")
    assert bundle.needs(path) == "needs GLIBC 2.34 and GLIBCXX 3.4.29"
    assert any(requirement.startswith("pybind11") for requirement in bundle.requirements())


# ---- the table, and who insists on a GPU ----------------------------------------------------------------------------


def test_the_table_without_rich(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    check, _ = checked([script("fine", "print('[all] is well')"), script("failing", "raise SystemExit(1)")], tmp_path)
    report.show(check)
    assert "[all] is well" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rich.console", None)
    report.show(check)
    shown = capsys.readouterr().out
    assert "plain text, since rich is not installed" in shown
    assert "[all] is well" in shown
    assert shown.rstrip().endswith("NOT passed: failing lost. " + f"{tmp_path}: check.json")


def test_a_gpu_is_insisted_on_before_one_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gpu_check does: its tests fail where there is no GPU, and are not skipped."""
    spec = importlib.util.spec_from_file_location("on_device", ROOT / "tests" / "gpu" / "on_device.py")
    assert spec is not None
    assert spec.loader is not None
    on_device = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(on_device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("WEIGHTINIT_CUDA", raising=False)
    assert on_device.why_skipped() == "no CUDA device"
    monkeypatch.setenv("WEIGHTINIT_CUDA", "1")
    assert on_device.why_skipped() == ""


def test_stages_insist_on_a_gpu(tmp_path: Path) -> None:
    look = "import os; print(os.environ['WEIGHTINIT_CUDA'], os.environ['PYTHONPATH'].split(os.pathsep)[0])"
    check, _ = checked([script("look", look)], tmp_path)
    assert check.outcomes[0].said == f"1 {ROOT}"


def test_headlines() -> None:
    spread = {"median": 1.25}
    rows = [{"name": "a", "ratios": {"ours": {"nn.init": spread}}}, {"name": "b", "ratios": {"ours": {}}}]
    verdicts = [
        {"met": met, "measured": measured} for met, measured in (("yes", spread), ("no", spread), ("not measured", None))
    ]
    assert timed._headline({"rows": rows, "targets": verdicts}) == "1 of 2 targets met; least against nn.init: 1.25 x in a"
