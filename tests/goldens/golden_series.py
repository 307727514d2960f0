"""Adapters of the series of reservoirpy."""

import jax.numpy as jnp

from seqjax.tasks.synthetic import series


def spaced(inputs, meta, run):
    """Sampled at linspace(0, n h, n): n / (n - 1) of the h given, as the case notes in `quirk`."""
    meta.ignore("quirk", "solver", "tolerance")
    return dict(y=run(inputs["x0"], 60, h=meta["h"] * 60 / 59, substeps=64))


def chaotic_series(inputs, meta):
    name = meta["case"]
    if name in ("lorenz", "rossler"):
        return spaced(inputs, meta, getattr(series, name))
    if name == "henon":
        meta.ignore("tolerance")
        return dict(y=series.henon(inputs["x0"], 60, a=meta["a"], b=meta["b"]))
    if name == "logistic":
        meta.ignore("tolerance")
        return dict(y=series.logistic(inputs["x0"], 60, r=meta["r"])[:, None])
    if name.startswith("mso"):
        frequencies = jnp.asarray(meta["freqs"])
        return dict(y=series.superposed(frequencies, jnp.zeros_like(frequencies), 60)[:, None])
    meta.ignore("quirk")
    if name == "mackey_glass":
        meta.expect(tau=len(inputs["history"]) * meta["h"])
        past = jnp.append(inputs["history"], inputs["x0"])
        known = {option: meta[option] for option in ("a", "b", "n", "h")}
        return dict(y=series.mackey_glass(past, 60, **known, form="reservoirpy")[:, None])
    known = {option: meta[option] for option in ("order", "a1", "a2", "b", "c")}
    order = known["order"]
    # its y begins with x0 and zeros, and is driven from the step `order` on
    past = jnp.zeros(order + 1).at[: len(inputs["x0"])].set(inputs["x0"][:, 0])
    u = inputs["u"][:, 0]
    y = series.narma(u[order:], past, **known, form="reservoirpy", before=u[:order])
    return dict(y=y[:, None])


ADAPTERS = {"chaotic_series": {"series": chaotic_series}}
