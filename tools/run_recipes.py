"""docs/recipes.md: runs its snippets with the libraries that they name, and writes what they print, and with which versions.

    python tools/run_recipes.py            # says what differs from the page
    python tools/run_recipes.py --write    # and writes it there

Each section is run in processes of its own: what begins with ``# torchrun --nproc-per-node 2`` in two, which rank 0 prints for,
the rest of a section one after another in one. ``tests/examples/test_recipes.py`` does the same.
"""

from __future__ import annotations

import argparse
import ast
import doctest
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "recipes.md"
SNIPPET = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
TABLE = re.compile(r"(?<=<!-- versions:begin -->\n).*?(?=<!-- versions:end -->)", re.DOTALL)
TORCHRUN = re.compile(r"# torchrun --nproc-per-node (\d+)")
DISTRIBUTIONS = {"megatron": "megatron-core"}  # where a library is installed under another name than it is imported
OWN = {"weightinit_cuda", "distributed_megatron"}  # this repository's
SEPARATOR = "---- the next snippet ----"
SECONDS = 240
DRIVER = f"""
import os, runpy, sys
if {{deepspeed}}:  # it would compile a module for shared memory, which takes minutes and is no part of the recipe
    import deepspeed
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="__main__")
    if os.environ.get("RANK", "0") == "0":
        print({SEPARATOR!r}, flush=True)
"""


class Snippet(NamedTuple):
    """A block of the page, and what it says to print."""

    section: str
    code: str
    printed: str

    @property
    def libraries(self) -> set[str]:
        """What it imports that is neither Python's nor this repository's."""
        nodes = list(ast.walk(ast.parse(self.code)))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        needs = {"accelerate"} if "TrainingArguments" in self.code else set()  # of transformers, which imports it late
        return needs | {name.partition(".")[0] for name in names} - OWN - set(sys.stdlib_module_names)

    @property
    def processes(self) -> int:
        found = TORCHRUN.match(self.code)
        return int(found[1]) if found else 0

    def prints(self, text: str) -> bool:
        """Whether this is what the page says; there ``...`` stands for anything."""
        return doctest.OutputChecker().check_output(self.printed, text, doctest.ELLIPSIS)


class NotInstalledError(Exception):
    """A library of a snippet, or one that this needs, is not there."""


def snippets(page: str) -> Iterator[Snippet]:
    """Those of the page, in order."""
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        for found in SNIPPET.finditer(section):
            yield Snippet(section.partition("\n")[0], found["code"], found["printed"] or "")


def runs(page: str) -> list[list[Snippet]]:
    """What is run in one process, or by one call of torchrun."""
    found: dict[tuple[str, int], list[Snippet]] = {}
    for number, snippet in enumerate(snippets(page)):
        found.setdefault((snippet.section, snippet.processes and number + 1), []).append(snippet)
    return list(found.values())


def printed(together: Sequence[Snippet], folder: Path) -> list[str]:
    """What each of them prints, in an empty folder.

    Raises:
        NotInstalledError: a library is missing.
        RuntimeError: a snippet fails; with what it wrote.
    """
    needed = set().union(*(snippet.libraries for snippet in together))
    if missing := sorted(name for name in needed if find_spec(name) is None):
        raise NotInstalledError(f"{', '.join(missing)} not installed")
    driver, processes = folder / "driver.py", together[0].processes
    driver.write_text(DRIVER.format(deepspeed="deepspeed" in needed), encoding="utf-8")
    paths = [folder / f"snippet_{number}.py" for number in range(len(together))]
    for path, snippet in zip(paths, together, strict=True):
        path.write_text(snippet.code, encoding="utf-8")
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes else []
    search = os.pathsep.join([str(ROOT), str(ROOT / "examples"), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"PYTHONPATH": search, "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    settings["PYTHONIOENCODING"] = "utf-8"
    done = subprocess.run(
        [sys.executable, *many, str(driver), *map(str, paths)],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        absent = re.search(r"ModuleNotFoundError: No module named '(\w+)", done.stderr)
        if absent and absent[1] not in OWN:
            raise NotInstalledError(f"{absent[1]} not installed")
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-4000:])
    return done.stdout.split(f"{SEPARATOR}\n")[: len(together)]


def versions(page: str) -> dict[str, str]:
    """Of the libraries of the page that are installed."""
    found = {}
    for library in sorted(set().union(*(snippet.libraries for snippet in snippets(page)))):
        distribution = DISTRIBUTIONS.get(library, library)
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def table(found: dict[str, str]) -> str:
    rows = "".join(f"| {library} | {number} |\n" for library, number in found.items())
    return f"| library | version |\n|---|---|\n{rows}"


def versions_said(page: str) -> dict[str, str]:
    """What the page's table says."""
    said = TABLE.search(page)
    return dict(re.findall(r"^\| (?!library)([\w-]+) \| (\d\S*) \|$", said[0] if said else "", re.MULTILINE))


def with_output(page: str, snippet: Snippet, text: str) -> str:
    block = f"```python\n{snippet.code}```\n"
    old = f"{block}\n```text\n{snippet.printed}```\n" if snippet.printed else block
    return page.replace(old, f"{block}\n```text\n{text}```\n" if text else block)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write what is printed, and the versions, into the page")
    parser.add_argument("--only", default="", help="sections whose heading has this in it")
    options = parser.parse_args()
    page, complete = PAGE.read_text(encoding="utf-8"), True
    for together in runs(page):
        name = f"{together[0].section}, {len(together)} snippets"
        if options.only not in name:
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                texts = printed(together, Path(folder))
        except (NotInstalledError, RuntimeError) as error:
            print(f"{name}: {error}")
            complete = False
            continue
        for snippet, text in zip(together, texts, strict=True):
            same = snippet.prints(text)
            print(f"{name}: {'as the page says' if same else text}")
            page = page if same else with_output(page, snippet, text)
    if options.write:
        found = versions_said(page) | versions(page)
        PAGE.write_text(TABLE.sub(lambda _: table(dict(sorted(found.items()))), page), encoding="utf-8")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
