"""The documentation site: `sphinx-build -W -q scripts/docs DIR` (extra `docs`), without network.

Pages are Markdown; the command line's page is generated, the API's comes from docstrings.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

import snn_delays

HERE = Path(__file__).parent

project = "snn-delays"
author = "the snn-delays contributors"
copyright = f"2026, {author}"
release = snn_delays.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # `--set` is two hyphens
exclude_patterns = ["figures"]
default_role = "literal"  # docstrings quote names in single backticks
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["nest", "brian2", "nir", "nirtorch"]  # imported only by `verify` and `nir`
suppress_warnings = ["ref.python"]  # `Network` is the data model and what runs it
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shape", "Source"]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"snn-delays {release}"
html_show_sourcelink = False

NETWORKS = ("shd-learned", "shd-fixed", "shd-none", "synthetic-learned")
PAGES = {
    "PERFORMANCE.md": "performance.md",
    "RELIABILITY.md": "reliability.md",
    "CHANGELOG.md": "changelog.md",
    "datasets/synthetic/card.md": "data-sets.md#synthetic-ten-melodies-told-apart-by-timing-only",
    "datasets/shd/card.md#shd-regen": "data-sets.md#shd-regen",
    "datasets": "data-sets.md",
    "scripts/tour.ipynb": "../tour.ipynb",
    **{f"models/{name}/card.md": f"models.md#{name}" for name in NETWORKS},
    "models/shd-study": "../../models/shd-study/report.html",
    "models/shd-speakers-study": "method.md#learned-against-fixed-delays-over-speakers",
    "models/synthetic-study": "../../models/synthetic-study/report.html",
    "../../models/synthetic-study": "../../models/synthetic-study/report.html",
    "models/synthetic-memory-study": "data-sets.md#what-memory-does-instead",
    "../../models/synthetic-memory-study": "../../models/synthetic-memory-study/results.csv",
    "../shd/card.md": "data-sets.md#shd-spiking-heidelberg-digits",
}
"""Where the site has what the repository's files link to."""


def _links_into_the_site(
    app: Sphinx, path: Path, parent: str, content: list[str]
) -> None:  # called by Sphinx for every included file
    """Point the links of an included README at the site's pages and pictures."""
    text = content[0].replace("](scripts/docs/", "](")
    for target, page in PAGES.items():
        text = text.replace(f"]({target})", f"]({page})")
    content[0] = text


def _write_cli_page(app: Sphinx) -> None:
    """`cli.md`, from the commands themselves, by typer's own generator."""
    command = [sys.executable, "-m", "typer", "snn_delays.cli", "utils", "docs"]
    done = subprocess.run(
        [*command, "--name", "snn-delays"], capture_output=True, text=True, check=True
    )
    text = re.sub(r"<span[^>]*>(.*?)</span>", r"`\1`", done.stdout)
    text = text.replace("# `snn-delays`", "# The command line", 1)
    # The generator cuts the sentences in its lists of commands; the whole ones stand further down.
    whole = dict(re.findall(r"^##+ `snn-delays (?:data )?(\w+)`\n\n(.*)", text, re.MULTILINE))
    cut = re.compile(r"^\* `(\w+)`: .*\.\.\.$", re.MULTILINE)
    text = cut.sub(lambda found: f"* `{found[1]}`: {whole[found[1]]}", text)
    (HERE / "cli.md").write_text(text, encoding="utf-8")


def _inline_math(translator: Any, node: Any) -> None:
    """A formula in the text, as MathML: needs no script from elsewhere."""
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise SkipNode


def _block_math(translator: Any, node: Any) -> None:
    """A formula on its own, as MathML."""
    translator.body.append(tex2mathml(node.astext().strip(), as_block=True))
    raise SkipNode


def setup(app: Sphinx) -> None:
    """Connect what is generated."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("include-read", _links_into_the_site)
    app.connect("builder-inited", _write_cli_page)
