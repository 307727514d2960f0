"""Goldens of long convolutions, gated state spaces and the gated attention unit.

An adapter puts the reference's weights into the layer and translates names; numbers come from it.
"""

from functools import partial

from flax import nnx
from golden_tools import with_parameters

from seqjax.layers.linear_attention.flash_gau import FlashGAU
from seqjax.layers.linear_attention.gau import GAU
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


def norm(ours, theirs, inputs):
    return {f"{ours}.{name}": inputs[f"{theirs}.{name}"] for name in ("weight", "bias")}


def gated_unit(inputs, views, out):
    """The weights that GAU and FLASH have in common."""
    hidden = len(inputs["to_hidden.0.bias"]) // 2  # values first, then the gate
    values = norm("norm", "norm", inputs) | linear("W_o", out, inputs)
    values |= linear("W_z", "to_qk.0", inputs)
    for name, part in (("W_v", slice(hidden)), ("W_u", slice(hidden, None))):
        values[f"{name}.kernel"] = inputs["to_hidden.0.weight"][part].T
        values[f"{name}.bias"] = inputs["to_hidden.0.bias"][part]
    values |= {"views.kappa": inputs[f"{views}.gamma"], "views.mu": inputs[f"{views}.beta"]}
    return values


def gau(inputs, meta, evaluator):
    x, options = inputs["x"], meta["options"]
    length, features = x.shape[1:]
    layer = GAU(
        features,
        size=len(inputs["to_qk.0.bias"]),
        expansion=options["expansion"],
        length=length,
        weights="laplace" if options["laplace"] else "relu2",
        bias="t5",
        causal=options["causal"],
        rngs=nnx.Rngs(0),
    )
    bias = inputs["rel_pos_bias.relative_attention_bias.weight"][:, 0] * features**0.5
    values = gated_unit(inputs, "offsetscale", "to_out.0") | {"head.bias.weight": bias / length}
    return {"y": with_parameters(layer, values)(x, evaluator=evaluator)[0]}


def flash(inputs, meta, evaluator):
    x, options = inputs["x"], meta["options"]
    size = len(inputs["to_qk.0.bias"])
    layer = FlashGAU(
        x.shape[2],
        size=size,
        expansion=options["expansion"],
        group=options["group_size"],
        bias="t5",
        shift=options["shift_tokens"],
        causal=options["causal"],
        rngs=nnx.Rngs(0),
    )
    values = gated_unit(inputs, "qk_offset_scale", "to_out")
    bias = inputs["rel_pos_bias.relative_attention_bias.weight"][:, 0]
    values["bias.weight"] = bias * size**0.5
    return {"y": with_parameters(layer, values)(x, evaluator=evaluator)[0]}


ADAPTERS = {
    "gau": by_evaluator(gau, "sequential"),
    "flash_quad": by_evaluator(flash, "sequential"),
    "lmu": by_evaluator(lmu, "sequential", "newton", "parallel_backward"),
    "lmu_fft": by_evaluator(lmu_fft, "sequential", "fft"),
}
