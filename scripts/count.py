"""How the house stands, in numbers: `python scripts/count.py [CHECKOUT]`, by default this one.

by hand     functions in files of layers that take both `resets` and `mask`
overrides   methods start, learn_initial and canonical of layers, outside the base classes
lines       of a file of layers: the median and the upper quartile
rooms       packages of seqjax (a module of the top level is one), and the arrows between them:
            pairs of which one imports the other
hops        calls within seqjax from `Model` to the chunked evaluator of gated_deltanet
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BASES = {"Layer", "Recurrent", "Associative", "Segmented", "ShortConv"}
HOPS = """
import traceback
import jax.numpy as jnp
from flax import nnx
try:
    from seqjax.stacks.config import LayerConfig, ModelConfig
    from seqjax.stacks.model import Model
except ImportError:
    from seqjax.config import LayerConfig, ModelConfig
    from seqjax.models import Model
from seqjax.ops import delta_rule
from seqjax.tasks import make
import sys
module = sys.modules["seqjax.ops.delta_rule"]
found, run = [], module.scan_heads
def noted(*arguments, **options):
    found.append([f for f in traceback.extract_stack() if "/seqjax/" in f.filename])
    return run(*arguments, **options)
module.scan_heads = noted
layer = (LayerConfig("gated_deltanet"),)
config = ModelConfig(layer=layer, features=16, depth=1, evaluator="chunked")
model = Model(config, make("state_tracking").spec, rngs=nnx.Rngs(0))
model(jnp.zeros((1, 64), jnp.int32))
names = [f.name for f in found[0]]
print(len(names) - names.index("__call__") - 1)
"""


def files(root: Path) -> list[Path]:
    """Those with the code of layers."""
    return [path for path in sorted((root / "seqjax" / "layers").rglob("*.py"))
            if path.name != "__init__.py"]  # fmt: skip


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """The name of the class around it, and the function; named tuples are no classes of layers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield inside, node
        around = inside
        if isinstance(node, ast.ClassDef):
            around = "" if "NamedTuple" in map(ast.unparse, node.bases) else node.name
        yield from functions(node, around)


def arrows(root: Path) -> tuple[set[str], set[tuple[str, str]]]:
    rooms, found = set(), set()
    for path in (root / "seqjax").rglob("*.py"):
        mine, *inside = path.relative_to(root / "seqjax").with_suffix("").parts
        if mine == "__init__":
            continue
        if not inside or inside != ["__init__"]:
            rooms.add(mine)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seqjax"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                theirs = {name.split(".")[1] for name in names}
                found |= {(mine, room) for room in theirs - {mine}}
    return rooms, {(a, b) for a, b in found if b in rooms}


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    if not (root / "seqjax").is_dir():
        raise SystemExit(f"{root} is no checkout of seqjax: there is no folder seqjax in it")
    by_hand, overrides, lines = 0, 0, []
    for path in files(root):
        text = path.read_text()
        lines.append(len(text.splitlines()))
        for inside, function in functions(ast.parse(text)):
            taken = {a.arg for a in (*function.args.args, *function.args.kwonlyargs)}
            by_hand += {"resets", "mask"} <= taken
            overrides += (function.name in ("start", "learn_initial", "canonical")
                          and bool(inside) and inside not in BASES)  # fmt: skip
    rooms, between = arrows(root)
    done = subprocess.run([sys.executable, "-c", HOPS], cwd=root, capture_output=True, text=True,
                          env={"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"})  # fmt: skip
    hops = done.stdout.strip() or f"not found ({done.stderr.strip().splitlines()[-1]})"
    quarter = statistics.quantiles(lines, n=4)[2]
    print(f"functions that take resets and mask by hand  {by_hand}")
    print(f"overrides of start, learn_initial, canonical {overrides}")
    print(f"lines of a file of layers: median, quartile  {statistics.median(lines):g}, {quarter:g}")
    print(f"rooms, arrows between them                   {len(rooms)}, {len(between)}")
    print(f"hops from Model to the evaluator             {hops}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
