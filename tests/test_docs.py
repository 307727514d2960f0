"""Every Python block of the documentation runs, in order, in one namespace a page."""

import doctest
import importlib
import re
import shlex
from pathlib import Path

import jax
import pytest
from flax import nnx

import seqjax
from scripts.prose import markdown
from seqjax.core import monoid
from seqjax.tasks import TASKS
from seqjax.tools import cli
from seqjax.tools.tables import TABLES
from seqjax.zoo import LAYERS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if re.search(r"^```python\n", path.read_text(), re.MULTILINE)
    and path.stem not in ("own_data", "logging")  # tests/test_logging.py
)


@pytest.mark.share(1)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page_runs(page):
    """As a user runs it, in float32; blocks with a title are the other library's."""
    text = page.read_text()
    namespace: dict = {"__name__": f"docs.{page.stem}"}
    standard = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with jax.enable_x64(False), standard[0], standard[1]:
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text[: match.start()].count("\n") + 1
            code = compile("\n" * line + match[1], str(page), "exec")
            exec(code, namespace)


@pytest.mark.share(2)
@pytest.mark.parametrize("name", seqjax.__all__)
def test_example_of_a_public_name_runs(name):
    """Each has one; a reader has imported jax, jnp, nnx, seqjax and its algebras."""
    public = getattr(seqjax, name)
    known = {"jax": jax, "jnp": jax.numpy, "nnx": nnx, "seqjax": seqjax}
    known |= {"diagonal": monoid.diagonal, "total": monoid.total, public.__name__: public}
    found = doctest.DocTestFinder(recurse=False).find(public, name, globs=known)
    assert sum(len(one.examples) for one in found), f"seqjax.{name} has no example"
    standard = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with jax.enable_x64(False), standard[0], standard[1]:
        results = doctest.DocTestRunner().run(found[0])
    assert not results.failed


def test_docstrings_become_markdown():
    """What is indented stays as it is, arguments are a list, nothing else is markup."""
    found = markdown("""A sum_t (arXiv:2312.06635), as `a_b` has it:
            h_t = a * h_{t-1}     [T, D]

        x: [T, D] inputs, which
            go on here
        mask, resets: where it stops
        Raises ValueError for <others>.

        one: sentence with a colon
        that goes on.
        >>> f(x)  # <here>
        3
        """)
    assert found.splitlines() == [
        r"A sum\_t ([arXiv:2312.06635](https://arxiv.org/abs/2312.06635)), as `a_b` has it:",
        "",
        "    h_t = a * h_{t-1}     [T, D]",
        "",
        r"- `x`: \[T, D\] inputs, which",
        "    go on here",
        "- `mask, resets`: where it stops",
        "",
        r"Raises ValueError for &lt;others\>.",
        "",
        "one: sentence with a colon",
        "that goes on.",
        "",
        "    >>> f(x)  # <here>",
        "    3",
    ]


@pytest.mark.thorough  # a program each; tests/test_average.py and test_optimiser.py have the like
def test_commands_of_a_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "training.md").read_text()
    commands = re.findall(r"^\$ seqjax (.*)$", text, re.MULTILINE)
    assert len(commands) > 1
    for command in commands:
        assert cli.main([*shlex.split(command), "--tiny"]) == 0, command


def test_pages_of_the_zoo(monkeypatch):
    """A row: its equation, options with their meanings, costs and goldens, from its own file."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    pages = importlib.import_module("pages")
    row = next(row for row in TABLES["layers"]() if row.name == "gla")
    page = pages.family("linear_attention", "Linear attention.", [row])
    assert "    S_t = Diag(alpha_t) S_{t-1} + k_t^T v_t " in page
    assert re.search(r"\| `tau` \| `16` \| a number above 0 \| temperature of the gate", page)
    assert re.search(r"\[`gla`\]\(#gla\) \| .* \| 2023 \| \d", page)
    page = pages.listed("tasks", pages.task_text, "Tasks", "All of them.")
    assert all(f"## {name}\n" in page and f"`seqjax train {name}`" in page for name in TASKS)
    assert pages.year("2102.11174, 2406.06484") == "2021"
    assert pages.year("Gers et al. 2000") == "2000" and pages.year("this page") == ""
    measured = {name for name, row in pages.ZOO["rows"].items() if "us" in row}
    assert set(LAYERS) <= measured, "run: python scripts/zoo.py time"
