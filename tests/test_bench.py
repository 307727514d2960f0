"""The timer, and the peers beside which it times."""

import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax
from seqjax import ops
from seqjax.tools import bench, selfcheck

scanning = sys.modules["seqjax.core.scan"]  # as an attribute of seqjax it is the function


@pytest.mark.share(2)
@pytest.mark.parametrize("name", bench.PEERS)
def test_peers_compute_the_same(name):
    """A peer that computes something else would be no measure."""
    op = ops.OPS[name]
    for spec in op.specs:
        if spec.sizes["T"] >= bench.LONG:
            sizes = {letter: min(size, 5) for letter, size in spec.sizes.items()}
            arrays, options = selfcheck.example(op, replace(spec, sizes=sizes))
            arrays = jax.tree.map(jnp.asarray, arrays)
            expected, _ = getattr(seqjax, name)(**arrays, **options, evaluator="naive")
            found = bench.PEERS[name][1](**arrays, **options)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name", ops.OPS)
def test_every_op_can_be_timed(name):
    for case in bench.op_cases(name, True):
        for program in case.programs[2:]:
            timed = bench.with_gradients(program)
            jax.eval_shape(timed.function, *timed.inputs)


def test_the_timer():
    x = jnp.ones((64, 64), jnp.float32)
    peer = bench.Program("sum of squares", "peer", lambda x: jnp.sin(x) @ x, (x,))
    ours = replace(peer, name="same", role="ours")
    results = bench.run(bench.Case("tiny", (*bench.floors(x), peer, ours)), repeats=2)
    assert [r.role for r in results] == ["floor", "floor", "peer", "ours"]
    assert all(r.forward.run_ms > 0 and r.forward.compile_s > 0 for r in results)
    assert [r.both is None for r in results] == [True, True, False, False]
    title, columns, rows = bench.table(results)
    assert title == "tiny" and all(len(row) == len(columns) for row in rows)
    faster = results[2].forward.run_ms / results[3].forward.run_ms
    assert float(rows[3][columns.index("fwd faster")].removesuffix(" x")) == pytest.approx(
        faster, rel=0.1
    )


def test_gradients_are_timed_for_all_inputs():
    program = bench.Program(
        "f", "ours", lambda a, b: (a * b["x"], a), (jnp.ones(3), {"x": jnp.ones(3)})
    )
    both = bench.with_gradients(program)
    value, (grad_a, grad_b) = both.function(*both.inputs)
    product, plain = both.inputs[1]
    np.testing.assert_allclose(value, np.sum(product + plain))
    np.testing.assert_allclose(grad_a, product + plain)
    np.testing.assert_allclose(grad_b["x"], product)
