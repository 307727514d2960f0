"""Imported models are the one model: what a trained one does, they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_hf import MAMBA, MIXTURE, ZAMBA, checkpoint

from seqjax.core.common import Notice
from seqjax.core.flow import Flow
from seqjax.hf import Decoder, describe, read
from seqjax.learn import as_cell
from seqjax.learn.cell import states
from seqjax.nn.base import cast_parameters
from seqjax.stacks.config import ModelConfig
from seqjax.stacks.summary import parameters, summarise
from seqjax.train.checkpoint import Checkpoints
from seqjax.train.imported import load, store

TOKENS = jnp.arange(10).reshape(2, 5) % 7
RWKV = dict(
    model_type="rwkv", hidden_size=4, attention_hidden_size=4, intermediate_size=6,
    num_hidden_layers=1, vocab_size=7, context_length=16,
)  # fmt: skip


def decoder(fields, **config):
    return Decoder(describe(fields), ModelConfig(**config), rngs=nnx.Rngs(0))


def gradient(model, key):
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    @jax.grad
    def of(params):
        return jnp.sum(nnx.merge(graph, params, rest)(TOKENS, key=key)[0] ** 2)

    return of(params)


@pytest.mark.thorough
def test_dropout_and_rematerialisation():
    key = jax.random.key(1)
    off, on, again = (
        decoder(ZAMBA, dropout=p, remat=r) for p, r in ((0, "none"), (0.5, "none"), (0.5, "layer"))
    )
    np.testing.assert_array_equal(off(TOKENS)[0], on(TOKENS)[0])
    assert float(jnp.abs(on(TOKENS, key=key)[0] - on(TOKENS)[0]).max()) > 1e-3
    one, two = gradient(on, key), gradient(again, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, two)


@pytest.mark.thorough
def test_a_block_of_its_own_loses_what_it_adds():
    model = cast_parameters(decoder(RWKV, dropout=0.5), jnp.float64)
    model = jax.tree.map(lambda p: p + 0.3, model)  # some begin at zero
    x = model.embed(TOKENS)
    y, dropped = (model.tail[0](x, None, Flow(), key)[0] for key in (None, jax.random.key(0)))
    kept = jnp.isclose(dropped, x, atol=1e-6)
    np.testing.assert_allclose(jnp.where(kept, x, 2 * y - x), dropped, atol=1e-5)
    assert 0.2 < jnp.mean(kept) < 0.8


def test_an_evaluator_runs_where_it_is_known():
    with pytest.warns(Notice, match="linear_scan: Attention have none of that name"):
        model = decoder(MIXTURE, evaluator="linear_scan")
    assert [block.evaluator for block in model.tail] == ["linear_scan", None, None, None]
    with pytest.raises(ValueError, match="unknown evaluator of Mamba 'newton'"):
        decoder(MAMBA, evaluator="newton")


def test_tables_cells_and_time():
    model = decoder(MAMBA)
    table = summarise(model).splitlines()
    assert f"{parameters(model):,}" in table[1] and any("tail.1.layer" in line for line in table)
    with pytest.raises(ValueError, match="the model takes no dt"):
        model(TOKENS, dt=jnp.ones((2, 5)))
    cell, params = as_cell(model)
    last, _ = states(cell, params, cell.start(params), TOKENS[0])
    y = cell.readout(params, last, None)
    np.testing.assert_allclose(y, model(TOKENS[:1])[0][0], atol=1e-5)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("fields", [RWKV, ZAMBA], ids=["rwkv", "zamba"])
def test_folders_that_were_stored_before_there_was_one_model(fields, tmp_path):
    """They called the blocks branches, and the norm of the embedding first."""
    found = read(checkpoint(tmp_path / "theirs", fields))
    store(found, tmp_path / "ours")
    steps = tmp_path / "ours" / "checkpoints"
    with Checkpoints(steps, read_only=True) as checkpoints:
        arrays, extra = checkpoints.read()
    for new, old in (("model.tail.", "model.branches."), ("model.embed.norm.", "model.first.")):
        arrays = {name.replace(new, old): array for name, array in arrays.items()}
    assert any("branches" in name for name in arrays) and not any("tail" in name for name in arrays)
    with Checkpoints(steps) as checkpoints:
        checkpoints.save(0, arrays, extra)
    np.testing.assert_array_equal(load(tmp_path / "ours").model(TOKENS)[0], found.model(TOKENS)[0])
