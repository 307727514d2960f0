"""Goldens of long convolutions, gated state spaces and the gated attention unit.

An adapter puts the reference's weights into the layer and translates names; numbers come from it.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from golden_tools import with_parameters, without_resets

from seqjax.layers.linear_attention.flash_gau import FlashGAU
from seqjax.layers.linear_attention.gau import GAU
from seqjax.layers.ssm.gss import GSS
from seqjax.layers.ssm.h3 import H3
from seqjax.layers.ssm.hyena import Hyena
from seqjax.layers.ssm.lmu import LMU, LMUState
from seqjax.layers.ssm.mega import MovingAverage
from seqjax.layers.ssm.sgconv import SGConv


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
    values |= linear("W_u", "W_u", inputs) | linear("W_y", "W_h", inputs)
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


def mega_ema(inputs, meta, evaluator):
    x, options = inputs["x"], meta["options"]
    features, both = x.shape[2], options["bidirectional"]
    layer = MovingAverage(
        features,
        ndim=options["ndim"],
        truncation=options["truncation"],
        bidirectional=both,
        rngs=nnx.Rngs(0),
    )
    values = {"omega": inputs["omega"]}
    for place, way in enumerate(("forward", "backward") if both else ("forward",)):
        rows = slice(place * features, (place + 1) * features)
        # the reference swaps the names of alpha and delta
        for ours, theirs in zip(
            ("alpha", "delta", "beta", "eta"), ("delta", "alpha", "beta", "gamma")
        ):
            values[f"{way}.{ours}"] = inputs[theirs].reshape(-1, options["ndim"])[rows]
    layer = with_parameters(layer, values)
    start = inputs.get("h0", layer.batch_state(len(x), x.dtype))
    run = without_resets(layer.average, evaluator)
    found = dict(zip(("o", "h"), run(x, start)))
    if "h0" not in inputs:
        found["y"] = layer(x, evaluator=evaluator)[0]
    kernels = [way.kernel(x.shape[1]) for way in (layer.forward, layer.backward) if way is not None]
    found["kernel"] = jnp.stack(kernels) if both else kernels[0]
    if both or options["truncation"]:  # there the reference says the output only
        found = {k: v for k, v in found.items() if k in ("y", "kernel")}
    return found


def mega_ema_lucidrains(inputs, meta, evaluator):
    """Rates per head for all channels; sqrt(ndim) undoes our scale of eta; no omega, no SiLU."""
    x, both = inputs["x"], meta["options"]["bidirectional"]
    ndim, features = inputs["expansion"].shape
    ways = ("forward", "backward") if both else ("forward",)
    heads = ndim // len(ways)
    layer = MovingAverage(
        features, ndim=heads, damping="product", bidirectional=both, rngs=nnx.Rngs(0)
    )
    values = {"omega": layer.omega[...]}
    for place, way in enumerate(ways):
        prefix, rows = "reverse_" * place, slice(place * heads, (place + 1) * heads)
        for name, theirs in (("alpha", "alphas"), ("delta", "dampen_factors")):
            rates = inputs[prefix + theirs]
            values[f"{way}.{name}"] = jnp.broadcast_to(rates[None], (features, heads))
        values[f"{way}.beta"] = inputs["expansion"][rows].T
        values[f"{way}.eta"] = heads**0.5 * inputs["reduction"][rows].T
    layer = with_parameters(layer, values)
    run = without_resets(layer.average, evaluator)
    return {"y": run(x, layer.batch_state(len(x), x.dtype))[0]}


def gss(inputs, meta, evaluator):
    hidden, features = inputs["to_u.0.weight"].shape
    reduced, state = inputs["dss.C_real"].shape
    exponential = meta["options"]["lambda_imag_exp"]
    layer = GSS(
        features,
        hidden=hidden,
        reduced=reduced,
        state=state,
        imag_exp=exponential,
        rngs=nnx.Rngs(0),
    )
    values = norm("norm", "norm", inputs) | norm("norm_v", "dss.norm", inputs)
    for ours, theirs in (("u", "to_u.0"), ("v", "to_v.0"), ("g", "to_gate"), ("o", "to_out")):
        values |= linear(f"W_{ours}", theirs, inputs)
    for name in ("Lambda", "C"):
        values[name] = jnp.stack([inputs[f"dss.{name}_real"], inputs[f"dss.{name}_imag"]])
    values["D"] = inputs["dss.param_D"]
    return {"y": with_parameters(layer, values)(inputs["x"], evaluator=evaluator)[0]}


def h3(inputs, meta, evaluator):
    u, options = inputs["u"], meta["options"]
    features, d = u.shape[2], options["head_dim"]
    layer = H3(
        features,
        head_size=d,
        state=options["d_state"],
        shift=options["d_state"],
        discretisation=options["disc"],
        rngs=nnx.Rngs(0),
    )
    values = {
        "keys.B": inputs["ssm_k_kernel.kernel.B"],
        "keys.C": inputs["ssm_k_kernel.kernel.C"][0],
        "keys.D": inputs["ssm_k_D"],
        "diagonal.log_A_re": inputs["kernel.kernel.inv_A_real"],
        "diagonal.A_im": inputs["kernel.kernel.A_imag"],
        "diagonal.log_dt": inputs["kernel.kernel.log_dt"],
        "diagonal.B": jnp.moveaxis(inputs["kernel.kernel.B"], -1, 0),
        "diagonal.C": jnp.moveaxis(inputs["kernel.kernel.C"][0], -1, 0),
        "diagonal.D": inputs["D"],
    }
    for name in "qkv":
        values |= linear(f"W_{name}", f"{name}_proj", inputs)
    values |= linear("W_o", "output_linear", inputs)
    # the reference lays its heads out as [d, heads] before this product
    kernel = values["W_o.kernel"].reshape(d, features // d, features)
    values["W_o.kernel"] = jnp.swapaxes(kernel, 0, 1).reshape(features, features)
    layer = with_parameters(layer, values)
    y, h = layer(u, evaluator=evaluator)
    if d > 1:
        return {"y": y}
    return {"y": y, "state_k": jax.vmap(layer.keys.shifted)(h.window), "state": h.h[:, 0]}


def hyena(inputs, meta, evaluator):
    u, options = inputs["u"], meta["options"]
    order, given = options["order"], "k" in inputs
    length, width = options["l_max"], options.get("filter_order", 2)
    bands, spare = divmod(options.get("emb_dim", 3) - 1, 2)
    assert not spare, "a time, and a real and an imaginary part per band"
    depth = options.get("num_inner_mlps", 2)
    layer = Hyena(
        u.shape[2],
        order=order,
        length=length,
        width=width,
        bands=bands,
        depth=depth,
        frequency=options.get("w", 1),
        shift=options.get("shift", 0.0),
        window=options.get("modulate", True),
        slow_decay=options.get("slow_decay_pct", 1.5),
        fast_decay=options.get("fast_decay_pct", 0.3),
        target=options.get("target", 0.01),
        rngs=nnx.Rngs(0),
    )
    values = linear("W_in", "in_proj", inputs) | linear("W_out", "out_proj", inputs)
    values |= {
        "conv.weight": inputs["short_filter.weight"][:, 0].T,
        "conv.bias": inputs["short_filter.bias"],
        "bias": inputs["filter_fn.bias"].reshape(order - 1, -1),
    }
    if given:  # the filters stand in for the network
        own = nnx.to_flat_state(nnx.split(layer.filter, nnx.Param, ...)[1])
        values |= {".".join(map(str, ("filter", *path))): p.get_value() for path, p in own}
        layer = with_parameters(layer, values)
        filters = inputs["k"].reshape(len(inputs["k"]), order - 1, -1).swapaxes(0, 1)
        filters = jnp.pad(filters, ((0, 0), (0, length - filters.shape[1]), (0, 0)))
        layer.filters = lambda: filters
        return {"y": layer(u, evaluator=evaluator)[0]}
    network = "filter_fn.implicit_filter"
    for place in range(depth + 1):
        values |= linear(f"filter.inner.{place}", f"{network}.{2 * place}", inputs)
    values |= linear("filter.last", f"{network}.{2 * depth + 2}", inputs)
    values["filter.freq"] = inputs[f"{network}.1.freq"][0]
    values["filter.z"] = inputs["filter_fn.pos_emb.z"][0]
    layer = with_parameters(layer, values)
    return {"y": layer(u, evaluator=evaluator)[0], "k": layer.filter()[: u.shape[1]]}


def sgconv(inputs, meta, evaluator):
    u, options = inputs["u"], meta["options"]
    mode, start, *more = options["mode"].split("_")
    assert start == "randn" and set(more) <= {"nearest", "learnable"}, options["mode"]
    layer = SGConv(
        u.shape[2],
        length=options["l_max"],
        kernel_size=options["kernel_dim"],
        mode=mode,
        upsample="nearest" if "nearest" in more else "linear",
        learned_decay="learnable" in more,
        first_scale=options.get("init_scale", 0),
        bidirectional=options["bidirectional"],
        decay_min=options["decay_min"],
        decay_max=options["decay_max"],
        filters=len(inputs["D"]),
        mix=False,
        rngs=nnx.Rngs(0),
    )
    w = jnp.stack([inputs[f"kernel_list.{i}"] for i in range(options["n_scales"])])
    values = {"w": w, "D": inputs["D"], "Z": inputs["kernel_norm"][:, :, 0]}
    if "decay" in inputs:
        values["p"] = inputs["decay"]
    layer = with_parameters(layer, values)
    kernel = layer.kernel(u.shape[1])
    if options["bidirectional"]:
        past, future = jnp.split(kernel, 2)
        kernel = jnp.concatenate([past, future[..., ::-1]], axis=2)
    return {"y": layer(u, evaluator=evaluator)[0], "kernel": kernel}


ADAPTERS = {
    "hyena": by_evaluator(hyena, "sequential", "fft"),
    "hyena_filters_given": by_evaluator(hyena, "sequential", "fft"),
    "sgconv": by_evaluator(sgconv, "sequential", "fft"),
    "gss": by_evaluator(gss, "sequential", "fft"),
    "h3_layer": by_evaluator(h3, "primitive", "fft"),
    "mega_ema": by_evaluator(mega_ema, "sequential", "fft"),
    "mega_ema_lucidrains": by_evaluator(mega_ema_lucidrains, "primitive", "fft"),
    "gau": by_evaluator(gau, "sequential"),
    "flash_quad": by_evaluator(flash, "sequential"),
    "lmu": by_evaluator(lmu, "sequential", "newton", "parallel_backward"),
    "lmu_fft": by_evaluator(lmu_fft, "sequential", "fft"),
}
