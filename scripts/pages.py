"""Pages made from the tables: a page per family of layers, ops, learners, tasks, optimisers.

What a row has is read from the tables of seqjax; what was measured, and which goldens a layer
answers, from scripts/zoo.json (`python scripts/zoo.py`). `python scripts/pages.py` writes the
figure of README.md, docs/zoo.png.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prose import links, markdown, prose, table

from seqjax.core.files import save_figure
from seqjax.learn import LEARNERS
from seqjax.tools.sheets import SHEETS, Sheet, layer_sheet, optimiser_sheet, task_text, theory_sheet
from seqjax.tools.tables import Kind, Row, sorted_rows
from seqjax.train.progress import short
from seqjax.zoo import FAMILIES, LAYERS, family as family_of

FEATURES = 64
ROOT = Path(__file__).resolve().parent.parent
ZOO = json.loads((ROOT / "scripts" / "zoo.json").read_text())
MEASURED = (
    f"Time and temporary memory of a token, of a pass and of one with gradients, by the default "
    f"evaluator at {ZOO['measured']['shape']} and default options: `{ZOO['measured']['command']}`, "
    f"{ZOO['measured']['device']}, {ZOO['measured']['versions']}, {ZOO['measured']['date']}. "
    "Only ratios within one run count."
)
Page = tuple[str, str | bytes]


def zoo() -> Iterator[Page]:
    rows = sorted_rows("layers")
    lines = []
    for module in FAMILIES:
        name, title = module.__name__.rpartition(".")[2], (module.__doc__ or "").strip()
        mine = [row for row in rows if row.family == name]
        yield f"zoo/{name}.md", family(name, title, mine)
        yield f"zoo/{name}.svg", drawn(dots(mine), "svg")
        of = ", ".join(f"[`{row.name}`]({name}.md#{row.name})" for row in mine)
        lines.append(f"- **[{title.rstrip('.')}]({name}.md)**: {of}\n")
    yield "zoo/ops.md", ops()
    yield "zoo/learners.md", learners()
    yield "zoo/tasks.md", listed("tasks", task_text, "Tasks", "What models are judged by.")
    yield "zoo/optimisers.md", listed("optimisers", optimiser_sheet, "Optimisers", OPTIMISERS)
    yield "zoo/theory.md", listed("theory", theory_sheet, "Theory", THEORY)
    cards = (ROOT / "seqjax" / "models").glob("*/CARD.md")
    yield (
        "zoo/models.md",
        TRAINED + "".join("#" + card.read_text() + "\n" for card in sorted(cards)),
    )
    yield "zoo/zoo.svg", drawn(scatter(), "svg")
    yield "zoo/index.md", INDEX.format(layers="".join(lines), count=len(rows), measured=MEASURED)


INDEX = """# The zoo

{count} layers, each one file, each held to the laws of `seqjax check` and, where there are any,
to the numbers of its official implementation. Any of them by its name: `seqjax.make("gla", 64,
heads=2, rngs=rngs)`, `--model.layer gla heads=2`, `seqjax bench gla`.

{layers}
- **[Ops](ops.md)**: the meanings that layers run
- **[Learners](learners.md)**: ways to learn beyond backpropagation through the whole sequence
- **[Tasks](tasks.md)**: what they are judged by
- **[Optimisers](optimisers.md)**
- **[Theory](theory.md)**
- **[Trained models](models.md)**: small ones, that come with the package

![Floats of a state against the time of a token](zoo.svg)

State and time of a token (a forward pass) of every layer at 64 features. {measured}
"""


TRAINED = """# Trained models

Small ones that come with the package: `seqjax generate python` a minute after install, `seqjax eval
mqar`, `seqjax train TASK --from permutations`.

