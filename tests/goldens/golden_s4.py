"""Goldens of the state-space family from HiPPO to Mamba-3, answered by its layers and tables."""

import jax
import jax.numpy as jnp
from flax import nnx
from golden_layers import SCAN, build, by_evaluator
from golden_tools import without_resets
from jax import lax

from seqjax.layers.ssm import hippo
from seqjax.layers.ssm.liquid_s4 import released
from seqjax.layers.ssm.mamba3 import Mamba3State
from seqjax.zoo import make


def hippo_transition(inputs, meta):
    found = {name: hippo.transition(name, int(inputs["N"])) for name in hippo.MEASURES}
    return {f"A_{name}": A for name, (A, _) in found.items()} | {
        f"B_{name}": B[:, None] for name, (_, B) in found.items()
    }


def hippo_nplr(inputs, meta):
    measure, N = meta["measure"], int(inputs["N"])
    (A, B), form = hippo.transition(measure, N), hippo.nplr(measure, N)
    assert len(form.P) == int(inputs["rank"])
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
            imag = "Lambda_log_im" if o["version"] == "exp-re-im" else "Lambda_im"
            Lambda = jnp.stack([inputs["Lambda_log_neg_re"], inputs[imag]])

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
            parameters = {"W": W, "D": jnp.zeros(W.shape[1])}
            for ours, theirs in (("Lambda_im", "Lambda_im"), ("Lambda_re", "Lambda_log_neg_re")):
                if theirs in inputs:
                    parameters[ours] = inputs[theirs]
            layer = build(
                "dlr",
                W.shape[1],
                parameters,
                state=W.shape[2],
                to_real=o["kernel_to_real"],
                undamped="Lambda_imag" in o["version"],
                real_Lambda="Lambda_real" in o["version"],
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
        step_rescale=meta.get("step_rescale", 1.0),
        clip=meta.get("clip_eigs", False),
        mix=False,
    )
    Lambda_bar, scale = layer.system()
    y, _ = layer(inputs["u"], evaluator=evaluator)
    return {"y": y, "Lambda_bar": Lambda_bar, "B_bar": scale[:, None] * inputs["B"]}


def lssl(inputs, meta, *, evaluator):
    C = inputs["C"]
    parameters = {name: inputs[name] for name in ("C", "D", "log_dt")} | {
        "A": inputs["transition.a"],
        "B": inputs["transition.b"],
        "W.kernel": inputs["output_linear.weight"].T,
        "W.bias": inputs["output_linear.bias"],
    }
    meta["options"].ignore("measure")  # A and B are given
    channels = meta["options"]["channels"]
    layer = build("lssl", len(C), parameters, state=C.shape[2], channels=channels)
    A, B = layer.system()
    return {"y": layer(inputs["u"], evaluator=evaluator)[0], "dA": A, "dB": B}


def s4(A_re, A_im, P, B, C, log_dt, length=None):
    rank, features, n = P.shape
    parameters = {
        "log_A_re": A_re,
        "A_im": A_im,
        "P": pair(P),
        "B": pair(B),
        "C": pair(C),
        "log_dt": log_dt,
        "D": jnp.zeros(features),
    }
    measure = {1: "legs", 2: "legt"}[rank]  # for the shape of P
    return build("s4", features, parameters, state=2 * n, measure=measure, length=length, mix=False)


def s4_dplr_kernel(evaluator):
    def answer(inputs, meta):
        def kernel(C):
            layer = s4(
                inputs["log_neg_A_re"],
                -inputs["neg_A_im"],
                inputs["P"],
                inputs["B"],
                C,
                inputs["log_dt"],
                length=meta["L"],
            )
            return kernel_of(layer, meta["L"], evaluator)

        meta.expect(rank=len(inputs["P"]))
        return {"K": per_channel(kernel, inputs["Ctilde"])}

    return answer


