"""The scripts of the guide in short form: they run, say what their pages claim, and draw; and the notebook."""

from __future__ import annotations

import ast
import gzip
import io
import json
import math
import pickle
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS, IMAGES, PAGES = ROOT / "examples" / "guide", ROOT / "docs" / "images" / "guide", ROOT / "docs" / "guide"
NAMES = sorted(path.stem for path in SCRIPTS.glob("p[0-9]*.py"))

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """They import each other, as they do when run; numbers do not depend on the tests before."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    torch.manual_seed(0)
    yield
    for name in [*NAMES, "figure", "images", "train", "notebook"]:
        sys.modules.pop(name, None)


def measured(name: str) -> Any:
    return import_module(name).measure(True)


@pytest.mark.parametrize("name", NAMES)
def test_scripts_draw_their_figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    script, figure = import_module(name), import_module("figure")
    page = name.removeprefix("p")
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--svg", str(tmp_path / "a.svg")])
    figure.run(page, script.measure, script.draw, script.show)
    assert capsys.readouterr().out.strip()
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
    assert "<dc:date>" not in drawn
    assert (IMAGES / f"{page}.svg").exists()
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    assert f"../images/guide/{page}.svg" in text
    assert f"examples/guide/{name}.py" in text


def test_every_page_has_a_script() -> None:
    pages = sorted(path.stem for path in PAGES.glob("[01]*.md"))
    assert pages[1:] == [name.removeprefix("p") for name in NAMES]
    assert len(NAMES) == 11


def test_symmetry() -> None:
    found = measured("p01_symmetry")
    assert [one.verdict for one in found.values()] == ["FAIL", "FAIL", "WARN", "ok"]
    assert [one.different for one in found.values()] == [1, 1, 32, 32]


def test_signal() -> None:
    found = measured("p02_signal")
    assert [verdict for verdict, _, _ in found.values()] == ["FAIL", "WARN", "ok"]
    for _, layers, sigmoids in found.values():
        assert all(0.45 < row.rms < 0.65 for row in sigmoids)  # looks healthy
        assert layers[0].gradient < layers[-1].gradient


def test_verdicts_of_the_seventeen_starts() -> None:
    """On digits here, on MNIST on the page: the verdicts are the same."""
    found = measured("p03_first_net")
    assert {name for name, one in found.items() if one.verdict == "ok"} == {"by data, each unit", "auto, sigmoid_gain=4"}
    failed = {"torch's default", "N(0, 0.01²)", "U(±0.01)", "all 0.1", "all 1", "all 0"}
    assert {name for name, one in found.items() if one.verdict == "FAIL"} == failed
    assert len(found) == 17


def test_activations() -> None:
    found = measured("p04_activations")
    assert {name: one.verdict for name, one in found["tanh"].items()}["auto"] == "ok"
    assert {one.verdict for name, one in found["sigmoid"].items() if "gain" not in name} == {"FAIL"}


def test_default_is_what_the_integral_says() -> None:
    for name, rows in measured("p05_default").items():
        for depth, nats, computed, _ in rows:
            assert nats == pytest.approx(computed, rel=0.15, abs=0.5), (name, depth)


def test_depth() -> None:
    found = measured("p06_depth")
    assert found[5, 1.3] > 0.8


def test_data_dependent() -> None:
    found = measured("p07_data_dependent")
    assert [one.verdict for one in found.values()] == ["FAIL", "WARN", "FAIL", "ok"]
    assert found["by unit"].signals[-2] == pytest.approx(1, abs=0.05)


def test_transformers() -> None:
    found = measured("p08_transformers")
    assert {name: one.verdict for name, one in found.items()} == {
        "std 0.02 everywhere": "ok",
        "gpt2": "ok",
        "xavier": "WARN",
        "auto": "ok",
        "std 1 everywhere": "FAIL",
    }
    assert found["auto"].loss < math.log(1000) + 1 < 30 < found["xavier"].loss
    assert found["std 1 everywhere"].sharp > 0.9


def test_width() -> None:
    found = measured("p09_width")
    assert abs(found["muP"].exponents["6.weight"]) < 0.35 < 0.6 < found["standard"].exponents["6.weight"]


def test_cut_normals() -> None:
    for plain, full, exact in measured("p10_details").values():
        assert plain == pytest.approx(exact, rel=0.02)
        assert full == pytest.approx(1, rel=0.02)


def test_tutorials() -> None:
    found = measured("p11_tutorials")
    assert [verdict for verdict, _ in found.values()] == ["FAIL", "WARN", "ok"]
    assert found["auto, sigmoid_gain=4"][1][-1] < 1.5 < 2.2 < found["the lecture's Xavier"][1][-1]


# ---- MNIST -------------------------------------------------------------------------------------------------------------


def write_mnist(folder: Path, content: Any) -> None:
    (folder / "mnist" / "data").mkdir(parents=True)
    (folder / "mnist" / "__init__.py").write_text("raise ImportError('must not be imported')")
    with gzip.open(folder / "mnist" / "data" / "mnist.pkl.gz", "wb") as file:
        pickle.dump(content, file)


def test_mnist_is_read_without_running_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    part = numpy.zeros((3, 784), numpy.float32), numpy.arange(3)
    write_mnist(tmp_path, (part, part, part))
    monkeypatch.syspath_prepend(str(tmp_path))
    images = import_module("images")
    (pixels, classes), _ = images.mnist()
    assert pixels.shape == (3, 784)
    assert classes.tolist() == [0, 1, 2]


def test_a_pickle_that_calls_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("called",)

    write_mnist(tmp_path, (Evil(), 1, 2))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(pickle.UnpicklingError, match=r"a file with arrays alone is required, got \w+\.print"):
        import_module("images").mnist()


# ---- the notebook ------------------------------------------------------------------------------------------------------


def test_notebook_is_the_page() -> None:
    """Else: python examples/guide/notebook.py"""
    made = import_module("notebook")
    assert made.NOTEBOOK.read_text(encoding="utf-8") == made.as_text(made.PAGE.read_text(encoding="utf-8"))


def test_notebook_runs() -> None:
    """Cell by cell in one namespace; each shows what is stored with it."""
    cells = json.loads((SCRIPTS / "11_tutorials.ipynb").read_text(encoding="utf-8"))["cells"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        [output] = cell["outputs"] or [None]
        result = run_cell("".join(cell["source"]), namespace)
        if output is not None:
            shown += 1
            assert result == stored(output), cell["source"]
    assert shown > 8


def run_cell(source: str, namespace: dict[str, Any]) -> str:
    """What a kernel would show: what is printed, else the value of a last expression, else the error."""
    tree, printed = ast.parse(source), io.StringIO()
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    try:
        with redirect_stdout(printed):
            exec(compile(tree, "cell", "exec"), namespace)
            value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)  # type: ignore[attr-defined]
    except (AttributeError, NameError) as error:
        return f"{type(error).__name__}: {error}"
    return printed.getvalue() + ("" if value is None else repr(value))


def stored(output: dict[str, Any]) -> str:
    if output["output_type"] == "error":
        return f"{output['ename']}: {output['evalue']}"
    return "".join(output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"])
