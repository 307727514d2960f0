"""Goldens of steps of differential equations: the weights of their releases under our names."""

import re
from math import isqrt

import jax
import jax.numpy as jnp
import pytest
from golden_layers import all_states, build, by_evaluator, gru_weights, identity, under
from golden_zoneout import blocks

from seqjax.layers.classic.lstm import LSTMState
from seqjax.layers.constrained.skew import above
from seqjax.layers.ode.cornn import Oscillators
from seqjax.layers.ode.lem import LEMState

CELL = ("sequential", "newton", "parallel_backward")


def both_states(inputs, like, make, first, second):
    """The state of two parts, which a case may leave at zero."""
    if first not in inputs:
        return make(like, like)
    return make(inputs[first], inputs[second])


def cornn(inputs, meta, *, evaluator):
    x, weight = inputs["x"], inputs["i2h.weight"]
    hidden = len(weight)
    V, W_z, W = jnp.split(weight, [x.shape[2], x.shape[2] + hidden], axis=1)
    values = {"V.kernel": V.T, "V.bias": inputs["i2h.bias"], "W": W, "W_z": W_z}
    options = {name: meta[name] for name in ("dt", "gamma", "epsilon")}
    layer = build("cornn", x.shape[2], values, hidden=hidden, **options)
    h = both_states(inputs, jnp.zeros((len(x), hidden)), Oscillators, "hy0", "hz0")
    states, _ = all_states(layer, x, h, evaluator)
    return {"hy": states.y, "hz": states.z}


def unicornn(inputs, meta, *, evaluator):
    x, w = inputs["x"], inputs["weight_hh"]
    values = {"V.kernel": identity(len(w)), "V.bias": jnp.zeros(len(w)), "w": w, "c": inputs["c"]}
    layer = build("unicornn", len(w), values, dt=meta["dt"], alpha=meta["alpha"])
    zero = jnp.zeros((len(x), len(w)))
    h = both_states(inputs, zero, lambda y, z: jnp.stack([y, z], axis=2), "hy0", "hz0")
    y, h = layer(x, h, evaluator=evaluator)
    return {"y": y, "hz": h[:, :, 1]}


def lem(inputs, meta, *, evaluator):
    x, W_y = inputs["x"], inputs["transform_z.weight"]
    # its block z, the third of the inputs', feeds y, and its block y feeds z
    V, b = (jnp.split(inputs[f"inp2hid.{name}"], 4) for name in ("weight", "bias"))
    later, first, u_y, u_z = ((V[n], b[n]) for n in range(4))
    W, c = (jnp.split(inputs[f"hid2hid.{name}"], 3) for name in ("weight", "bias"))
    order = (first, later, u_z, u_y)
    biases = (c[1], c[0], c[2], inputs["transform_z.bias"])
    values = {
        "V.kernel": jnp.concatenate([weight for weight, _ in order]).T,
        "V.bias": jnp.concatenate([b + more for (_, b), more in zip(order, biases)]),
        "W": jnp.concatenate([W[1], W[0], W[2]]),
        "W_y": W_y,
    }
    layer = build("lem", x.shape[2], values, hidden=len(W_y), dt=meta["dt"])
    h = both_states(inputs, jnp.zeros((len(x), len(W_y))), LEMState, "y0", "z0")
    states, _ = all_states(layer, x, h, evaluator)
    return {"y": states.y, "z": states.z}


