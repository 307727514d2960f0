"""Goldens of the state-space family from HiPPO to Mamba-3, answered by its layers and tables."""

import jax.numpy as jnp

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


ADAPTERS = {
    "hippo_transition": {"table": hippo_transition},
    "hippo_nplr": {"table": hippo_nplr},
    "s5_hippo_dplr": {"table": s5_hippo_dplr},
}
