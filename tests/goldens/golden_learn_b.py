"""Goldens of implicit learning, FPTT, linear readouts and initial biases."""

import jax
import jax.numpy as jnp
import optax
from golden_layers import build
from golden_learners import with_gradient
from jax import lax

from seqjax.learn.cell import Cell
from seqjax.learn.fptt import Anchor, follow_up, fptt, regulariser
from seqjax.learn.implicit import cg_rbp, neumann_rbp, rbp
from seqjax.learn.learner import squared_error
from seqjax.learn.lifted import Window, relaxed
from seqjax.learn.predictive import predictive_coding
from seqjax.learn.readout import closed_loop, lms, ridge_readout, rls
from seqjax.nn.initialisation import chrono


def fixed_point(make, series=False):
    """The gradient of the offset c, which is zero, is z itself."""

    def answer(inputs, meta):
        names = ("W", "U", "b")
        params = {k: inputs[k] for k in names}
        fixed = lax.stop_gradient(params) | {"c": jnp.zeros_like(params["b"])}
        cell = Cell(
            lambda p: jnp.zeros_like(p["b"]),
            lambda p, h, x: jnp.tanh(p["W"] @ h + p["U"] @ x + p["b"]) + p["c"],
            lambda p, h, x: inputs["V"] @ h,
        )
        xs, ys = inputs["x"][None], inputs["y"][None]

        def told(make, **options):
            learner = make(cell, squared_error, tolerance=1e-15, steps=1000, **options)
            return learner.grad(fixed, learner.init(fixed), xs, ys)

        loss, grads, state = told(make)
        own = {k: grads[k] for k in names}
        answers = {"h_star": state.h, "z": grads["c"], "loss": with_gradient(loss, params, own)}
        if series:
            for k in (0, 1, 2, 5, 10):
                grads = told(neumann_rbp, k=k)[1]
                answers |= {f"neumann{k}_{n}": grads[n] for n in names}
                answers[f"neumann{k}_z"] = grads["c"]
        return answers

    return answer


def forward_propagation(inputs, meta):
    """One window per row of G, with the loss <G_k, w>."""
    options = {k: meta[k] for k in ("alpha", "rho")} | {"weight": meta["lmbda"]}
    alpha, beta = meta["alpha"], meta["beta"]
    cell = Cell(lambda w: jnp.zeros(()), lambda w, h, x: h, lambda w, h, x: jnp.sum(x * w))
    learner = fptt(cell, lambda y, target: y, beta=beta, **options)
    optimiser = optax.sgd(meta["lr"])
    w, rows = inputs["w0"], []
    state, moments = learner.init(w), optimiser.init(w)
    for g in inputs["G"]:
        reg = regulariser(w, follow_up(Anchor(state.s, state.w_bar), w, alpha, beta), **options)
        _, grads, state = learner.grad(w, state, g[None], None)
        updates, moments = optimiser.update(grads, moments, w)
        w = optax.apply_updates(w, updates)
        after = follow_up(Anchor(state.s, state.w_bar), w, alpha, beta)
        rows.append({"w": w, "w_bar": after.w_bar, "lam": after.s, "reg": reg})
    return jax.tree.map(lambda *r: jnp.stack(r), *rows)


def ridge(inputs, meta):
    X = inputs["X"]
    found = ridge_readout(X, inputs["Y"], meta["ridge"], fit_bias=meta["fit_bias"])
    return {"Wout": found.W, "bias": found.b, "pred": found(X)}


def online(make, **names):
    """The trajectory of an online readout; its predictions are ours, made before the target."""

    def answer(inputs, meta):
        X, Y = inputs["X"], inputs["Y"]
        options = {name: meta[theirs] for name, theirs in names.items()}
        learner = make(X.shape[1], Y.shape[1], fit_bias=meta["fit_bias"], **options)

        def body(state, now):
            state, _ = learner.step(state, *now)
            return state, state

        _, states = lax.scan(body, learner.init(), (X, Y))
        answers = {"Wout": states.readout.W, "bias": states.readout.b}
        return answers | ({"P": states.P} if hasattr(states, "P") else {})

    return answer


