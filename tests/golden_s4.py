"""Goldens of the state-space family from HiPPO to Mamba-3, answered by its layers and tables."""

import jax.numpy as jnp
from golden_layers import SCAN, build, by_evaluator

from seqjax.layers.ssm import hippo


def hippo_transition(inputs, meta):
    found = {name: hippo.transition(name, int(inputs["N"])) for name in hippo.MEASURES}
    return {f"A_{name}": A for name, (A, _) in found.items()} | {
        f"B_{name}": B[:, None] for name, (_, B) in found.items()
    }


def hippo_nplr(inputs, meta):
    measure, N = meta["measure"], int(inputs["N"])
    (A, B), form = hippo.transition(measure, N), hippo.nplr(measure, N)
    return {
        "A": A,
        "B": B[:, None],
        "P_real": hippo.rank_correction(measure, N),
        "eigvals_half": form.Lambda,
        "abs_P": jnp.abs(form.P),
        "abs_B": jnp.abs(form.B),
        "P_times_conjB": form.P * form.B.conj()[None],
    }


def s5_hippo_dplr(inputs, meta):
    N = int(inputs["N"])
    form = hippo.dplr("legs", N)
    return {
        "A": hippo.transition("legs", N)[0],
        "Lambda": form.Lambda,
        "abs_P": jnp.abs(form.P[0]),
        "abs_B": jnp.abs(form.B),
        "P_times_conjB": form.P[0] * form.B.conj(),
    }


def kernel_of(layer, length, evaluator):
    """The kernel [features, length]: as the layer says it, or its response to an impulse."""
    if evaluator == "kernel":
        return layer.kernel(length)
    impulse = jnp.zeros((1, length, layer.features)).at[0, 0].set(1)
    return layer(impulse, evaluator=evaluator)[0][0].T


def per_channel(make, W):
    """One layer for each of the references' output channels, which share the rest."""
    return jnp.stack([make(w) for w in W])


def dss_kernel(evaluator):
    def answer(inputs, meta):
        log_dt, o = inputs["log_dt"].T, meta["options"]
        if "Lambda" in inputs:
            Lambda = inputs["Lambda"].T
        else:
            Lambda = jnp.stack([inputs["Lambda_log_neg_re"], inputs["Lambda_im"]])

        def kernel(W):
            features, N, _ = W.shape
            parameters = {
                "Lambda": Lambda,
                "log_dt": log_dt if log_dt.ndim == 2 else log_dt[None],
                "W": jnp.moveaxis(W, 2, 0),
                "D": jnp.zeros(features),
            }
            options = dict(version=o["version"], separate_dt=o["sep_dt_re_im"], length=meta["L"])
            layer = build("dss", features, parameters, state=N, mix=False, **options)
            return kernel_of(layer, meta["L"], evaluator)

        return {"K": per_channel(kernel, inputs["W"])}

    return answer


def dlr_kernel(evaluator):
    def answer(inputs, meta):
        o = meta["options"]
        real_W = "W_real" in o["version"]

        def kernel(W):
            W = W[None] if real_W else jnp.moveaxis(W, 2, 0)
            parameters = {"Lambda_im": inputs["Lambda_im"], "W": W, "D": jnp.zeros(W.shape[1])}
            if "Lambda_log_neg_re" in inputs:
                parameters["Lambda_re"] = inputs["Lambda_log_neg_re"]
            layer = build(
                "dlr",
                W.shape[1],
                parameters,
                state=W.shape[2],
                to_real=o["kernel_to_real"],
                undamped="Lambda_imag" in o["version"],
                real_W=real_W,
                mix=False,
            )
            return kernel_of(layer, meta["L"], evaluator)

        return {"K": per_channel(kernel, inputs["W"])}

    return answer


def pair(z):
    """Real and imaginary part, as layers keep complex weights."""
    return jnp.stack([z.real, z.imag])


def s5_ssm(inputs, meta, *, evaluator):
    P, H = inputs["B"].shape
    parameters = {name: pair(inputs[name]) for name in ("Lambda", "B", "C")}
    layer = build(
        "s5",
        H,
        parameters | {"log_dt": inputs["log_step"], "D": inputs["D"]},
        state=2 * P if meta["conj_sym"] else P,
        conj_sym=meta["conj_sym"],
        discretisation=meta["discretization"],
        bidirectional=meta["bidirectional"],
        mix=False,
    )
    Lambda_bar, scale = layer.system()
    y, _ = layer(inputs["u"], evaluator=evaluator)
    return {"y": y, "Lambda_bar": Lambda_bar, "B_bar": scale[:, None] * inputs["B"]}


KERNEL = ("kernel", "primitive", "fft")

ADAPTERS = {
    "hippo_transition": {"table": hippo_transition},
    "hippo_nplr": {"table": hippo_nplr},
    "s5_hippo_dplr": {"table": s5_hippo_dplr},
    "s5_ssm": by_evaluator(s5_ssm, *SCAN),
    "dss_kernel": {name: dss_kernel(name) for name in KERNEL},
    "dlr_kernel": {name: dlr_kernel(name) for name in KERNEL},
}
