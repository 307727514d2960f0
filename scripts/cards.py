"""Model cards: a section per architecture of released models that seqjax.hf reads, as pages.

What an architecture is stands in the docstring of the function that describes it; what of a
config is used, which layers it is made of and what it was compared with, in tests/released/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flax import nnx
from prose import markdown, prose, table

from seqjax.hf import ARCHITECTURES, describe
from seqjax.hf.folder import skeleton
from seqjax.zoo import LAYERS, family

RELEASED = Path(__file__).resolve().parent.parent / "tests" / "released"
ROWS: dict[type, str] = {
    row.make: name for name, row in LAYERS.items() if isinstance(row.make, type)
}
INDEX = """# Released models

Checkpoints that `seqjax import` and [`seqjax.hf.read`](../checkpoints.md) read, with what of them
is understood. Each is held to numbers that its original code computed for random weights, at once
and token by token: the largest difference allowed is a millionth of the largest logit, and twice
what the original's own float32 is away from its float64.

"""
Page = tuple[str, str | bytes]


def cards() -> Iterator[Page]:
    stored: dict[str, dict[str, Any]] = {kind: {} for kind in ARCHITECTURES}
    for path in sorted(RELEASED.glob("*.json")):
        content = json.loads(path.read_text())
        stored[content["config"]["model_type"]][path.stem] = content
    pages: dict[str, list[str]] = {}
    for kind, make in ARCHITECTURES.items():
        pages.setdefault(make.__module__.rpartition(".")[2], []).append(kind)
    lines = []
    for page, kinds in pages.items():
        title = (ARCHITECTURES[kinds[0]].__globals__["__doc__"] or "").partition("\n")[0]
        parts = "\n".join(card(kind, stored[kind]) for kind in kinds)
        yield (
            f"released/{page}.md",
            f"# {re.split('[:;(]', title)[0].strip(' .')}\n\n{title}\n\n{parts}",
        )
        for kind in kinds:
            first = (ARCHITECTURES[kind].__doc__ or "").partition("\n")[0]
            lines.append((f"[`{kind}`]({page}.md#{kind})", prose(first), str(len(stored[kind]))))
    head = ("model_type", "what it is, and its releases", "models compared")
    yield "released/index.md", INDEX + table(head, sorted(lines))


def card(kind: str, stored: Mapping[str, Any]) -> str:
    """What it is, its layers, the fields of its config, and how it was compared."""
    used: set[str] = set()
    ignored: dict[str, str] = {}
    layers: dict[str, None] = {}
    for content in stored.values():
        description = describe(content["config"])
        ignored |= description.ignored
        given = flat(content["config"])
        used |= {name for name, value in given.items() if value is not None} - set(ignored)
        layers |= dict.fromkeys(parts(description))
    reasons: dict[str, list[str]] = {}
    for name, reason in sorted(ignored.items()):
        reasons.setdefault(reason, []).append(f"`{name}`")
    compared = [
        f"    - `{name}`: {content['versions']}, the noise of its float32 {content['noise']:.0e}\n"
        for name, content in stored.items()
    ]
    facts = [
        f"- layers: {', '.join(layers)}\n",
        f"- fields that are computed with: {', '.join(f'`{n}`' for n in sorted(used))}\n",
        "- fields that are ignored:\n\n",
        *(f"    - {reason}: {', '.join(names)}\n" for reason, names in reasons.items()),
        "\n- compared with the original code (`scripts/released.py`):\n\n",
        *compared,
    ]
    document = markdown(ARCHITECTURES[kind].__doc__ or "")
    return f"## {kind} {{#{kind}}}\n\n{document}\n\n{''.join(facts)}"


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config, and with a dot those of the text model in it."""
    text = config.get("text_config", {})
    inner = {f"text_config.{name}": value for name, value in text.items()}
    return {n: v for n, v in {**config, **inner}.items() if n not in ("model_type", "text_config")}


def parts(description: Any) -> list[str]:
    """The layers of a model, those of the zoo as links."""
    found: list[str] = []
    for block in skeleton(description).tail:
        own = ROWS.get(type(block.layer))
        inside = [ROWS.get(type(module)) for _, module in nnx.iter_modules(block.layer)]
        found += [] if own else [f"`{type(block.layer).__name__}`"]
        for row in [own] if own else inside:
            found += [f"[`{row}`](../zoo/{family(row)}.md#{row})"] if row else []
    return found