def pipeline(inputs, meta):
    series, W = inputs["series"][None], inputs["W"]
    leak = jnp.full(len(W), meta["lr"])
    weights = {"W": W, "W_in": inputs["Win"], "b": inputs["bias"], "a": leak}
    esn = build("esn", series.shape[2], weights, hidden=len(W))
    warmup, train, T = meta["warmup"], meta["n_train"], meta["T"]
    states, h = esn(series[:, :T])
    targets = series[:, warmup + 1 : train + 1]
    readout = ridge_readout(states[:, warmup:train], targets, meta["ridge"])
    predicted = readout(states[:, train:])
    free, _ = closed_loop(esn, readout, h, predicted[:, -1], 10)
    return {
        "states": states[0], "Wout": readout.W, "readout_bias": readout.b,
        "pred_test": predicted[0], "closed_loop": free[0],
    }  # fmt: skip


def gate_biases(inputs, meta):
    b_f = chrono(inputs["u"], inputs["T_max"])
    return {"chrono_bf": b_f, "chrono_bi": -b_f}


def settled(inputs, meta):
    """Layers as steps of one cell: states are padded to the widest, W_l is read at step l."""
    *widths, _ = sizes = tuple(meta["sizes"])[1:]
    params = {k: v for k, v in inputs.items() if k.startswith("W")}
    widest, steps = max(widths), len(widths)

    def step(p, h, x):
        ways = [p["W0"] @ inputs["x0"]]
        ways += [p[f"W{n}"] @ jnp.tanh(h[: widths[n - 1]]) for n in range(1, steps)]
        return jnp.stack([jnp.pad(way, (0, widest - len(way))) for way in ways])[x]

    cell = Cell(
        lambda p: jnp.zeros(widest), step,
        lambda p, h, x: p[f"W{steps}"] @ jnp.tanh(h[: widths[-1]]),
    )  # fmt: skip

    def loss(y, target):
        return target[1] * squared_error(y, target[0])

    xs = jnp.arange(steps)
    ys = jnp.broadcast_to(inputs["y"], (steps, sizes[-1])), jnp.where(xs == steps - 1, 1.0, 0.0)
    learner = predictive_coding(cell, loss, fixed=False, rate=0.1, iterations=3000)
    grads = learner.grad(params, learner.init(params), xs, ys)[1]
    window, own, _ = Window.of(cell, loss, params, jnp.zeros(widest), xs, ys)
    vs = relaxed(window, params, own, 0.0, 1.0, 0.1, 3000)
    eps = vs - window.predicted(params, vs)
    answers = {f"dF_d{k}": v for k, v in grads.items()}
    for n, width in enumerate(widths):
        answers |= {f"x{n + 1}": vs[n, :width], f"eps{n + 1}": eps[n, :width]}
    answers[f"eps{steps + 1}"] = inputs["y"] - cell.readout(params, vs[-1], None)
    forward = cell.readout(params, own[-1], None)
    return answers | {"F": window.lagrangian(params, vs, 0.0, 1.0), "feedforward": forward}


ADAPTERS = {
    "predictive_coding": {"settled": settled},
    "rbp_fixed_point": {"cg": fixed_point(cg_rbp), "direct": fixed_point(rbp, series=True)},
    "fptt": {"sequential": forward_propagation},
    "ridge_readout": {"direct": ridge},
    "rls_readout": {"sequential": online(rls, alpha="alpha", forgetting="forgetting")},
    "lms_readout": {"sequential": online(lms, rate="learning_rate")},
    "esn_ridge_pipeline": {"sequential": pipeline},
    "gate_init": {"chrono": gate_biases},
}