def lipschitz_rnn(inputs, meta, *, evaluator):
    x, model = inputs["x"], meta["model"]
    solver = {"euler": "euler", "midpoint": "midpoint", "rk4": "rk38"}[meta.get("solver", "euler")]
    values = {"U.kernel": inputs["E.weight"].T, "U.bias": inputs["E.bias"]}
    hidden = len(inputs["E.bias"])
    if model == "LipschitzRNN_ODE":
        assert meta.get("alpha", 1) == 1, "the release's field has no alpha"
    else:
        assert "solver" not in meta or solver == "euler", "the release solves its ODE form only"
    if model in ("simpleRNN", "calRNN"):
        meta.ignore("eps", "beta", "gamma", "alpha")
    options = dict(hidden=hidden)
    if model == "resRNN":
        meta.ignore("beta", "gamma", "alpha")
        options |= dict(dt=meta["eps"], form="residual")
        values["M_W"] = inputs["W.weight"]
    elif model in ("LipschitzRNN", "LipschitzRNN_ODE", "LipschitzRNN_gated"):
        gamma = meta["gamma"]
        options |= dict(dt=meta["eps"], beta=meta["beta"], alpha=meta["alpha"], solver=solver)
        options |= dict(gamma_A=gamma, gamma_W=gamma, gated=model.endswith("gated"))
        names = ("func.B", "func.C") if model.endswith("ODE") else ("B", "C")
        values |= {name: inputs[its].T for name, its in zip(("M_A", "M_W"), names)}
        if model.endswith("gated"):
            gate = inputs["E_gate.weight"].T, inputs["E_gate.bias"]
            values["U.kernel"] = jnp.concatenate([values["U.kernel"], gate[0]], axis=1)
            values["U.bias"] = jnp.concatenate([values["U.bias"], gate[1]])
    else:
        return other_rnn(inputs, meta, model, evaluator=evaluator)
    layer = build("lipschitz_rnn", x.shape[2], values, **options)
    return {"h": layer(x, evaluator=evaluator)[0]}


def other_rnn(inputs, meta, model, *, evaluator):
    """What the release compares with. Its matrices act on rows: from the left ours are W^T."""
    x, kernel, bias = inputs["x"], inputs["E.weight"].T, inputs["E.bias"]
    if model == "simpleRNN":
        values = {"W.kernel": kernel, "W.bias": bias, "U": inputs["W.weight"]}
        layer = build("elman", x.shape[2], values, hidden=len(bias))
    elif model == "calRNN":
        skew = above(inputs["C"].T - inputs["C"])
        options = dict(parametrisation="cayley", activation="tanh")
        values = {"W.kernel": kernel, "b": bias, "skew": skew}
        layer = build("orthogonal_rnn", x.shape[2], values, hidden=len(bias), **options)
    else:
        assert model == "asymRNN", f"no row is the release's {model}"
        meta.ignore("beta", "alpha")
        values = {"V.kernel": kernel, "V.bias": bias, "skew": above(inputs["C"].T - inputs["C"])}
        options = dict(hidden=len(bias), dt=meta["eps"], gamma=meta["gamma"])
        layer = build("antisymmetric_rnn", x.shape[2], values, **options)
    return {"h": layer(x, evaluator=evaluator)[0]}


def noisy_rnn(inputs, meta, *, evaluator):
    x, learned = inputs["x"], {"base": False, "noisy": True}[meta["solver"]]
    options = {name: meta[name] for name in ("beta", "gamma_A", "gamma_W", "alpha")}
    values = {"U.kernel": inputs["E.weight"].T, "U.bias": inputs["E.bias"]}
    values |= {"M_A": inputs["B"].T, "M_W": inputs["C"].T}
    if learned:
        values["d"] = inputs["d"]
    else:
        inputs.ignore("d")
    meta.ignore("add_noise", "mult_noise")  # of training
    options |= dict(hidden=len(inputs["B"]), dt=meta["eps"], learned_dt=learned)
    layer = build("noisy_rnn", x.shape[2], values, **options)
    return {"h": layer(x, evaluator=evaluator)[0]}


def ct_rnn(inputs, meta, *, evaluator):
    u, A, kind = inputs["u"], inputs["A"], meta["kind"]
    options = {
        "euler": dict(solver="euler"),
        "rk4": dict(solver="rk38"),
        "linear": dict(activation="linear", solver="exact"),
        "tanh": dict(solver="rk4", substeps=256),  # solved to 1e-13 there
    }[kind]
    values = {"A": A, "B.kernel": inputs["B"].T, "B.bias": inputs["b"]}
    if "tau" in inputs:
        values["log_tau"] = jnp.log(inputs["tau"])
    else:
        options["tau"] = None
    layer = build("ct_rnn", u.shape[2], values, hidden=len(A), **options)
    dt = jnp.broadcast_to(inputs["dt"][None], u.shape[:2])
    return {"x": layer(u, inputs.get("x0"), dt=dt, evaluator=evaluator)[0]}


