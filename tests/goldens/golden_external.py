"""Adapters of networks with an external memory: pytorch-ntm, pytorch-dnc and deepmind/dnc.

Those goldens begin at the output of the controller: ours, and the readout, are left at zero.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from golden_layers import build

from seqjax.layers.memory import addressing
from seqjax.layers.memory.dnc import DNCState
from seqjax.layers.memory.ntm import NTMState
from seqjax.zoo import make


def heads_of(name, parameters, **options):
    """The layer with the parameters of what it does with its memory."""
    shapes = nnx.eval_shape(lambda: make(name, 1, rngs=nnx.Rngs(0), **options))
    flat = nnx.to_flat_state(nnx.state(shapes, nnx.Param))
    zeros = {".".join(map(str, path)): jnp.zeros(p.shape) for path, p in flat}
    return build(name, 1, zeros | parameters, **options)


def used(layer, state, o):
    """The states after each output o [B, T, hidden] of a controller: [B, T, ..]."""

    def step(state, o):
        state = layer.use(state, o)
        return state, state

    return jax.vmap(lambda state, o: jax.lax.scan(step, state, o)[1])(state, o)


def ntm(inputs, meta):
    emb, memory = inputs["emb"], inputs["memory0"]
    _, cells, width = memory.shape
    fc = {head: (inputs[f"fc_{head}.weight"], inputs[f"fc_{head}.bias"])
          for head in ("read", "write")}  # fmt: skip
    parameters = {f"E.{n}.kernel": W.T for n, (W, _) in enumerate(fc.values())}
    parameters |= {f"E.{n}.bias": b for n, (_, b) in enumerate(fc.values())}
    layer = heads_of(
        "ntm",
        parameters,
        cells=cells,
        width=width,
        shifts=len(fc["read"][1]) - width - 3,
        hidden=emb.shape[2],
        eps=0.0,
    )
    at = jnp.stack([inputs["w_read0"], inputs["w_write0"]], axis=1)
    *_, reads, controller = layer.batch_state(len(emb), emb.dtype)
    states = used(layer, NTMState(memory, at, reads, controller), emb)
    return {
        "read": states.reads[:, :, 0],
        "w_read": states.weights[:, :, 0],
        "w_write": states.weights[:, :, 1],
        "memory": states.memory[:, -1],
    }


def dnc(inputs, meta):
    xi, memory, w_r = inputs["xi_in"], inputs["memory"], inputs["read_weights"]
    _, cells, width = memory.shape
    R = w_r.shape[1]
    meta.expect(read_heads=R)

    def modes(rows):  # theirs are backward, forward, content
        rest, modes = jnp.split(rows, [len(rows) - 3 * R])
        modes = modes.reshape(R, 3, *rows.shape[1:])[:, jnp.array([0, 2, 1])]
        return jnp.concatenate([rest, modes.reshape(3 * R, *rows.shape[1:])])

    parameters = {
        "E.kernel": modes(inputs["interface_weights.weight"]).T,
        "E.bias": modes(inputs["interface_weights.bias"]),
    }
    layer = heads_of(
        "dnc",
        parameters,
        cells=cells,
        width=width,
        read_heads=R,
        hidden=xi.shape[2],
        strengths="softplus",
        squashed=True,
        soft_lengths=False,
    )
    names = ("usage_vector", "link_matrix", "precedence", "write_weights", "read_weights")
    given = [inputs[name] for name in names]
    *_, reads, controller = layer.batch_state(len(xi), xi.dtype)
    states = used(layer, DNCState(memory, *given, reads, controller), xi)
    last = dict(zip(("memory", *names), states))
    found = {f"final_{name}": value[:, -1] for name, value in last.items()}
    return {"read": states.reads} | found


def dnc_addressing(inputs, meta):
    """Its parts, one by one: the release's epsilon, inside the lengths and beside."""
    eps = 1e-6

    def one(v):
        w_w, w_r = v["write_weights"], v["read_weights"]
        beta = jax.nn.softplus(v["strengths"])
        links = addressing.link(v["link"], v["precedence"], w_w)
        back, forth = addressing.follow(links, w_r)
        fixed = jax.lax.stop_gradient(w_w)
        usage = addressing.usage(v["usage"], fixed, v["free_gate"], w_r)
        return {
            "content": addressing.content(v["keys"], beta, v["memory"], eps, eps),
            "link": links,
            "precedence": addressing.precedence(v["precedence"], w_w),
            "forward": forth,
            "backward": back,
            "usage": usage,
            "allocation": addressing.allocations(usage, v["write_gates"], eps),
        }

    return jax.vmap(one)(dict(inputs))


ADAPTERS = {
    "ntm_heads": {"sequential": ntm},
    "dnc_memory": {"sequential": dnc},
    "dnc_addressing_dm": {"sequential": dnc_addressing},
}
