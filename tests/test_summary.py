"""How large models are: tables, budgets of parameters, and the work of a step."""

import json
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.stacks.summary import TOLERANCE, fitted, flops, parameters, summarise
from seqjax.tasks import Classes, Spec, Tokens
from seqjax.tools.cli import main
from seqjax.zoo import LAYERS

SPEC = Spec(Tokens(64), Classes(64, per_step=True))
PATTERN = (LayerConfig("mamba2", {"state": 8, "heads": 6}), LayerConfig("attention"))


def built(config, spec=SPEC):
    return nnx.eval_shape(lambda: Model(config, spec, rngs=nnx.Rngs(0)))


@pytest.mark.share(3)
@pytest.mark.parametrize("name", LAYERS)
def test_a_budget_finds_the_width_of_every_row(name):
    """Or names the two widths beside it, between which there is none. Its default options are
    not so large that it would be narrow.
    """
    target, layer = 2_000_000, (LayerConfig(name),)
    requested = ModelConfig(layer=layer, parameters=target, depth=3)
    try:
        config = fitted(requested, SPEC)
    except ValueError as error:
        found = re.findall(r"(\d+) of model.features=(\d+)", str(error))
        (few, narrow), (many, wide) = (map(int, pair) for pair in found)
        assert few < target * (1 - TOLERANCE) and many > target * (1 + TOLERANCE)
        for features, size in ((narrow, few), (wide, many)):
            assert parameters(built(replace(requested, parameters=None, features=features))) == size
        for features in range(narrow + 1, wide):
            with pytest.raises(ValueError):
                built(replace(requested, parameters=None, features=features))
        assert wide >= 32
    else:
        assert config.parameters is None and config.layer == layer
        assert abs(parameters(built(config)) - target) <= TOLERANCE * target
        assert config.features >= 32


def test_the_budget_of_a_pattern_that_is_cut_short():
    config = fitted(ModelConfig(layer=PATTERN, depth=5, parameters=3_000_000), SPEC)
    assert config.features % 12 == 0, "6 heads of one, 4 of the other"
    assert abs(parameters(built(config)) / 3_000_000 - 1) <= TOLERANCE


@pytest.mark.parametrize("config, message", [
    (dict(parameters=10), r"=10 cannot be met within 2%: the nearest are \d+ of model.features=1;"),
    (dict(layer=(LayerConfig("attention", {"heads": 300}),)), "no width suits the layers: .*300"),
])  # fmt: skip
def test_a_budget_that_cannot_be_met(config, message):
    with pytest.raises(ValueError, match=message):
        fitted(ModelConfig(**{"parameters": 10_000, **config}), SPEC)


def test_a_model_is_not_built_from_a_budget():
    with pytest.raises(ValueError, match="model.parameters must be None, got 1000: .*fitted"):
        built(ModelConfig(parameters=1000))


def test_the_table_adds_up():
    """Of stacked repetitions, and of what is not trained; states may be named tuples."""
    layers = (LayerConfig("esn", {"hidden": 6}), LayerConfig("gla", {"heads": 2}))
    model = built(ModelConfig(layer=layers, features=8, depth=5))
    table = {line.split()[0]: line.split()[1:] for line in summarise(model).splitlines()[1:]}
    count = {name: int(n.replace(",", "")) for name, (_, n, _) in table.items()}
    stored = {name: int(n.replace(",", "")) for name, (_, _, n) in table.items()}
    parts = ("embed", "blocks.0", "blocks.1", "tail.0", "norm", "head")
    assert count["all"] == sum(count[part] for part in parts) == parameters(model)
    assert stored["all"] == sum(stored[part] for part in parts)
    assert count["blocks.0.layer"] == 0 < stored["blocks.0.layer"], "a reservoir is not trained"
    assert count["blocks.0.norm"] == 2 * 8 and table["blocks.1.layer"][0] == "GLA"
    assert len(summarise(model, depth=1).splitlines()) == 5


def test_the_work_of_a_program():
    A, n = jnp.zeros((3, 4)), 7

    def product(h, _):
        return jnp.sin(A.T @ (A @ h)), None

    def program(h):
        h = jax.lax.scan(product, h, None, length=n)[0]
        return jax.lax.cond(h[0, 0] > 0, lambda h: h, lambda h: 2 * h, h)

    found = flops(jax.make_jaxpr(program)(jnp.zeros((4, 5))).jaxpr)
    assert found == n * (2 * 2 * 3 * 4 * 5 + 4 * 5) + 4 * 5
    x, kernel = jnp.zeros((1, 2, 9)), jnp.zeros((6, 2, 3))
    convolved = jax.make_jaxpr(lambda x: jax.lax.conv_general_dilated(x, kernel, (1,), "SAME"))(x)
    assert flops(convolved.jaxpr) == 2 * 6 * 9 * 2 * 3


@pytest.mark.thorough
def test_a_run_finds_its_width_and_records_its_size(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", "parity", "--run", str(run), "--steps", "2", "--task.length", "8",
             "--model.layer", "gru", "--model.depth", "3", "--model.parameters", "90k"]  # fmt: skip
    assert main(words) == 0
    told = json.loads((run / "config.json").read_text())
    size, config = told["size"], told["config"]["model"]
    assert config["parameters"] is None
    assert f"model.features={config['features']}: " in capsys.readouterr().out
    assert abs(size["parameters"] / 90_000 - 1) < TOLERANCE
    assert size["state_bytes"] == 3 * 4 * config["features"]
    # 6 N is of matrices alone, and of batches that dwarf the optimiser
    assert 6 < size["flops_per_token"] / size["parameters"] < 9
    assert main(words) == 0, "the same line goes on with the same width"


@pytest.mark.parametrize("text, number", [
    ("1M", 10**6), ("250k", 250_000), ("1.5M", 1_500_000), ("1_000_000", 10**6), ("2e6", 2 * 10**6),
])  # fmt: skip
def test_budgets_in_words(text, number):
    from seqjax.stacks.config import _parse_count

    assert _parse_count([text]) == number
    assert _parse_count(["none"]) is None
    for wrong in ("M", "1.5", "infM", "1Mk", "nan", ""):
        assert _parse_count([wrong]) == wrong
    np.testing.assert_equal(_parse_count(["-3k"]), -3000)  # refused with its range