def ltc(inputs, meta, *, evaluator):
    x, hidden = inputs["x"], len(inputs["cm"])
    values = {"c": inputs["cm"], "g": inputs["gleak"], "v_leak": inputs["vleak"]}
    for ours, its in (("input", "sensory_"), ("within", "")):
        for name in ("w", "sigma", "mu"):
            values[f"{ours}.{name}"] = inputs[its + name]
        values[f"{ours}.E"] = inputs[f"{its}erev"]
        values[f"{ours}.mask"] = inputs[f"{its}sparsity_mask"]
    options = dict(hidden=hidden, outputs=meta["motor_size"], unfolds=meta["ode_unfolds"])
    for of in ("input", "output"):
        short = of.removesuffix("put")
        found = {n: inputs[f"{of}_{v}"] for n, v in zip("ab", "wb") if f"{of}_{v}" in inputs}
        options[f"{of}_mapping"] = ("none", "linear", "affine")[len(found)]
        values |= {f"{n}_{short}": value for n, value in found.items()}
    if "epsilon" in meta:
        options["eps"] = meta["epsilon"]
    layer = build("ltc", x.shape[2], values, implicit=meta["implicit"], **options)
    dt = meta["elapsed"]
    dt = inputs["elapsed"] if dt is None else jnp.full(x.shape[:2], dt)
    y, h = layer(x, inputs.get("h0"), dt=dt, evaluator=evaluator)
    return {"y": y, "h": h}


def cfc(inputs, meta, *, evaluator):
    x, mode, depth = inputs["x"], meta["mode"], meta["backbone_layers"]
    hidden, features = len(inputs["ff1.bias"]), x.shape[2]
    heads = ("ff1",) if mode == "pure" else ("ff1", "ff2", "time_a", "time_b")

    def linear(*names):
        parts = [[inputs[f"{name}.{of}"] for name in names] for of in ("weight", "bias")]
        return tuple(map(jnp.concatenate, parts))

    first, bias = linear("backbone.0") if depth else linear(*heads)
    values = {"W.kernel": first[:, :features].T, "W.bias": bias, "U": first[:, features:]}
    for n in range(1, depth):
        weight, values[f"backbone.{n - 1}.bias"] = linear(f"backbone.{2 * n}")
        values[f"backbone.{n - 1}.kernel"] = weight.T
    if depth:
        weight, values["heads.bias"] = linear(*heads)
        values["heads.kernel"] = weight.T
    if mode == "pure":
        values |= {name: inputs[name][0] for name in ("w_tau", "A")}
    h, mixed = inputs.get("h0"), meta["mixed_memory"]
    if mixed:
        order = (1, 2, 0, 3)  # of its g, i, f, o
        one = jnp.zeros(4 * hidden).at[hidden : 2 * hidden].set(1)  # added to its forget gate
        names = ("input_map.weight", "recurrent_map.weight", "input_map.bias")
        W, U, b = (blocks(order, inputs[f"lstm.{name}"].T)[0] for name in names)
        values |= {"memory.W.kernel": W, "memory.U": U.T, "memory.W.bias": b + one}
        zero = jnp.zeros((len(x), hidden))
        h = both_states(inputs, zero, LSTMState, "h0", "c0")
    layer = build(
        "cfc",
        features,
        values,
        hidden=hidden,
        mode=mode,
        units=len(bias),
        depth=depth,
        activation=meta["backbone_activation"],
        mixed_memory=mixed,
    )
    y, h = layer(x, h, dt=inputs.get("timespans"), evaluator=evaluator)
    return {"y": y, "c": h.c} if mixed else {"y": y}