def s4_recurrent(inputs, meta, *, evaluator):
    """Copies of A, B, P serve several channels. In "dense" mode the reference's state is any
    vector (x, z), not only a symmetric (x, conj x): that is s + i t with s, t symmetric, and so
    two runs, the second without input."""
    u, state, dense = inputs["u"], inputs["state0"], meta["options"]["mode"] == "dense"
    H, z = u.shape[2], {name: lax.complex(*jnp.moveaxis(inputs[name], -1, 0)) for name in "BPC"}
    meta["options"].expect(rank=len(inputs["P"]), n_ssm=len(inputs["A_real"]))
    copy = jnp.arange(H) % len(inputs["A_real"])
    half = state.shape[2] // 2 if dense else state.shape[2]
    first = state[:, :, :half]
    second = state[:, :, half:] if dense else first.conj()
    ys, ends = [], []
    for C in z["C"]:
        layer = s4(
            inputs["A_real"][copy],
            -inputs["A_imag"][copy],
            z["P"][:, copy],
            z["B"][0, copy],
            C,
            inputs["inv_dt"][:, 0],
        )
        if dense:
            y, s = layer(u, (first + second.conj()) / 2, evaluator=evaluator)
            _, t = layer(jnp.zeros_like(u), (first - second.conj()) / 2j, evaluator=evaluator)
            ends.append(s + 1j * t)
        else:
            y, s = layer(u, first, evaluator=evaluator)
            ends.append(s)
        ys.append(y)
    B = layer.system().B
    dB = jnp.concatenate([B, B.conj()], axis=1) if dense else B
    return {"y": jnp.stack(ys, axis=2), "state": ends[0], "dB": dB}


def liquid_s4(inputs, meta):
    o = meta["options"]
    y = jax.vmap(
        lambda u: released(
            u,
            inputs["k"][0],
            jnp.exp(inputs["log_dt"]),
            inputs["w"],
            inputs["B"],
            inputs["C"][0],
            inputs["D"][0],
            kernel={"polyb": "pb", "kb": "kb"}[o["kernel"]],
            degree=o["degree"],
            combinations=o["allcombs"],
        )
    )(inputs["u"])
    return {"y": y}


def mamba3_siso(inputs, meta, *, evaluator):
    B, _, H, P = inputs["V"].shape
    groups, N = inputs["Q"].shape[2:]
    layer = nnx.eval_shape(
        lambda: make("mamba3", H * P, expand=1, state=N, heads=H, groups=groups, rngs=nnx.Rngs(0))
    )
    layer.angles = inputs["Angles"].shape[3]
    for name, value in {
        "C_bias": inputs["Q_bias"][None],
        "B_bias": inputs["K_bias"][None],
        "D": inputs.get("D", jnp.zeros(H)),
    }.items():
        getattr(layer, name).set_value(value)
    h = jax.tree.map(lambda s: jnp.zeros((B, *s.shape)), layer.initial())
    if "SSM0" in inputs:
        h = Mamba3State(
            jnp.swapaxes(inputs["SSM0"], 2, 3),
            inputs["Angle0"],
            inputs["K0"][:, None],
            inputs["V0"],
        )

    def one(Q, K, V, Z, ADT, DT, Trap, Angles, h, flow):
        lam = jax.nn.sigmoid(Trap)
        C, B = Q[:, None], K[:, None]
        return layer.mix(C, B, V, Z, ADT, DT, lam, Angles, h, flow)

    names = ("Q", "K", "V", "Z", "ADT", "DT", "Trap", "Angles")
    y, h = without_resets(one, evaluator)(*(inputs.get(name) for name in names), h)
    return {
        "o": y,
        "Angle": h.theta,
        "SSM": jnp.swapaxes(h.S, 2, 3),
        "K_last": h.B[:, 0],
        "V_last": h.x,
    }


KERNEL = ("kernel", "primitive", "fft")

ADAPTERS = {
    "hippo_transition": {"table": hippo_transition},
    "hippo_nplr": {"table": hippo_nplr},
    "s5_hippo_dplr": {"table": s5_hippo_dplr},
    "lssl": by_evaluator(lssl, "sequential", "fft"),
    "s4_dplr_kernel": {name: s4_dplr_kernel(name) for name in ("kernel", "sequential", "fft")},
    "s4_recurrent": by_evaluator(s4_recurrent, "fft", "sequential"),
    "liquid_s4": {"released": liquid_s4},
    "mamba3_siso": by_evaluator(mamba3_siso, "naive", "sequential", "chunked"),
    "s5_ssm": by_evaluator(s5_ssm, *SCAN),
    "dss_kernel": {name: dss_kernel(name) for name in KERNEL},
    "dlr_kernel": {name: dlr_kernel(name) for name in KERNEL},
}