"""
OPTIMISERS = (
    "Optimisers by name, with the options, defaults and words of "
    "[optax](https://optax.readthedocs.io): `--optimiser.name lion --optimiser.options b1=0.95`."
)

THEORY = (
    "Questions of theory, asked of any layers: `seqjax theory NAME --layer gru lstm chrono=100 "
    "--figure FILE.png` prints a table and draws its curves; the functions are in `seqjax.theory`."
)


def family(name: str, title: str, rows: list[Row]) -> str:
    """A page: an overview, the costs as a picture, and every row in full."""
    overview = table(
        ("name", "what", "year", "us", "KiB"),
        [
            (
                f"[`{row.name}`](#{row.name})",
                prose(row.title),
                year(row.reference),
                *costs(row.name),
            )
            for row in rows
        ],
    )
    parts = "\n".join(map(layer, rows))
    picture = f"![Time of a token]({name}.svg)\n\n{MEASURED}"
    return f"# {title.rstrip('.')}\n\n{overview}{picture}\n\n{parts}"


def layer(row: Row) -> str:
    """What the file of a layer explains, its options, and how it runs."""
    make, cost = LAYERS[row.name].make, ZOO["rows"].get(row.name, {})
    sheet = layer_sheet(row, FEATURES, needed(row.name))
    goldens = ", ".join(f"{name} {n}" for name, n in cost.get("goldens", {}).items())
    reasons = [f"{law} ({prose(why)})" for law, why in row.exempt.items()]
    facts = [
        ("source", f"`{make.__module__}.{make.__name__}`, {links(row.reference)}"),
        ("kind", row.kind),
        ("transition", row.transition),
        ("state", state(row)),
        ("evaluators", ", ".join(row.evaluators)),
        (f"at {FEATURES} features", work(sheet["costs"])),
        ("goldens", goldens),
        ("exempt from", ", ".join(reasons)),
        ("try it", f"`{sheet['example']}`"),
    ]
    facts = [f"- {name}: {value}\n" for name, value in facts if value]
    return (
        f"## {row.name} {{#{row.name}}}\n\n{markdown(sheet['document'])}\n\n"
        f"{''.join(facts)}\n{options(sheet)}"
    )


def work(costs: dict[str, Any]) -> str:
    return (
        f"{short(costs['parameters'])} parameters, {short(costs['state_bytes'])} bytes of state, "
        f"{short(costs['flops_per_token'])} flops a token"
    )


def options(sheet: dict[str, Any]) -> str:
    known = [
        (f"`{one['name']}`", f"`{one['default']}`" if one["default"] else "", prose(one["range"]),
         prose(one["meaning"]))
        for one in sheet["options"]
    ]  # fmt: skip
    return table(("option", "default", "range", "meaning"), known) if known else ""


def ops() -> str:
    parts = []
    for row in sorted_rows("ops"):
        sheet = SHEETS["ops"](row)
        equation = "".join(f"    {line.strip()}\n" for line in sheet["equation"].splitlines())
        layers = ", ".join(f"[`{n}`]({family_of(n)}.md#{n})" for n in sheet["layers"])
        parts.append(
            f"## {row.name}\n\n{prose(row.title)} ({links(row.reference)})\n\n{equation}\n"
            f"- evaluators: {', '.join(row.evaluators)}\n"
            f"- layers: {layers}\n"
            f"- API: [`seqjax.{row.name}`](../api/ops.md)\n"
        )
    head = "A meaning over arrays: a naive loop that defines it, and evaluators that compute it."
    return f"# Ops\n\n{head}\n\n" + "\n".join(parts)


def learners() -> str:
    ways = [
        (f"`{name}`", way.family, f"{prose(way.title)} ({links(way.reference)})", way.exact,
         f"`{way.time}`", f"`{way.memory}`", "" if way.apart else "yes")
        for name, way in LEARNERS.items()
    ]  # fmt: skip
    return (
        "# Learners\n\nn units of state, P parameters, T steps of a window, c the cost of a step "
        "of the cell, s units that a parameter reaches. How each compares with the exact gradient: "
        "`seqjax learners`.\n\n"
        + table(
            ("name", "family", "what", "exact", "time of a step", "memory", "`--learner`"), ways
        )
    )


def listed(kind: Kind, sheet_of: Callable[[Row], Sheet], title: str, head: str) -> str:
    """A page of the rows of a table: what each is, and its options."""
    parts = []
    for row in sorted_rows(kind):
        sheet = sheet_of(row)
        reference = f" ({links(row.reference)})" if row.reference else ""
        # the page of an optimiser is that of optax
        rest = "" if kind == "optimisers" else sheet["document"].partition("\n")[2]
        parts.append(
            f"## {row.name}\n\n{prose(row.title)}{reference}\n\n{markdown(rest)}\n\n"
            f"`{sheet['example']}`\n\n{options(sheet)}"
        )
    return f"# {title}\n\n{head}\n\n" + "\n".join(parts)


def needed(name: str) -> dict[str, Any]:
    """Options without which a layer cannot be built."""
    return dict(LAYERS[name].smoke) if LAYERS[name].kind == "wrapper" else {}


def state(row: Row) -> str:
    expression = LAYERS[row.name].state.replace(" * ", " ")
    return f"`{expression}`" if expression else "of its layers"


def costs(name: str) -> tuple[str, str]:
    cost = ZOO["rows"].get(name, {})
    return tuple(", ".join(f"{v:.3g}" for v in cost.get(key, ())) for key in ("us", "kib"))  # type: ignore[return-value]


def year(reference: str) -> str:
    """Of the first arXiv id, or the last year named."""
    arxiv = re.search(r"\b(\d\d)\d\d\.\d{4,5}\b", reference)
    named = re.findall(r"\b(?:19|20)\d\d\b", reference)
    return f"20{arxiv[1]}" if arxiv else (named or [""])[-1]


# ---- figures --------------------------------------------------------------------------------


def dots(rows: list[Row]) -> Any:
    """Time of a token of every row, forward and with gradients, on a line."""
    timed = [row.name for row in rows if "us" in ZOO["rows"].get(row.name, {})]
    names = sorted(timed, key=lambda name: -ZOO["rows"][name]["us"][0])
    forward, both = ([ZOO["rows"][name]["us"][n] for name in names] for n in (0, 1))
    figure, axes = plot(7, 0.9 + 0.24 * len(names))
    axes.set(xscale="log", xlabel="microseconds a token")
    axes.hlines(names, forward, both, color="0.8", zorder=1)
    axes.scatter(forward, names, s=22, color="C0", label="forward")
    axes.scatter(both, names, s=22, color="C1", label="with gradients")
    axes.legend(frameon=False, fontsize=8)
    axes.tick_params(labelsize=8)
    return figure


def scatter(features: int = FEATURES) -> Any:
    """Floats of a state against the time of a token, of every layer that is not a wrapper."""
    figure, axes = plot(9, 5)
    axes.set(xscale="log", yscale="log", xlabel=f"state: floats an example carries, {features} "
             "features", ylabel="microseconds a token, forward")  # fmt: skip
    for number, module in enumerate(FAMILIES):
        name = module.__name__.rpartition(".")[2]
        rows = [n for n, entry in module.ROWS.items() if entry.state and entry.kind != "wrapper"]
        rows = [n for n in rows if "us" in ZOO["rows"].get(n, {})]
        at = [(LAYERS[n].floats(features), ZOO["rows"][n]["us"][0]) for n in rows]
        if not at:
            continue
        axes.scatter(*zip(*at), s=28, color=f"C{number % 10}", marker="os"[number // 10],
                     label=name)  # fmt: skip
        for row, place in zip(rows, at):
            if row in LABELLED:
                axes.annotate(row, place, (4, 4), textcoords="offset points", fontsize=8)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return figure


LABELLED = ("elman", "lstm", "gru", "min_gru", "lru", "s4", "mamba", "mamba2", "gla", "titans",
            "gated_deltanet", "attention", "hyena", "hippo", "xlstm", "griffin", "rwkv7",
            "transformer_xl", "ttt_linear")  # fmt: skip


def plot(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def drawn(figure: Any, form: str) -> bytes:
    out = io.BytesIO()
    figure.canvas.print_figure(out, format=form, dpi=150)
    return out.getvalue()


if __name__ == "__main__":
    save_figure(scatter(), ROOT / "docs" / "zoo.png", dpi=150)