def wave_rnn(inputs, meta, *, evaluator):
    x, channels = inputs["x"], meta["n_ch"]
    activation = {"ident": "linear"}.get(meta["act"], meta["act"])
    sites = len(inputs["Wx.bias"]) // channels
    values = {"V.kernel": inputs["Wx.weight"].T, "V.bias": inputs["Wx.bias"]}
    values |= {"u": inputs["Wy.weight"], "b": inputs["Wy.bias"]}
    options = dict(kernel_size=meta["ksize"], activation=activation)
    layer = build("wave_rnn", x.shape[2], values, sites=sites, channels=channels, **options)
    h = inputs.get("h0")
    h = None if h is None else h.reshape(len(x), channels, sites)
    return {"h": layer(x, h, evaluator=evaluator)[0]}


def nwm(inputs, meta, *, evaluator):
    x, hidden = inputs["x"], len(inputs["Wx.bias"])
    values = {"V.kernel": inputs["Wx.weight"].T, "V.bias": inputs["Wx.bias"]}
    for name in "yz":
        values[f"w_{name}"] = inputs[f"W{name}.weight"].reshape(-1)
        values[f"b_{name}"] = inputs[f"W{name}.bias"].reshape(())
    options = {name: meta[name] for name in ("dt", "gamma", "epsilon")}
    size = inputs["Wy.weight"].shape[-1]
    layer = build("nwm", x.shape[2], values, sites=isqrt(hidden), kernel_size=size, **options)
    h = both_states(inputs, jnp.zeros((len(x), hidden)), Oscillators, "hy0", "hz0")
    y, h = layer(x, h, evaluator=evaluator)
    return {"hy": y, "hz": h.z}


def nothing(meta, batch):
    """Inputs for a case that has none: zeros, for as many steps as its name has."""
    steps = re.search(r"L(\d+)", meta["case"])
    assert steps, f"the case {meta['case']} does not name its steps"
    return jnp.zeros((batch, int(steps[1]), 1))


def plrnn(inputs, meta, *, evaluator):
    z0, kind = inputs["z0"], meta["kind"]
    values = {"AW": inputs["AW"], "h": inputs["h"], "C": jnp.zeros((z0.shape[1], 1))}
    if kind == "vanilla":
        inputs.ignore("alphas", "thetas")
    else:
        values |= {"alpha": inputs["alphas"], "theta": inputs["thetas"]}
    clip = meta["clip"]
    options = dict(form=kind, centred=meta["mean_centering"], bases=len(inputs.get("alphas", [0])))
    options["clip"] = None if kind == "clipped" else clip  # its clipped form does not clip z
    layer = build("plrnn", 1, values, hidden=z0.shape[1], **options)
    x = nothing(meta, len(z0))
    return {"z": layer(x, z0, evaluator=evaluator)[0]}


def shallow_plrnn(inputs, meta, *, evaluator):
    z0, alpha = inputs["z0"], meta["alpha"]
    names = {"A": "A", "W1": "W_1", "W2": "W_2", "h1": "h", "h2": "h_2"}
    values = {ours: inputs[its] for its, ours in names.items()}
    options = dict(hidden=z0.shape[1], width=len(inputs["h2"]), forcing=alpha)
    options["form"] = "clipped_shallow" if meta["clipped"] else "shallow"
    if alpha is None:
        values["C"] = jnp.zeros((z0.shape[1], 1))
        x = nothing(meta, len(z0))
    else:
        x = inputs["d"]
    layer = build("plrnn", x.shape[2], values, **options)
    return {"z": layer(x, z0, evaluator=evaluator)[0]}


def ode_rnn(inputs, meta, *, evaluator):
    x, W_1 = inputs["x"], inputs["W1"]
    values = {f"W_{n}.kernel": inputs[f"W{n}"].T for n in (1, 2)}
    values |= {f"W_{n}.bias": inputs[f"b{n}"] for n in (1, 2)}
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    values |= under("gru", gru_weights(*(inputs[name] for name in names)))
    options = dict(hidden=W_1.shape[1], width=len(W_1), substeps=meta["substeps"])
    layer = build("ode_rnn", x.shape[2], values, **options)
    return {"y": layer(x, inputs.get("h0"), dt=inputs["dt"], evaluator=evaluator)[0]}


