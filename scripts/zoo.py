"""The figures of the zoo: what every layer costs here, and which goldens it answers.

    python scripts/zoo.py time [names]    microseconds and KiB of temporaries a token, forward and
                                          with gradients, of the default evaluator
    python scripts/zoo.py goldens         cases of the golden folders that a layer or its ops answer

Both write scripts/zoo.json, which the pages of the zoo are made from (scripts/pages.py). A layer
that needs what an empty constructor does not give is timed at its row's smoke options.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import sys
from collections import Counter
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "scripts" / "zoo.json"
FEATURES, STEPS, REPEATS = 64, 512, 5
# Goldens of an op that do not carry the name of the layer that stands on it.
NAMED = {
    "deltanet": "delta_rule",
    "gated_deltanet": "gated_delta_rule",
    "deltaproduct": "gated_delta_product",
    "log_linear_attention": "log_linear_attn",
    "griffin": "rglru",
    "hawk": "rglru",
    "linear_transformer": "linear_attn",
}
sys.path[:0] = [str(ROOT / folder) for folder in ("", "tests", "tests/goldens", "tests/oracles")]


def timed(names: list[str]) -> dict[str, dict[str, Any]]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from seqjax.core.common import keep_memory
    from seqjax.tools.bench import Program, measure, with_gradients
    from seqjax.zoo import LAYERS, make

    keep_memory()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, STEPS, FEATURES)), jnp.float32)
    found = {}
    for name in names or LAYERS:
        needs = {"layer", "layers"} & set(LAYERS[name].smoke)
        layer = make(name, FEATURES, **(LAYERS[name].smoke if needs else {}))
        graph, parameters, rest = nnx.split(layer, nnx.Param, ...)

        def call(parameters, x, graph=graph, rest=rest):
            return nnx.merge(graph, parameters, rest)(x)[0]

        forward = Program(name, "ours", call, (parameters, x))
        times = measure([forward, with_gradients(forward)], REPEATS)
        row = {
            "parameters": sum(p.size for p in jax.tree.leaves(parameters)),
            "forward_us": [round(1e3 * t.run_ms / STEPS, 3) for t in times],
            "kib": [round(1024 * t.temp_mb / STEPS, 2) for t in times],
            "compile_s": [round(t.compile_s, 2) for t in times],
        }
        found[name] = {"us": row.pop("forward_us"), **row}
        print(name, found[name], flush=True)
        jax.clear_caches()
    return found


def answered() -> dict[str, dict[str, int]]:
    """row -> golden -> cases; those of its parts and of its name in brackets, where it has none."""
    import conftest  # noqa: F401  float64 and strict promotion, as the adapters are written for
    import jax
    import pytest
    import test_goldens as goldens
    from flax import nnx

    from seqjax.tools.explain import shape_of
    from seqjax.zoo import LAYERS

    count = Counter(path.parent.name for path in goldens.paths())
    built: set[type] = set()

    def noting(init):
        @functools.wraps(init)  # factories read its signature
        def noted(self, *args, **options):
            built.add(type(self))
            init(self, *args, **options)

        return noted

    originals = {}
    for entry in LAYERS.values():
        for cls in entry.make.__mro__:
            if cls.__module__.startswith("seqjax.layers.") and "__init__" in cls.__dict__:
                originals[cls] = cls.__dict__["__init__"]
    by_layer: dict[type, dict[str, int]] = {}
    for cls, init in originals.items():
        cls.__init__ = noting(init)
    try:
        for golden, evaluators in goldens.ADAPTERS.items():
            built.clear()
            for path in goldens.paths(golden):
                meta, inputs, *_ = goldens.read(path)
                arrays = {
                    name: v if v.dtype.kind == "U" else jax.numpy.asarray(v)
                    for name, v in inputs.items()
                }
                arrays = goldens.Settings(arrays)
                run = functools.partial(list(evaluators.values())[-1], arrays, meta)
                with suppress(pytest.skip.Exception):  # a case that the layer cannot answer
                    jax.make_jaxpr(run)()
            for cls in built:
                by_layer.setdefault(cls, {})[golden] = count[golden]
    finally:
        for cls, init in originals.items():
            cls.__init__ = init
    found = {}
    for name, entry in LAYERS.items():
        inside = {type(part) for _, part in nnx.iter_modules(shape_of(name))} - {entry.make}
        of_parts = [goldens for cls in inside for goldens in by_layer.get(cls, {}).items()]
        stem = NAMED.get(name) or re.sub(r"\d$", "", name)
        named = [(g, count[g]) for g in goldens.ADAPTERS if stem in g or g in stem]
        borrowed = {f"({golden})": n for golden, n in of_parts + named}
        found[name] = by_layer.get(entry.make) or borrowed
        print(name, found[name], flush=True)
    return found


def main() -> int:
    what, names = (sys.argv[1:2] or ["?"])[0], sys.argv[2:]
    if what not in ("time", "goldens"):
        raise SystemExit(__doc__)
    if what == "goldens":
        os.environ["JAX_PLATFORMS"] = "cpu"
    found = timed(names) if what == "time" else answered()
    stored = json.loads(FILE.read_text()) if FILE.exists() else {"rows": {}}
    if what == "time":
        import jax

        stored["measured"] = {
            "command": "python scripts/zoo.py time",
            "shape": f"[1, {STEPS}, {FEATURES}] float32",
            "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} core(s)",
            "date": date.today().isoformat(),
            "versions": f"Python {platform.python_version()}, jax {version('jax')}",
        }
    for name, row in found.items():
        kept = stored["rows"].setdefault(name, {})
        kept.update(row if what == "time" else {"goldens": row})
    stored["rows"] = dict(sorted(stored["rows"].items()))
    from seqjax.core.files import write_atomically

    write_atomically(FILE, json.dumps(stored, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
