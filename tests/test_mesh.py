"""Batches on several devices: explicit axes, `jax.shard_map` with its default check, `jax.pmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOT_CHECKED
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from test_axis import MASK, RESETS, numbers

import seqjax
from seqjax.core.mesh import loop
from seqjax.core.primitive import linear_scan
from seqjax.nn.base import cast_parameters
from seqjax.ops import OPS
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import make as make_task
from seqjax.testing import distance
from seqjax.zoo import LAYERS, make

B, T = 4, 12
EXPLICIT = jax.make_mesh((2, 2), ("data", "time"))
AUTO = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
FLAGS = {"resets": jnp.tile(RESETS, (2, 1)), "mask": jnp.tile(MASK, (2, 1))}


def built(name):
    layer = make(name, 4, rngs=nnx.Rngs(0), **LAYERS[name].smoke)
    return cast_parameters(layer, jnp.float64)


def inputs():
    return jnp.asarray(np.random.default_rng(0).normal(size=(B, T, 4)))


def derivatives(run, parameters, x):
    """Values, gradients and a directional derivative of run(parameters, x, flags)."""
    parameters, rest = nnx.split_state(parameters, nnx.Param, ...)

    def number(parameters, x):
        y = run(nnx.merge_state(parameters, rest), x, FLAGS)
        return sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(y)), y

    @jax.jit
    def all_of(parameters, x):
        gradient, y = jax.grad(number, (0, 1), has_aux=True)(parameters, x)
        once = jax.tree.map(jnp.ones_like, (parameters, x))
        return y, gradient, jax.jvp(number, (parameters, x), once, has_aux=True)[1]

    return all_of(parameters, x)


@pytest.mark.share(3)
@pytest.mark.parametrize("name", sorted(set(LAYERS) - NOT_CHECKED))
def test_layers_inside_shard_map(name):
    """Values, gradients and tangents, with the check of what varies over devices."""
    graph, parameters = nnx.split(built(name))

    def run(parameters, x, flags):
        return nnx.merge(graph, parameters)(x, **flags)[0]

    split = jax.shard_map(run, mesh=AUTO, in_specs=(P(), P("data"), P("data")), out_specs=P("data"))
    found, expected = (derivatives(f, parameters, inputs()) for f in (split, run))
    assert distance(*map(numbers, (found, expected))) < 1e-9


@pytest.mark.share(2)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_explicit_axes(name):
    """Of examples, of steps and of both, with a state given; outputs lie as the inputs do."""
    layer = built(name)
    x, h = inputs(), layer(inputs())[1]
    expected = jax.jit(lambda x, flags: layer(x, h, **flags))(x, FLAGS)
    for spec in (P("data"), P("data", "time"), P(None, ("data", "time"))):
        there = jax.device_put((x, FLAGS), NamedSharding(EXPLICIT, spec))
        found = jax.jit(lambda x, flags: layer(x, h, **flags))(*there)
        assert distance(*map(numbers, (found, expected))) < 1e-10
        assert found[0].sharding.spec[: len(spec)] == tuple(spec)


@pytest.mark.share(2)
@pytest.mark.parametrize("name", sorted(set(OPS) - NOT_CHECKED))
def test_ops(name):
    op = OPS[name]
    spec = next(spec for spec in op.specs if spec.sizes["T"] < 100)
    arguments = op.example(spec, 0)
    count, steps = (spec.sizes[letter] for letter in "BT")
    arguments = jax.tree.map(
        lambda v: jnp.asarray(v) if isinstance(v, np.ndarray) else v, arguments
    )
    over = {k: v for k, v in arguments.items() if getattr(v, "shape", ())[:2] == (count, steps)}
    rest = {k: v for k, v in arguments.items() if k not in over}
    expected = jax.jit(lambda over: getattr(seqjax, name)(**over, **rest))(over)
    mesh = jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])
    there = jax.device_put(over, NamedSharding(mesh, P("data")))
    found = jax.jit(lambda over: getattr(seqjax, name)(**over, **rest))(there)
    assert distance(*map(numbers, (found, expected))) < 1e-10


def test_noise_does_not_depend_on_the_mesh():
    layer, key = make("zoneout", 4, rngs=nnx.Rngs(0)), jax.random.key(1)
    x = inputs().astype(jnp.float32)
    split = jax.device_put(x, NamedSharding(EXPLICIT, P("data")))
    found, expected = (jax.jit(lambda x: layer(x, key=key)[0])(x) for x in (split, x))
    assert distance(found, expected) < 1e-6
    assert distance(layer(x)[0], expected) > 1e-3


def test_models_on_explicit_axes():
    task = make_task("state_tracking")
    config = ModelConfig(features=4, depth=3, layer=(LayerConfig("min_gru", {}),))
    model = Model(config, task.spec, rngs=nnx.Rngs(0))
    batch = next(task.batches(0, B, T))
    y, h = jax.jit(model)(batch.x)
    there = jax.device_put(batch.x, NamedSharding(EXPLICIT, P("data", "time")))
    found, state = jax.jit(model)(there)
    assert distance(found, y) < 1e-5 and found.sharding.spec[:2] == ("data", "time")
    again, _ = jax.jit(lambda x, h: model(x, h))(there, state)
    assert distance(again, jax.jit(model)(batch.x, h)[0]) < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_pmap():
    layer = make("min_gru", 4, rngs=nnx.Rngs(0))
    x = inputs().astype(jnp.float32)
    y = jax.pmap(lambda x: layer(x)[0], devices=jax.devices()[:2])(x.reshape(2, 2, T, 4))
    assert distance(y.reshape(B, T, -1), layer(x)[0]) < 1e-6


def test_a_loop_whose_carry_varies_later_and_later():
    """A carry of three parts, of which each takes from the one before: three rounds."""

    def local(x):
        def body(carry, x):
            a, b, c = carry
            return (x, a, b), c

        zero = jnp.zeros(())
        return loop(body, (zero, zero, zero), x[:, 0])[1][:, None]

    mesh = jax.make_mesh((2, 2), ("data", "time"), axis_types=(AxisType.Auto,) * 2)
    x = jnp.arange(10.0).reshape(5, 2)
    y = jax.shard_map(local, mesh=mesh, in_specs=P(None, "time"), out_specs=P(None, "time"))(x)
    assert y[3:].tolist() == x[:2].tolist()


@pytest.mark.parametrize("split", range(4))
def test_the_primitive_of_which_one_operand_varies(split):
    """a, b, h0 or the resets; the others are the same on all devices, and so are their gradients
    summed."""
    draw = np.random.default_rng(0)
    a, b = (jnp.asarray(draw.uniform(0.1, 0.9, (2, 5, 3))) for _ in range(2))
    given = a, b, jnp.asarray(draw.normal(size=(2, 3))), jnp.zeros((2, 5), bool).at[1, 2].set(True)
    specs = tuple(P("data") if n == split else P() for n in range(4))

    def local(*operands):
        one = [o if n == split else o[0:1] for n, o in enumerate(operands)]
        return linear_scan(*one)

    def whole(*operands):
        one = [o if n == split else jnp.concatenate([o[0:1]] * 2) for n, o in enumerate(operands)]
        return linear_scan(*one)

    def both(run):
        def number(*numbers):
            y = run(*numbers, given[3])
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(number, (0, 1, 2), has_aux=True))(*given[:3])

    run = jax.shard_map(local, mesh=AUTO, in_specs=specs, out_specs=P("data"))
    assert distance(both(run), both(whole)) < 1e-12