def neural_cde(inputs, meta, *, evaluator):
    """The first channel of x is the time, at whose values the path has its knots."""
    x, W, path = inputs["x"], inputs["W"], meta["interpolation"]
    if path == "natural":
        pytest.skip("neural_cde has no natural splines: they look ahead")
    one_step = meta["solver"].startswith("3/8-rule")
    options = dict(solver="rk38") if one_step else dict(solver="dopri8", tolerance=1e-12)
    values = {"W.kernel": W.T, "W.bias": inputs["b"]}
    values |= {"W_0.kernel": inputs["W0"].T, "W_0.bias": inputs["b0"]}
    layer = build(
        "neural_cde", x.shape[2], values, hidden=W.shape[1], path=path, time=False, **options
    )
    t = jax.lax.stop_gradient(x[:, :, 0])  # knots do not move with the values of their channel
    dt = jnp.diff(t, axis=1, prepend=t[:, :1])
    return {"z": layer(x, dt=dt, evaluator=evaluator)[0]}


def koopman_ae(inputs, meta):
    """Frames [m, n] as one vector; errors of the mean over the batch."""
    x = inputs["x_seq"]
    frames = jnp.moveaxis(x.reshape(*x.shape[:2], -1), 0, 1)  # [B, T, features]
    values = {"C": inputs["dynamics.dynamics.weight"], "D": inputs["backdynamics.dynamics.weight"]}
    for ours, its in (("chi_e", "encoder"), ("chi_d", "decoder")):
        for n in range(3):
            values[f"{ours}.layers.{n}.kernel"] = inputs[f"{its}.fc{n + 1}.weight"].T
            values[f"{ours}.layers.{n}.bias"] = inputs[f"{its}.fc{n + 1}.bias"]
    width, hidden = len(inputs["encoder.fc1.bias"]), len(values["C"])
    layer = build("koopman_ae", frames.shape[2], values, hidden=hidden, width=width)
    steps, back = meta["steps"], meta["steps_back"]

    def one(frames):
        first, last = frames[0], frames[-1]
        ahead, behind = layer.forecast(first, steps), layer.backcast(last, back)
        # the release returns the frame itself, coded and decoded, behind the others
        again = (layer.reconstruct(frame)[None] for frame in (first, last))
        ahead, behind = (jnp.concatenate(both) for both in zip((ahead, behind), again))
        return ahead, behind, layer.losses(frames[: steps + 1], back=back)

    ahead, behind, losses = jax.vmap(one)(frames)
    losses = jax.tree.map(jnp.mean, losses)
    shape = (-1, *x.shape[1:])
    return {
        "fwd": jnp.moveaxis(ahead, 1, 0).reshape(shape),
        "bwd": jnp.moveaxis(behind, 1, 0).reshape(shape),
        "loss_fwd": losses.forward,
        "loss_identity": losses.identity,
        "loss_bwd": losses.backward,
        "loss_consist": losses.consistency,
    }


ADAPTERS = {
    "koopman_ae": {"the four errors": koopman_ae},
    "cornn": by_evaluator(cornn, *CELL),
    "unicornn": by_evaluator(unicornn, *CELL),
    "lem": by_evaluator(lem, *CELL),
    "lipschitz_rnn": by_evaluator(lipschitz_rnn, *CELL),
    "noisy_rnn": by_evaluator(noisy_rnn, *CELL),
    "ct_rnn": by_evaluator(ct_rnn, *CELL),
    "ltc": by_evaluator(ltc, *CELL),
    "cfc": by_evaluator(cfc, *CELL),
    "wave_rnn": by_evaluator(wave_rnn, *CELL),
    "nwm_conv2d": by_evaluator(nwm, *CELL),
    "plrnn": by_evaluator(plrnn, *CELL),
    "shallow_plrnn": by_evaluator(shallow_plrnn, *CELL),
    "neural_cde": by_evaluator(neural_cde, "sequential"),
    "ode_rnn_euler": by_evaluator(ode_rnn, *CELL),
}
