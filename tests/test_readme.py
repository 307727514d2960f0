"""What README.md shows is run here, in order, in one namespace."""

import re
from pathlib import Path

import jax

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_example_trains_and_streams(tmp_path, monkeypatch):
    """The new recurrence of the README learns parity, as a user would run it: in float32."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    blocks = [block for block in blocks if "seqjax.hf" not in block]  # needs a checkpoint: test_hf
    assert len(blocks) == 4
    assert len(blocks[0].splitlines()) <= 37, "the first example is to stay short"
    from seqjax.zoo import LAYERS

    namespace: dict = {}
    standard = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with jax.enable_x64(False), standard[0], standard[1]:
        try:
            for block in blocks:
                exec(compile(block, "README.md", "exec"), namespace)
        finally:
            LAYERS.pop("leaky", None)
    assert namespace["result"].metrics["accuracy"] > 0.9, "parity; chance is 0.5"
    assert (tmp_path / "runs" / "leaky" / "loss.png").exists()
    assert namespace["y"].shape == (2, 100, 8)
    grads = jax.tree.leaves(namespace["grads"])
    assert grads and all(bool(jax.numpy.isfinite(g).all()) for g in grads)


def test_commands_of_the_readme_exist():
    from seqjax.tools.cli import COMMANDS

    named = set(re.findall(r"^seqjax (\w+)", README.read_text(), re.MULTILINE))
    assert named == set(COMMANDS), "README and `seqjax --help` name the same commands"
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
