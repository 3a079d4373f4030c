"""README.md and docs/: examples run and print what they say, links lead to files, the reference and the map are complete.

``make docs`` builds the site and checks what needs the builder: references, headings, markup of docstrings.
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import weightinit_cuda as wi
from weightinit_cuda.__main__ import main

ROOT = Path(__file__).parents[1]
DOCS, PACKAGE, CSRC = ROOT / "docs", ROOT / "weightinit_cuda", ROOT / "csrc"
RECIPES = "docs/recipes.md"  # needs other libraries: run by tests/examples/test_recipes.py
PAGES = [str(path.relative_to(ROOT)) for path in sorted(DOCS.rglob("*.md")) + sorted(DOCS.rglob("*.rst"))]
ANYWHERE = [path for path in ROOT.glob("**/*.md") if not {".venv", "build"} & set(path.relative_to(ROOT).parts)]

# ---- examples and links ---------------------------------------------------------------------------------------------


def python_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(page: str, blocks: list[str]) -> None:
    """One after another, as a reader would type them."""
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


def test_readme_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # they save a plan
    blocks = python_of("README.md")
    assert blocks
    run("README.md", blocks)


@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page) and page != RECIPES])
def test_pages(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions print what the page says; blocks without prompts run."""
    monkeypatch.chdir(tmp_path)
    blocks = python_of(page)
    programs = [block for block in blocks if not block.startswith(">>>")]
    run(page, programs)
    result = doctest.testfile(str(ROOT / page), module_relative=False, encoding="utf-8")
    assert result.failed == 0
    assert result.attempted >= len(blocks) - len(programs)


def test_how_to_pages_have_examples() -> None:
    """Power of the test above: it finds them."""
    assert {"docs/guide/00_getting_started.md", "docs/plans.md", "docs/sharding.md"} <= {
        page for page in PAGES if python_of(page)
    }


@pytest.mark.parametrize("page", sorted(str(path.relative_to(ROOT)) for path in ANYWHERE))
def test_links(page: str) -> None:
    """Relative links lead to files."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "csrc/README.md", "benchmarks/README.md", *PAGES])
def test_paths(page: str) -> None:
    """Files and folders that the text names are there."""
    folders = "benchmarks|csrc|docs|examples|tests|tools|weightinit_cuda"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), f"{page}: {path}"


def test_one_python_version() -> None:
    required = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert required
    said = {(page, version) for page in PAGES for version in re.findall(r"Python >= ([\d.]+\d)", (ROOT / page).read_text())}
    assert said
    assert all(version == required[1] for _, version in said), said


# ---- the reference --------------------------------------------------------------------------------------------------


def documented() -> Iterator[str]:
    """Full names of all objects in docs/reference."""
    for page in sorted((DOCS / "reference").glob("*.rst")):
        module = ""
        for line in page.read_text(encoding="utf-8").splitlines():
            if match := re.match(r"\.\. (currentmodule|automodule):: (\S+)", line):
                module = match[2]
                yield module
            elif match := re.match(r"\.\. (?:auto)?(?:function|class|data):: (\S+)", line):
                yield match[1] if match[1].startswith("weightinit_cuda.") else f"{module}.{match[1]}"


def named(full: str) -> Any:
    module, _, name = full.rpartition(".")
    return getattr(import_module(module), name) if module else import_module(full)


@pytest.mark.parametrize("module", [wi, wi.init, wi.rules], ids=lambda module: module.__name__)
def test_reference_has_every_public_name(module: Any) -> None:
    names = set(documented())
    missing = [
        name
        for name in module.__all__
        if f"{module.__name__}.{name}" not in names
        and not any(full.endswith(f".{name}") and named(full) is getattr(module, name) for full in names)
    ]
    assert not missing


def test_reference_names_what_exists() -> None:
    for full in documented():
        named(full)


def test_reference_has_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    commands = re.findall(r"^  (\w+)  ", capsys.readouterr().out.partition("Commands:")[2], re.MULTILINE)
    page = (DOCS / "reference" / "command_line.rst").read_text(encoding="utf-8")
    assert "plan" in commands
    assert re.findall(r"^(\w+)\n-+$", page, re.MULTILINE) == commands


# ---- the maps -------------------------------------------------------------------------------------------------------


def tree_of(page: Path) -> Iterator[tuple[str, str]]:
    """Folder and text of each line of a map: a line that begins with a folder's name is about the folder, in `text`."""
    block = re.search(r"^```text\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert block
    folders: list[tuple[int, str]] = []  # indentation and name of those that are open
    for line in filter(None, block[1].splitlines()):
        indent = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= indent:
            folders.pop()
        if match := re.match(r"\s*(\w+)/", line):
            folders.append((indent, match[1]))
        yield "/".join(name for _, name in folders), line.strip()


def test_map_has_every_file_of_the_package() -> None:
    """A line of its own for each; that of a folder is its ``__init__.py``'s."""
    lines = []
    for folder, text in tree_of(DOCS / "map.md"):
        name, _, about = text.partition(" ")
        assert about.strip(), f"{name} has no word to it"
        lines.append(f"{folder}/__init__.py" if name.endswith("/") else f"{folder}/{name}")
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyi") or path.name == "py.typed"]
    assert sorted(lines) == sorted(path.relative_to(ROOT).as_posix() for path in files)


def test_map_has_every_file_of_csrc() -> None:
    """Lines may share files: ``dispatch.{h,cpp}``, ``fill_<isa>.cpp``."""
    found: set[Path] = set()
    for folder, text in tree_of(CSRC / "README.md"):
        for stem, end, ends in re.findall(r"(?<![\w/])([\w<>]+)\.(?:(\w+)|\{([\w,]+)\})", text):
            for suffix in [end] if end else ends.split(","):
                files = list((CSRC / folder).glob(f"{re.sub('<.*?>', '*', stem)}.{suffix}"))
                assert files, f"{folder}/{stem}.{suffix}"
                found |= set(files)
    assert found == {path for path in CSRC.rglob("*.*") if path.suffix in (".h", ".cpp", ".cu")}
