"""The demo: a byte-level language model of Python's own source, in four minutes on two cores.

command     make demo        (or: python -m experiments.demo)
hardware    2 CPU cores, no accelerator
time        4 minutes
expected    README.md, "What is measured"

Every machine that runs Python has this text: the running interpreter's standard library without
its tests. Whole files of it, 0.5 MB, are held out; the model is trained on the rest and scored on
the held-out bytes, beside what `gzip -9` and `xz -9` need for the same bytes when they are given
the same training text. It scores as it reads: the state is carried through the held-out text.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic

from experiments import words
from seqjax.recipes.demo import CONFIG

RUN = Path("runs/demo")
PROMPTS = ("def ", "class ", "import ", "    for ")


def main() -> int:
    import jax
    from rich.console import Console
    from rich.table import Table

    from seqjax.core.files import write_atomically
    from seqjax.tasks.texts.char_lm import char_lm
    from seqjax.tasks.texts.text import compression_baselines
    from seqjax.train.evaluation import make_evaluate
    from seqjax.train.generate import generate
    from seqjax.train.loop import train
    from seqjax.train.step import take_apart

    began, console = monotonic(), Console(highlight=False)
    shutil.rmtree(RUN, ignore_errors=True)  # a demo starts afresh
    task = char_lm()
    text = task.text
    console.print(
        f"{len(text.train) / 1e6:.1f} MB of the standard library to learn from, "
        f"{len(text.validation) / 1e6:.2f} MB held out"
    )
    result = train(CONFIG, RUN)
    if result.status:  # of the signal that stopped it
        return result.status

    console.print("reading the held-out text ...")
    params, frozen, _, rebuild = take_apart(result.model)
    whole = replace(CONFIG.task, evaluation_batches=None, evaluation_length=512)
    bits = make_evaluate(replace(CONFIG, task=whole), task, rebuild)(params, frozen)["bits"]
    others = compression_baselines(text.train, text.validation)

    table = Table(
        "bits per held-out byte", "", title="the same bytes, given the same training text"
    )
    name = " + ".join(layer.name for layer in CONFIG.model.layer)
    million = sum(v.size for v in params.values()) / 1e6
    rows = {f"seqjax: {name}, {million:.1f} M parameters": bits}
    rows |= {other: bound.given for other, bound in others.items()}
    for label, value in sorted(rows.items(), key=lambda row: row[1]):
        table.add_row(label, f"{value:.3f}")
    console.print(table)
    seen = result.step * CONFIG.task.batch * CONFIG.task.length / 1e6
    console.print(
        f"The model read {seen:.1f} MB in {result.seconds:.0f} s; "
        "the compressors read all of the training text."
    )

    written = generate(
        result.model, [list(p.encode()) for p in PROMPTS], 500, key=jax.random.key(0),
        temperature=0.7,
    )  # fmt: skip
    sample = RUN / "sample.txt"
    write_atomically(sample, "\n\n".join(
        prompt + bytes(row.tolist()).decode(errors="replace")
        for prompt, row in zip(PROMPTS, written, strict=True)
    ))  # fmt: skip
    console.print(f"loss curve  {RUN / 'loss.png'}\nsamples     {sample}")
    console.print(f"{monotonic() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    words()
    sys.exit(main())
