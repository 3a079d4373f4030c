"""How the documentation is built: ``make docs`` (Sphinx, MyST for Markdown, autodoc for the reference).

Everything is made from files of this repository, without a network. Warnings are errors: unknown references, links to files or
headings that do not exist, invalid markup in a docstring. The pages read without a server, search and mathematics included.
"""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

DOCS = Path(__file__).parent
ROOT = DOCS.parent
logger = logging.getLogger(__name__)
sys.path.insert(0, str(ROOT))

from weightinit_cuda import __version__  # noqa: E402 the package of this tree, installed or not
from weightinit_cuda.__main__ import main  # noqa: E402

# ---- the site -------------------------------------------------------------------------------------------------------

project, author, release = "weightinit_cuda", "the authors of weightinit_cuda", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
default_role = "literal"  # single backticks
nitpicky = True  # a reference that leads nowhere is a warning, and a warning is an error
nitpick_ignore_regex = [  # documented elsewhere, and there is no network; type variables
    ("py:.*", r"(torch|collections|os|pathlib|types|typing)\..*|ProcessGroup"),
    ("py:class", r"weightinit_cuda\..*\.(Module|Perturbed|Root|_R|Origins)"),  # type variables, and what is not public
    # of named tuples, whose annotations Sphinx does not resolve
    ("py:class", r"Figure|(Argument)?Kind|Mode|Status|Tensor|nn\.Module"),
]

html_theme = "pydata_sphinx_theme"
html_title = "weightinit_cuda"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_sidebars: dict[str, list[str]] = {"index": []}
html_theme_options = {
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "show_toc_level": 2,  # functions of a reference page, too
    "navbar_align": "left",
    "footer_start": [],
    "footer_end": [],
}
html_math_renderer = "mathml"

# ---- pages ----------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["deflist", "attrs_block", "dollarmath"]
myst_heading_anchors = 3  # links such as page.md#a-heading are checked
PAGES = {  # files of the repository that the site shows
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarking.md",
    "csrc/README.md": "map.md",
}


def _site_links(text: str, file: Path, page: Path) -> str:
    """Links of a file, as the page that shows it needs them: to pages where there are pages; a folder is only its name."""

    def link(match: re.Match[str]) -> str:
        label, target, anchor = match.groups(default="")
        path = (file.parent / target).resolve()
        if "://" in target or not path.exists():  # the builder says so
            return match[0]
        if path.is_dir():
            return label
        name = path.relative_to(ROOT).as_posix()
        to = os.path.relpath(DOCS / PAGES[name] if name in PAGES else path, page.parent)
        return f"[{label}]({to}{anchor})"

    return re.sub(r"\[([^\[\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)", link, text)


def _read_page(_app: Sphinx, docname: str, text: list[str]) -> None:
    if (page := DOCS / f"{docname}.md").exists():
        text[0] = re.sub(r"\n\n```$", "\n```", _site_links(text[0], page, page), flags=re.MULTILINE)  # doctest's last line


def _read_included(_app: Sphinx, path: Path, docname: str, text: list[str]) -> None:
    text[0] = _site_links(text[0], DOCS / path, DOCS / docname)


# ---- docstrings -----------------------------------------------------------------------------------------------------

ALIASES = {  # shown by name, and explained in reference/types.rst and reference/rules.rst
    name: f"weightinit_cuda.{module}.{name}"
    for module, names in {
        "checkpoints.files": ["Checkpoint"],
        "checkpoints.fingerprint": ["Buffers"],
        "tensors.named": ["Model"],
        "rules.rule": ["Fill", "Given", "Match", "Rules"],
        "init.fans": ["Axes"],
        "diagnosis.verdict": ["Level"],
        "diagnosis.doctor": ["SymptomKind"],
        "diagnosis.watch": ["Writer"],
    }.items()
    for name in names
}

add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_type_aliases = ALIASES
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_param = False  # "a, b: the bounds" stays one line
napoleon_use_rtype = False
python_maximum_signature_line_length = 100
LABEL = re.compile(r"(Numerics|Source): ")


def _docstring(_app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Paragraphs that begin with "Numerics:" or "Source:" stand beside Parameters, Returns and Raises; pages are links."""
    inside = False
    for i, line in enumerate(lines):
        line = re.sub(r"`+docs/([\w/]+)\.md`+", r":doc:`/\1`", line)
        inside = bool(LABEL.match(line)) or (inside and bool(line))
        lines[i] = f":{line}" if LABEL.match(line) else f"    {line}" if inside else line


def _name_aliases(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Sphinx 9.0 writes an alias inside a union as the repr of its placeholder."""

    def named(text: str | None) -> str | None:
        text = text and re.sub(r"TypeAliasForwardRef\('([\w.]+)'\)", r"\1", text)
        return text and re.sub(r"(?<![~\w.])weightinit_cuda[\w.]+", r"~\g<0>", text)  # by its last name

    return named(signature), named(returns)


def _skip_fields(_app: Sphinx, _what: str, _name: str, obj: object, _skip: bool, _options: object) -> bool | None:
    """Fields of a named tuple are explained by its own docstring."""
    return True if type(obj).__name__ == "_tuplegetter" else None


# ---- mathematics and the command line -------------------------------------------------------------------------------


def _mathml(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """MathML, which browsers show by themselves: no script, no font, no network."""
    source = re.sub(r"\\text\{[^}]*\}", lambda text: text[0].replace(r"\_", "_"), node.astext())  # docutils keeps \_ there
    try:
        writer.body.append(tex2mathml(source, as_block=isinstance(node, nodes.math_block)))
    except MathError as error:
        logger.warning("%s: %s", node.astext(), error, location=node)
    raise nodes.SkipNode


class CommandHelp(SphinxDirective):
    """``.. command-help:: plan``: what ``weightinit-cuda plan --help`` prints."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        os.environ["COLUMNS"] = "100"  # lines are as long as the terminal is wide
        printed = io.StringIO()
        with redirect_stdout(printed):
            main([*self.arguments, "--help"])
        return [nodes.literal_block(text=printed.getvalue(), language="text")]


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_mathml, None), (_mathml, None))
    app.add_directive("command-help", CommandHelp)
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon's
    app.connect("autodoc-process-signature", _name_aliases)
    app.connect("autodoc-skip-member", _skip_fields)
