"""`seqjax profile`: instructions are counted for what they were made by."""

import json
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from seqjax.layers.linear_attention.gla import GLA
from seqjax.nn import Layer
from seqjax.ops.op import Op
from seqjax.tools import profile
from seqjax.tools.cli import main
from seqjax.tools.profile import MARK, Instruction, Part, counted, instructions, part_of
from seqjax.zoo import make


@pytest.mark.parametrize("name, part", [
    ("jit(update)/jvp(seqjax.Block)/seqjax.GLA/seqjax.linear_attention/dot", "Block > GLA > "
     "linear_attention"),
    ("jit(update)/transpose(jvp(seqjax.Block))/while/body/jvp(seqjax.Block)/seqjax.MLP/mul",
     "Block > MLP"),
    ("jit(update)/jvp()/log", "loss, and between modules"),
    ("jit(update)/mul", "optimiser, and copies"), ("", "optimiser, and copies"),
])  # fmt: skip
def test_the_part_of_an_instruction(name, part):
    assert part_of(name) == part


def test_instructions_of_a_program():
    def loss(w, x):
        with jax.named_scope(f"{MARK}Linear"):
            y = x @ w
        with jax.named_scope(f"{MARK}Norm"):
            return jnp.sum(jnp.tanh(y) ** 2)

    def step(w, x):
        return w - 0.1 * jax.grad(loss)(w, x)

    w, x = jnp.ones((8, 16), jnp.float32), jnp.ones((32, 8), jnp.float32)
    with profile.fresh():
        found = instructions(jax.jit(step).lower(w, x).compile().as_text())
    products = [one for name, one in found.items() if name.startswith("dot")]
    assert {(one.part, one.backward) for one in products} == {("Linear", False), ("Linear", True)}
    assert {one.bytes for one in products} == {4 * 32 * 16, 4 * 8 * 16}
    assert "Norm" in {one.part for one in found.values()}


def test_times_add_up():
    known = {
        "dot.1": Instruction("Linear", False, False, 64),
        "dot.2": Instruction("Linear", True, False, 8),
        "while.1": Instruction("Linear", False, True, 999),
        "add": Instruction("loss", False, False, 4),
    }
    ran = Counter({"dot.1": 4_000_000, "dot.2": 2_000_000, "while.1": 9_000_000, "add": 8_000_000,
                   "unknown": 5})  # fmt: skip
    assert counted(known, ran, 2) == [Part("loss", 4.0, 0.0, 4), Part("Linear", 2.0, 1.0, 64)]


def test_classes_are_as_before_afterwards():
    layer = nnx.eval_shape(lambda: make("gla", 8))
    before = dict(vars(GLA)), Layer.example, Op.__call__, nnx.Linear.__call__
    with pytest.raises(ZeroDivisionError), profile.named_scopes(nnx.List([layer])):
        assert GLA.example is not Layer.example and Op.__call__ is not before[2]
        raise ZeroDivisionError
    assert (dict(vars(GLA)), Layer.example, Op.__call__, nnx.Linear.__call__) == before


def test_a_step_is_measured(tmp_path, capsys):
    words = ["state_tracking", "--task.options", "group=parity", "--task.batch", "2"]
    words += ["--task.length", "16", "--model.layer", "gla", "heads=2", "--model.features", "8"]
    words += ["--model.depth", "1", "--repeats", "2", "--trace", str(tmp_path / "trace")]
    assert main(["profile", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    parts = {part["name"]: part for part in found["parts"]}
    op = parts["Block > GLA > linear_attention"]
    assert op["forward_ms"] > 0 and op["backward_ms"] > 0
    assert {"Embedding", "Head", "Block > GLU > Linear", "optimiser, and copies"} <= set(parts)
    memory = found["memory"]
    assert memory["optimiser"] >= 2 * memory["parameters"] > 0, "two moments of Adam"
    assert found["step_ms"] > 0 and memory["temporary, at its peak"] > 0
    assert list((tmp_path / "trace").rglob("*.trace.json.gz"))
