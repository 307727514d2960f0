"""Goldens of reservoirs (reservoirpy), of spiking neurons (snntorch, norse) and of closed forms."""

import jax.numpy as jnp
from golden_layers import all_states, build, by_evaluator, under

from seqjax.layers.reservoir.intrinsic_plasticity import intrinsic_plasticity
from seqjax.learn.readout import memory_capacity
from seqjax.nn.spikes import firing_rate

LOOP = ("sequential", "parallel_backward")


def weights(inputs, n="", **own):
    H = len(inputs[f"W{n}"])
    b = inputs.get("bias" if n == "" else f"b{n}", jnp.zeros(H))
    full = {name: jnp.broadcast_to(value, (H,)) for name, value in own.items()}
    return {"W": inputs[f"W{n}"], "W_in": inputs[f"Win{n}"], "b": b} | full


def esn(inputs, meta, *, evaluator):
    x, values = inputs["x"], weights(inputs, a=inputs["lr"])
    options = dict(hidden=len(values["W"]), activation=meta["activation"])
    return {
        "h": build("esn", x.shape[2], values, **options)(x, inputs["h0"], evaluator=evaluator)[0]
    }


def es2n(inputs, meta, *, evaluator):
    x, values = inputs["x"], weights(inputs, beta=inputs["proximity"]) | {"O": inputs["O"]}
    options = dict(hidden=len(values["W"]), activation=meta.get("activation", "tanh"))
    layer = build("es2n", x.shape[2], values, **options)
    return {"h": layer(x, inputs["h0"], evaluator=evaluator)[0]}


def residual_esn(inputs, meta, *, evaluator):
    x, values = inputs["x"], weights(inputs, beta=inputs["beta"])
    values |= {"O": inputs["O"], "alpha": inputs["alpha"]}
    layer = build("residual_esn", x.shape[2], values, hidden=len(values["W"]))
    return {"h": layer(x, inputs.get("h0"), evaluator=evaluator)[0]}


def deep_esn(inputs, meta, *, evaluator):
    x, units, values = inputs["x"], tuple(meta["units"]), {}
    for n in range(len(units)):
        values |= under(f"reservoirs.{n}", weights(inputs, n, a=inputs["lr"][n]))
    return {"h": build("deep_esn", x.shape[2], values, units=units)(x, evaluator=evaluator)[0]}


def plasticity(inputs, meta):
    x, H = inputs["x"], len(inputs["W"])
    values = weights(inputs, a=meta["lr"], gain=1.0, shift=0.0)
    options = dict(hidden=H, activation=meta["activation"], plastic=True)
    layer = build("esn", x.shape[1], values, **options)
    sigma = meta["sigma"]
    found = intrinsic_plasticity(
        layer,
        x,
        mu=meta["mu"],
        rate=meta["learning_rate"],
        **({} if sigma is None else {"sigma": sigma}),
    )
    return {"a": found.gain, "b": found.shift, "h": found.y}


def capacity(inputs, meta):
    layer = build("esn", 1, weights(inputs, a=meta.get("lr", 1.0)), hidden=len(inputs["W"]))
    meta.expect(test_state="continued_state")
    found = memory_capacity(
        layer,
        inputs["series"][:, 0],
        longest=meta["k_max"],
        ridge=meta["ridge"],
        test=meta["test_size"],
    )
    return {"mc_k": found, "mc": jnp.sum(found)}


def nvar(inputs, meta):
    X, options = inputs["X"], {"stride": meta["strides"]}
    options |= {name: meta[name] for name in ("delay", "order")}
    return {"features": build("nvar", X.shape[1], {}, constant=False, **options)(X[None])[0][0]}


def neurons(x, gain, evaluator="sequential", **options):
    """All states of neurons that know nothing of each other, each with an input of its own."""
    N = x.shape[2]
    values = {"W": jnp.zeros((N, N)), "W_in": gain * jnp.eye(N)}
    layer = build("liquid_state_machine", N, values, solver="euler", refractory=0.0, **options)
    h = layer.batch_state(len(x), x.dtype)
    return all_states(layer, x, h, evaluator)[0]


def snntorch(inputs, meta):
    beta, delayed = meta["beta"], meta["reset_delay"]
    options = dict(reset=meta["reset"], threshold=meta["threshold"], delayed=delayed)
    # its x is added to v as it is, ours times the share that v loses
    states = neurons(
        inputs["x"], 1 / (1 - beta), dt=1.0, tau=1 / (1 - beta), synapse=0.0, **options
    )
    return {"spk": states.z, "mem": states.v}


def norse(inputs, meta):
    options = dict(dt=meta["dt"], tau=meta["tau_mem"], synapse=meta["tau_syn"])
    states = neurons(inputs["x"], 1.0, threshold=meta["v_th"], **options)
    return {"z": states.z, "v": states.v, "i": states.i}


def rate(inputs, meta):
    options = dict(tau=meta["tau"], resistance=meta["R"], refractory=meta["t_ref"])
    return {"rate": firing_rate(inputs["I"], threshold=meta["v_th"], **options)}


ADAPTERS = {
    "esn_states": by_evaluator(esn, *LOOP),
    "es2n_states": by_evaluator(es2n, *LOOP),
    "residual_esn": by_evaluator(residual_esn, *LOOP),
    "deep_esn": by_evaluator(deep_esn, *LOOP),
    "intrinsic_plasticity": {"sequential": plasticity},
    "memory_capacity": {"sequential": capacity},
    "nvar_features": {"function": nvar},
    "lif_snntorch": {"sequential": snntorch},
    "lif_norse": {"sequential": norse},
    "lif_fi_curve": {"function": rate},
}
