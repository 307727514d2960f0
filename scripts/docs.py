"""The generated pages of the documentation, as a hook of MkDocs (mkdocs.yml): `make docs`.

Home is README.md, the changes and how to contribute the files beside it; a page per family of
layers, of ops, learners, tasks and optimisers comes from the tables (scripts/pages.py), cards of
released models from what reads them (scripts/cards.py), the notebooks from where they were executed
(scripts/run_notebooks.py --save), the API from docstrings.
"""

from __future__ import annotations

import logging
import pkgutil
import re
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import nbformat  # noqa: E402
from cards import cards  # noqa: E402
from latex2mathml.converter import convert  # noqa: E402
from mkdocs.structure.files import File  # noqa: E402
from nbconvert import MarkdownExporter  # noqa: E402
from pages import zoo  # noqa: E402

import seqjax  # noqa: E402

LOG = logging.getLogger("mkdocs.seqjax")
NOTEBOOKS = ROOT / "runs" / "notebooks"  # executed
# Packages whose public names have a page; layers have theirs with their family.
PACKAGES = ("core", "ops", "nn", "answers", "data", "tasks", "testing", "zoo", "stacks", "learn",
            "train", "hf")  # fmt: skip
Page = tuple[str, str | bytes]  # path below docs/, content


def on_config(config: Any) -> Any:
    """Fill the folders of the navigation, `- Title: folder/`, with the pages that are generated."""
    PAGES.clear()
    PAGES.update(generated())
    for entry in config.nav:
        for title, place in entry.items():
            if isinstance(place, str) and place.endswith("/"):
                pages = [p for p in PAGES if p.startswith(place) and p.endswith(".md")]
                entry[title] = sorted(pages, key=lambda p: not p.endswith("index.md"))
    return config


def on_files(files: Any, config: Any) -> Any:
    for path, content in PAGES.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """TeX, as `arithmatex` marks it, as MathML: it is in the page, and needs no script."""

    def mathml(match: re.Match) -> str:
        tex, block = unescape(match[2].strip()[2:-2]), match[1] == "div"
        return convert(tex, display="block" if block else "inline")

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', mathml, html, flags=re.DOTALL)


PAGES: dict[str, str | bytes] = {}


def generated() -> Iterator[Page]:
    yield "index.md", beside(ROOT / "README.md")
    for name in ("CHANGELOG", "CONTRIBUTING"):
        yield f"{name.lower()}.md", beside(ROOT / f"{name}.md")
    yield from zoo()
    yield from cards()
    yield from notebooks()
    yield from api()


def beside(path: Path) -> str:
    """A file of the repository as a page: what it links to in docs/ lies beside the page."""
    text = path.read_text().replace("](docs/", "](").replace('src="docs/', 'src="')
    for name in ("CHANGELOG", "CONTRIBUTING"):
        text = text.replace(f"]({name}.md)", f"]({name.lower()}.md)")
    return text.replace("](README.md)", "](index.md)")


def notebooks() -> Iterator[Page]:
    """The executed notebooks, their figures as files beside them."""
    titles = []
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = NOTEBOOKS / source.name
        if not executed.exists():
            LOG.warning("%s was not executed: run `make notebooks`", source.name)
        notebook: Any = nbformat.read(executed if executed.exists() else source, as_version=4)
        text, resources = MarkdownExporter().from_notebook_node(
            notebook, {"unique_key": source.stem, "output_files_dir": f"{source.stem}_files"}
        )
        yield f"notebooks/{source.stem}.md", f"{text}\n\n*Source: `notebooks/{source.stem}.py`.*\n"
        for name, content in resources["outputs"].items():
            yield f"notebooks/{name}", content
        titles.append((source.stem, re.search(r"^# (.*)", text, re.MULTILINE)))
    lines = [f"- [{title[1] if title else stem}]({stem}.md)\n" for stem, title in titles]
    yield "notebooks/index.md", "# Notebooks\n\n" + "".join(lines)


def api() -> Iterator[Page]:
    """A page for each package: its modules, and their public names."""
    lines = []
    for name in PACKAGES:
        package: Any = getattr(__import__(f"seqjax.{name}"), name)
        modules = [m.name for m in pkgutil.walk_packages(package.__path__, f"seqjax.{name}.")]
        modules = [m for m in modules if not re.search(r"\._", m)]
        own = f"::: seqjax.{name}\n    options:\n      show_root_heading: false\n"
        blocks = [own, *(f"::: {module}\n" for module in modules)]
        yield f"api/{name}.md", f"# seqjax.{name}\n\n" + "\n".join(blocks)
        title = (package.__doc__ or name).splitlines()[0]
        lines.append(f"- [`seqjax.{name}`]({name}.md): {title}\n")
    public = [getattr(seqjax, name) for name in seqjax.__all__]
    names = ", ".join(f"[`{one.__name__}`][{one.__module__}.{one.__name__}]" for one in public)
    yield "api/index.md", f"# API\n\nOf `import seqjax`: {names}.\n\n{''.join(lines)}"
