"""Goldens of long convolutions, gated state spaces and the gated attention unit.

An adapter puts the reference's weights into the layer and translates names; numbers come from it.
"""

from functools import partial

from flax import nnx
from golden_tools import with_parameters

from seqjax.layers.ssm.lmu import LMU, LMUState


def linear(ours, theirs, inputs):
    """A torch Linear under our name; its bias where it has one."""
    values = {f"{ours}.kernel": inputs[f"{theirs}.weight"].T}
    if f"{theirs}.bias" in inputs:
        values[f"{ours}.bias"] = inputs[f"{theirs}.bias"]
    return values


def by_evaluator(adapter, *evaluators):
    return {name: partial(adapter, evaluator=name) for name in evaluators}


def lmu(inputs, meta, evaluator):
    names = ("e_x", "e_h", "e_m", "W_x", "W_h", "W_m")
    hidden, order = inputs["cell.W_m"].shape
    layer = LMU(
        inputs["x"].shape[2], hidden=hidden, order=order, theta=meta["theta"], rngs=nnx.Rngs(0)
    )
    values = {name: inputs[f"cell.{name}"].T for name in names}
    A, B = layer.A[...], layer.B[...]
    layer = with_parameters(layer, {**values, "A": A, "B": B})
    state = LMUState(inputs["h0"], inputs["m0"]) if "h0" in inputs else None
    y, h = layer(inputs["x"], state, evaluator=evaluator)
    return {"y": y, "h": h.h, "m": h.m, "A": A, "B": B[:, None]}


def lmu_fft(inputs, meta, evaluator):
    hidden, width = inputs["W_h.weight"].shape
    features = inputs["x"].shape[2]
    options = dict(order=width - features, theta=meta["theta"], coupled=False)
    layer = LMU(features, hidden=hidden, **options, rngs=nnx.Rngs(0))
    values = {"A": layer.A[...], "B": layer.B[...]}
    values |= linear("W_u", "W_u", inputs) | linear("W_h", "W_h", inputs)
    return {"y": with_parameters(layer, values)(inputs["x"], evaluator=evaluator)[0]}


ADAPTERS = {
    "lmu": by_evaluator(lmu, "sequential", "newton", "parallel_backward"),
    "lmu_fft": by_evaluator(lmu_fft, "sequential", "fft"),
}
