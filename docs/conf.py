"""How Sphinx builds these pages. It needs no network."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.ext.napoleon import GoogleDocstring

import together_batches

sys.path.insert(0, str(Path(__file__).parent))  # for _messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "together_batches"
author = "The together_batches authors"
project_copyright = author
version = release = together_batches.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_llm_friendly",  # each page as Markdown, and llms.txt
    "_messages",
]
exclude_patterns = ["_build"]
nitpicky = True

# Of a shell, the commands alone are copied.
copybutton_prompt_text = "$ "
copybutton_copy_empty_lines = False
copybutton_line_continuation_character = "\\"
llm_friendly_llms_txt_toctree_only = True  # in the order of the navigation

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True

# Types of the standard library and of aiohttp: without a network there is no inventory to find them in.
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|datetime|enum|os|pathlib|types|typing)\b.*"),
    (r"py:.*", r"(bool|bytes|dict|float|int|list|object|str|tuple|None)"),
    (r"py:.*", r"Prompt|Table"),  # the page explains them beside the function that takes them
    (r"py:.*", r"(Exception|ExceptionGroup|KeyError|TimeoutError|TypeError|ValueError)"),
    (r"py:.*", r"ClientSession|Path|SSLContext|timedelta"),
    (r"py:.*", r"(metrics|trace)\..*"),  # of OpenTelemetry
    (r"py:.*", r"(together_batches\.rows\.)?T(_co)?"),
    (r"py:.*", r"together_batches\._fields\.Plain"),  # any value of the package
]

html_theme = "furo"
html_title = f"together_batches {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False


# Names from together_batches.typing, and the sections of reference/api that tell what they are.
EXPLAINED = {
    "AsyncFollower": "followers",
    "ClientEvent": "events",
    "Follower": "followers",
    "Ids": "ids",
    "LoopIterator": "iterators",
    "Order": "requests",
    "Prices": "types-for-annotations",
    "Prompt": "requests",
    "Requests": "requests",
    "RowsFile": "single-attempts",
    "RunRequests": "types-for-annotations",
    "Save": "single-attempts",
    "Schema": "types-for-annotations",
    "SchemaAdapter": "types-for-annotations",
    "Source": "files",
    "Stream": "iterators",
    "Table": "requests",
    "Writable": "single-attempts",
}


def _read_sections(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Understand ``Parameters:`` and ``Raises:``.

    Not by the napoleon extension itself: in the docstring of a property it takes the words before a colon for a type.
    """
    if what in {"class", "exception", "function", "method"}:
        lines[:] = GoogleDocstring(lines, what=what, name=name, obj=obj).lines()


def _simplify_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show what a user writes: ``list`` and not ``builtins.list``, and a body without the text that it is carried as.

    Errors are caught and not made, so how they are made is left out.
    """
    if what == "exception":
        return (signature and ""), None
    for private in ("_fields.Carried", "_fields.Plain"):
        signature = signature and re.sub(rf"( \||:) ~together_batches\.{private}", "", signature)
    return signature, returns and returns.replace("builtins.", "")


def _public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement | nodes.Text
) -> nodes.reference | None:
    """Lead ``together_batches.models.BatchJob``, as annotations have it, to where ``BatchJob`` is documented."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if name == "_Status":  # an alias for type checkers
        name = "BatchJobStatus"
        contnode = nodes.Text(name)
    found = env.domains.python_domain.objects.get(f"together_batches.{name}")
    if found is not None and name in together_batches.__all__:
        page, anchor = found.docname, found.node_id
    elif name in EXPLAINED:
        page, anchor = "reference/api", EXPLAINED[name]
    else:
        return None
    uri = app.builder.get_relative_uri(node.get("refdoc", env.docname), page)
    return nodes.reference("", "", contnode, internal=True, refuri=f"{uri}#{anchor}")


class NotebookParser(MystParser):
    """Parser of notebooks, as Markdown: its cells, and the outputs that are saved in it."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse a notebook."""
        cells = json.loads(inputstring)["cells"]
        super().parse("\n\n".join(part for cell in cells for part in _parts(cell)), document)


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    yield f"```python\n{source}\n```" if cell["cell_type"] == "code" else source
    for output in cell.get("outputs", ()):
        data = {kind: "".join(lines) for kind, lines in output.get("data", {}).items()}
        if shown := data.get("text/html"):
            yield f'```{{raw}} html\n<div class="output">\n{shown}\n</div>\n```'
        else:
            yield f"```text\n{data.get('text/plain') or ''.join(output.get('text', ()))}\n```"


def _leave_out_comments(app: Sphinx, doctree: nodes.document) -> None:
    """Remove the comments of the Markdown, which hold what prepares the examples for their test."""
    for node in [node for node in doctree.findall(nodes.raw) if node.astext().startswith("<!--")]:
        node.parent.remove(node)


def _write_llms_full(app: Sphinx, exception: Exception | None) -> None:
    """Join the pages that llms.txt lists, in its order, each under its path, so that links between them are clear."""
    if exception is None and app.builder.name == "html":
        pages = re.findall(r"^- \[.+\]\((.+\.md)\)$", (app.outdir / "llms.txt").read_text("utf-8"), re.MULTILINE)
        texts = (f"<!-- {page} -->\n\n{(app.outdir / page).read_text('utf-8').strip()}\n" for page in pages)
        (app.outdir / "llms-full.txt").write_text("\n".join(texts), "utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    app.connect("autodoc-process-docstring", _read_sections)
    app.connect("autodoc-process-signature", _simplify_signature)
    app.connect("missing-reference", _public_name)
    app.connect("doctree-read", _leave_out_comments)
    app.connect("build-finished", _write_llms_full, priority=900)  # after llms.txt
