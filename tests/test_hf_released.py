"""Released architectures against the numbers of their original code: tests/released/*.json."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_hf import in_float64, same

from scripts.released import FOLDER, save, weights
from seqjax.hf import ARCHITECTURES, read, write

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def at_once_and_one_by_one(checkpoint, tokens):
    graph, params = nnx.split(in_float64(checkpoint))
    run = jax.jit(lambda params, tokens, h: nnx.merge(graph, params)(tokens, h))
    tokens, steps = jnp.asarray(tokens), []
    h = nnx.merge(graph, params).start(len(tokens))
    whole, _ = run(params, tokens, h)
    for t in range(tokens.shape[1]):
        y, h = run(params, tokens[:, t : t + 1], h)
        steps.append(y)
    return whole, jnp.concatenate(steps, axis=1)


@pytest.mark.share(1)
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_original_code(name, tmp_path):
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    constants = {n: np.array(c) for n, c in stored.get("constants", {}).items()}
    floats = {n: c.astype(np.float32) for n, c in constants.items() if c.dtype.kind == "f"}
    tensors = weights(stored["tensors"]) | constants | floats
    folder = save(tmp_path / "in", stored["config"], tensors)
    whole, steps = at_once_and_one_by_one(read(folder, context=16), stored["tokens"])
    bound = 1e-6 * np.abs(stored["logits"]).max() + 2 * stored["noise"]
    np.testing.assert_allclose(whole, stored["logits"], rtol=0, atol=bound)
    np.testing.assert_allclose(steps, whole, atol=1e-9)
    write(read(folder), tmp_path / "out")
    same(folder, tmp_path / "out")


def test_every_architecture_has_numbers_of_its_original_code():
    configs = [json.loads((FOLDER / f"{name}.json").read_text())["config"] for name in NAMES]
    assert {config["model_type"] for config in configs} == set(ARCHITECTURES)
