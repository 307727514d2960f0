"""Goldens of the ways to learn, answered by learners over cells written by hand."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from seqjax.learn.bptt import bptt, tbptt
from seqjax.learn.cell import Cell
from seqjax.learn.influence import influence
from seqjax.learn.learner import squared_error
from seqjax.learn.rtrl import rtrl
from seqjax.learn.snap import eprop, snap

RECURRENT = ("W", "U", "b")


def tanh_rnn(inputs, leak=1.0):
    """h = (1 - leak) h + leak tanh(W h + U x + b), y = V h + c: its cell, parameters and `own`."""

    def own(p, kept, h, x):
        return (1 - leak) * kept + leak * jnp.tanh(p["W"] @ h + p["U"] @ x + p["b"])

    def readout(p, h, x):
        return p["V"] @ h + p.get("c", 0)

    params = {k: inputs[k] for k in (*RECURRENT, "V", "c") if k in inputs}
    return Cell(lambda p: inputs["h0"], lambda p, h, x: own(p, h, h, x), readout), params, own


def named(prefix, grads):
    return {f"{prefix}_{k}": grads[k] for k in RECURRENT}


def with_gradient(loss, params, grads):
    """`loss` with the derivatives `grads` by the parameters, as a learner gives them."""
    stop = lax.stop_gradient
    pairs = [(p - stop(p)) * stop(grads[k]) for k, p in params.items()]
    return loss + sum((jnp.sum(pair) for pair in pairs), jnp.zeros(()))


def learning_rules(make, everything=False):
    def answer(inputs, meta):
        cell, params, _ = tanh_rnn(inputs)
        xs, ys, mask = inputs["x"], inputs["y"], np.asarray(inputs["W_mask"]) > 0
        meta.expect(D=len(mask), T=len(xs), sparse=not mask.all())
        fixed = lax.stop_gradient(params)

        def told(learner):
            """Gradients over the whole stream, zero where there is no weight."""
            grads = learner.grad(fixed, learner.init(fixed), xs, ys)[1]
            return grads | {"W": jnp.where(mask, grads["W"], 0)}

        def body(h, now):
            h = cell.step(fixed, h, now[0])
            return h, (h, squared_error(cell.readout(fixed, h, now[0]), now[1]))

        hs, losses = lax.scan(body, inputs["h0"], (xs, ys))[1]
        learner = make(cell)
        loss = with_gradient(jnp.sum(losses), params, told(learner))
        answers = {"h": hs, "loss_t": losses, "loss": loss}
        if everything:
            answers |= influences(learner, fixed, xs, ys, mask)
            absent = {k: np.zeros(v.shape, bool) for k, v in params.items()} | {"W": ~mask}
            for n in (1, 2, 3) if meta["sparse"] else (1, 2):
                near = snap(cell, squared_error, fixed, xs, n=n, absent=absent)
                answers |= named(f"snap{n}", told(near))
                answers[f"snap{n}_J_b"] = kept_of_b(cell, fixed, xs, n, absent)
            for k1, k2 in ((1, 1), (1, 3), (2, 4), (3, 3)):
                cut = tbptt(cell, squared_error, params, xs, k1=k1, k2=k2)
                answers |= named(f"tbptt_{k1}_{k2}", told(cut))
        return answers

    return answer


def parts(M, params):
    """Columns of an influence matrix [..., P] by parameter."""
    ends = np.cumsum([params[k].size for k in sorted(params)])[:-1]
    split = zip(sorted(params), jnp.split(M, ends, axis=-1))
    return {k: part.reshape(*part.shape[:-1], *params[k].shape) for k, part in split}


def influences(learner, params, xs, ys, mask):
    """dh_t/dtheta after every step."""

    def push(state, now):
        state = learner.grad(params, state, now[0][None], now[1][None])[2]
        return state, state.M

    found = parts(lax.scan(push, learner.init(params), (xs, ys))[1], params)
    found["W"] = jnp.where(mask[None, None], found["W"], 0)
    return {f"J_{k}": found[k] for k in RECURRENT}


def kept_of_b(cell, params, xs, n, absent):
    """What SnAp-n keeps of dh_t/db, [T, D, D]."""
    kept = influence(cell, params, xs, steps=n, absent=absent)
    units = jnp.asarray(kept.pattern.units)
    rows, D = jnp.arange(len(units))[:, None], len(params["b"])

    def push(carry, x):
        h, M = carry
        M = kept.push(params, h, x, M)
        whole = jnp.zeros((len(units), D + 1)).at[rows, units].add(M)[:, :D]
        return (cell.step(params, h, x), M), whole.T

    Ms = lax.scan(push, (cell.start(params), kept.init(params)), xs)[1]
    return parts(Ms, params)["b"]


def rflo(inputs, meta):
    cell, params, own = tanh_rnn(inputs, meta["alpha"])
    xs, answers = inputs["x"], {}
    for name, feedback in (("gsym", None), ("g", inputs["B"].T)):
        learner = eprop(cell, squared_error, params, xs, own=own, feedback=feedback)
        grads = learner.grad(params, learner.init(params), xs, inputs["y"])[1]
        answers |= named(name, grads)

    def body(h, x):
        h = cell.step(params, h, x)
        return h, h

    return answers | {"h": lax.scan(body, inputs["h0"], xs)[1]}


RULES = {
    "bptt": learning_rules(lambda cell: bptt(cell, squared_error)),
    "rtrl scan": learning_rules(lambda cell: rtrl(cell, squared_error, mode="scan")),
    "rtrl window": learning_rules(lambda cell: rtrl(cell, squared_error, mode="window")),
    "rtrl, snap, tbptt": learning_rules(lambda cell: rtrl(cell, squared_error), everything=True),
}
ADAPTERS = {"learning_rules_rnn": RULES, "rflo": {"eprop": rflo}}
