"""Goldens of recurrences whose matrix is held to a set: the releases' weights under our names."""

import jax.numpy as jnp
from golden_layers import build, by_evaluator

from seqjax.layers.constrained.skew import above, cayley, stiefel_step

CELL = ("sequential", "newton", "parallel_backward")


def antisymmetric_rnn(inputs, meta, *, evaluator):
    x, W, gated = inputs["x"], inputs["W"], meta["gated"]
    names = ("V", "V_z") if gated else ("V",)
    values = {
        "V.kernel": jnp.concatenate([inputs[name] for name in names]).T,
        "V.bias": jnp.concatenate([inputs[name.replace("V", "b")] for name in names]),
        "skew": above(W - W.T),
    }
    options = dict(hidden=len(W), dt=meta["epsilon"], gamma=meta["gamma"], gated=gated)
    layer = build("antisymmetric_rnn", x.shape[2], values, **options)
    return {"h": layer(x, inputs.get("h0"), evaluator=evaluator)[0]}


def exprnn(inputs, meta, *, evaluator):
    assert meta.get("mode", "static") == "static", "the base of orthogonal_rnn does not change"
    x, A = inputs["x"], inputs["A"]
    values = {"W.kernel": inputs["input_kernel"].T, "b": inputs["b"]}
    values["skew"] = above(-A)  # it multiplies rows: from the left exp(A) is its transpose
    options = dict(hidden=len(A), parametrisation=meta["kind"])
    layer = build("orthogonal_rnn", x.shape[2], values, **options)
    return {
        "h": layer(x, inputs.get("h0"), evaluator=evaluator)[0],
        "Bmat": layer.shared().T,
    }


def scornn(inputs, meta, *, evaluator):
    x, A, D = inputs["x"], inputs["A"], inputs["D"]
    meta.ignore("n_neg")  # of the entries of D
    values = {"W.kernel": inputs["U"], "b": inputs["b"], "skew": jnp.zeros(above(A).shape)}
    layer = build("orthogonal_rnn", x.shape[2], values, hidden=len(A), parametrisation="cayley")
    W = cayley(A) @ D
    layer.shared = lambda: W.T  # the reference differentiates A as if it were free
    return {"h": layer(x, inputs.get("h0"), evaluator=evaluator)[0], "W": W}


def stiefel_cayley_step(inputs, meta):
    return {"X_new": stiefel_step(inputs["X"], inputs["G"], meta["lr"])}


def urnn(inputs, meta, *, evaluator):
    x, hidden = inputs["x"], len(inputs["hidden_bias"])
    values = {
        "V.kernel": inputs["V"],
        "theta": inputs["theta"],
        "v": inputs["reflection"].reshape(2, 2, hidden),
        "b": inputs["hidden_bias"],
        "P": inputs["perm"],
    }
    h = inputs.get("h0")
    h = None if h is None else h.reshape(len(x), 2, hidden)
    layer = build("unitary_rnn", x.shape[2], values, hidden=hidden)
    return {"h": layer(x, h, evaluator=evaluator)[0]}


def nnrnn(inputs, meta, *, evaluator):
    x, P, activation = inputs["x"], inputs["P"], meta["nonlin"]
    hidden = len(P)
    values = {"U.kernel": inputs["U"].T, "skew": jnp.zeros(above(P).shape)}
    values |= {"T": above(inputs["UppT"]), "theta": inputs["thetas"], "alpha": inputs["alphas"]}
    values["b"] = inputs["b"] if "b" in inputs else jnp.zeros(hidden)
    # its "relu" is overwritten by the identity
    activation = {"relu": "linear"}.get(activation, activation)
    layer = build("nnrnn", x.shape[2], values, hidden=hidden, activation=activation)
    V = layer.schur(P)
    layer.shared = lambda: V.T  # the reference differentiates P as if it were free
    return {"h": layer(x, inputs.get("h0"), evaluator=evaluator)[0], "rec": V}


def tarnn(inputs, meta, *, evaluator):
    x, A1 = inputs["x"], inputs["A1"]
    inputs.ignore("b2")  # which it never uses
    values = {"b_g": inputs["bg"], "b": inputs["b1"], "a": A1, "U_1": inputs["U1"].T}
    values["U"] = jnp.concatenate([inputs[name].T for name in ("Ug", "U2", "B2")])
    values["W.kernel"] = jnp.concatenate([inputs[name] for name in ("Wg", "W1", "B1")], axis=1)
    values["W_2.kernel"] = inputs["W2"]
    options = dict(hidden=len(inputs["bg"]), length=A1.shape[1], substeps=meta["K"])
    options["form"] = "blended" if meta["b_variant"] else "plain"
    layer = build("tarnn", x.shape[2], values, activation=meta["sigma"], **options)
    h = layer.batch_state(len(x), x.dtype)
    h = h._replace(h=inputs["h0"]) if "h0" in inputs else h
    return {"y": layer(x, h, evaluator=evaluator)[0]}


def irnn(inputs, meta, *, evaluator):
    x, eta = inputs["x"], inputs["eta"]
    meta.expect(K=len(eta))
    values = {"W.kernel": inputs["W"].T, "W.bias": inputs["b"], "U": inputs["U"], "eta": eta}
    options = dict(hidden=len(inputs["b"]), substeps=len(eta), alpha=meta["alpha"])
    layer = build("incremental_rnn", x.shape[2], values, **options)
    return {"h": layer(x, inputs.get("h0"), evaluator=evaluator)[0]}


ADAPTERS = {
    "antisymmetric_rnn": by_evaluator(antisymmetric_rnn, *CELL),
    "scornn": by_evaluator(scornn, *CELL),
    "stiefel_cayley_step": {"step": stiefel_cayley_step},
    "urnn": by_evaluator(urnn, *CELL),
    "nnrnn": by_evaluator(nnrnn, *CELL),
    "tarnn": by_evaluator(tarnn, "sequential"),
    "irnn": by_evaluator(irnn, *CELL),
    "exprnn": by_evaluator(exprnn, *CELL),
}
