# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of the zoo
#
# Every recurrence of the table answers the same three questions, and nobody has to write code for
# one of them: a row of `LAYERS` is a function `y, h = layer(x, h)`, and the rest is `jax.jvp`.
#
# * **Impulse response.** Move the input of one step a little; how far do the outputs of later steps
#   move? $r_k = \|\, \partial y_{t+k} / \partial x_t \cdot v \,\|$, in the mean over random inputs.
# * **Spectrum of the transition.** The eigenvalues of $\partial h_t / \partial h_{t-1}$, where a
#   random input has led: on the unit circle nothing is lost, inside it the past fades, on the
#   negative axis a state can alternate.
# * **Effective memory.** The mean lag $\sum_k k\, r_k / \sum_k r_k$: how far back a typical output
#   looks, before any training.
#
# One figure per family, as it is initialised by its paper, at the tiny options of its row; where
# there is no time for all rows, three of them, spread evenly over the family.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from seqjax.layers.ssm.laughing_hyena import distil
from seqjax.tools.pictures import transition
from seqjax.zoo import FAMILIES, LAYERS, make

SMOKE = os.environ.get("SEQJAX_SMOKE") == "1"  # as CI runs it: three rows of every family
STEPS, FEATURES, EXAMPLES = (16, 4, 2) if SMOKE else (128, 4, 16)
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 8})


def rows(family):
    """The rows that read forward in time and carry a state of numbers."""
    named = [name for name in family.ROWS if "causality" not in LAYERS[name].exempt]
    spread = np.linspace(0, len(named) - 1, min(len(named), 3 if SMOKE else len(named)))
    return [named[i] for i in spread.astype(int)]


def build(name):
    return make(name, FEATURES, rngs=nnx.Rngs(0), **LAYERS[name].smoke)


# %% [markdown]
# ## The three questions, as three functions
#
# The impulse goes into the first step, in a random direction. The transition is that of
# `seqjax show NAME --figure FILE`: integers in a state (how many steps were seen, how full a cache
# is) have no derivative and are left as they are, a complex number is two real ones.


# %%
def impulse_response(layer):
    """r_k [STEPS]: the movement of y_k under a movement of x_0, in the mean over inputs."""
    graph, state = nnx.split(layer)
    x = jax.random.normal(jax.random.key(0), (EXAMPLES, STEPS, FEATURES))
    v = jnp.zeros_like(x).at[:, 0].set(jax.random.normal(jax.random.key(1), (EXAMPLES, FEATURES)))

    @jax.jit
    def moved(state, x, v):
        return jax.jvp(lambda x: nnx.merge(graph, state)(x)[0], (x,), (v,))[1]

    return np.asarray(jnp.linalg.norm(moved(state, x, v), axis=-1).mean(axis=0))


def spectrum(layer):
    """Eigenvalues of dh_t/dh_{t-1} after some random steps; none where there is no state."""
    graph, state = nnx.split(layer)
    J = transition(lambda x, h=None: nnx.merge(graph, state)(x, h), FEATURES)
    return np.linalg.eigvals(J) if J is not None else np.zeros(0, complex)


def effective_memory(response):
    """The mean lag of a response; 0 where nothing moves."""
    total = np.sum(response)
    return float(np.sum(np.arange(len(response)) * response) / total) if total else 0.0


# %% [markdown]
# ## One figure for each family
#
# Left, the response on logarithmic axes: a straight line is a power law, a fall to the right end an
# exponential, a plateau a memory that does not fade. Middle, the transition's eigenvalues beside
# the unit circle. Right, the mean lag. (RWKV's output matrices start at zero: before training
# nothing moves there.)


# %%
def show(family):
    names = rows(family)
    responses = {name: impulse_response(build(name)) for name in names}
    spectra = {name: spectrum(build(name)) for name in names}
    height = 2.2 + 0.16 * len(names)
    fig, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11, height), layout="constrained", width_ratios=(1.5, 1, 1)
    )
    colours = plt.get_cmap("turbo")(np.linspace(0.05, 0.95, len(names)))
    for colour, name in zip(colours, names):
        r = responses[name]
        shown = r / r.max() if r.any() else r
        shown = np.where(shown > 1e-9, shown, np.nan)
        left.loglog(1 + np.arange(STEPS), shown, color=colour, lw=1.2, label=name)
        z = spectra[name]
        middle.plot(z.real, z.imag, ".", color=colour, ms=4, alpha=0.7)
    turn = np.exp(1j * np.linspace(0, 2 * np.pi, 200))
    middle.set(aspect="equal", xlabel="Re", ylabel="Im", title="eigenvalues of dh'/dh",
               xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))  # fmt: skip
    left.set(xlabel="steps since the impulse, and one", ylabel="response, of its largest",
             ylim=(1e-6, 2), title=f"{family.__name__.rpartition('.')[2]}: impulse")  # fmt: skip
    middle.plot(turn.real, turn.imag, color="0.8", lw=0.8, zorder=0, label="unit circle")
    if len(names) <= 12:
        left.legend(frameon=False, fontsize=7, loc="lower left")
    middle.legend(frameon=False, fontsize=7, loc="lower left")
    right.barh(names, [effective_memory(responses[name]) for name in names], color=colours)
    right.invert_yaxis()
    right.set(title="mean lag (and the colours)", xlabel=f"steps, of {STEPS}")
    plt.show()
    return responses, spectra


# %%
found = {family.__name__.rpartition(".")[2]: show(family) for family in FAMILIES}

# %% [markdown]
# ## What it shows
#
# The families differ where their equations say so. What is *linear in its state* has its spectrum
# inside or on the unit circle by construction; what is not has it where the weights happen to put
# it. A decay per channel or head spreads the mean lags; a delta rule's transition keeps every
# direction but the one it writes to, so most of its eigenvalues are one. The state space models
# with HiPPO's spectra are the ones with complex eigenvalues from the start.

# %%
slowest = sorted(
    ((effective_memory(r), name) for responses, _ in found.values() for name, r in
     responses.items()), reverse=True,
)  # fmt: skip
for lag, name in slowest[:10]:
    print(f"{name:24} looks {lag:5.1f} steps back")
assert all(np.isfinite(lag) for lag, _ in slowest)

# %% [markdown]
# ## From one family to the other
#
# A long convolution needs all of its past inputs, a state space model a few numbers.
# LaughingHyena distils one into the other: the filters of a Hyena operator, as sums of a few
# damped exponentials. The error falls with their number, and the distilled layer streams.

# %%
hyena = make("hyena", FEATURES, rngs=nnx.Rngs(0), length=STEPS)
filters = np.moveaxis(np.asarray(hyena.filters(), np.float64), 1, -1).reshape(-1, STEPS)
filters = filters[: 2 if SMOKE else None]
orders = (1, 2, 4) if SMOKE else (1, 2, 4, 8, 16, 32)
errors = [
    np.linalg.norm(distil(filters, order).filter(STEPS) - filters, axis=1)
    / np.linalg.norm(filters, axis=1)
    for order in orders
]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.loglog(orders, errors, "o-", ms=3, lw=0.8)
left.set(xlabel="modes", ylabel="error, of the filter's norm", title="distillation of every filter")
right.plot(filters[0], color="0.3", lw=1.5, label="the filter")
left.plot([], [], "o-", color="0.5", ms=3, lw=0.8, label="a filter each")
left.legend(frameon=False)
left.set_xticks(orders, orders)
left.minorticks_off()
for order in orders[1:4]:
    right.plot(distil(filters[:1], order).filter(STEPS)[0], lw=0.8, label=f"{order} modes")
right.set(xlabel="lag", title="one of them")
right.legend(frameon=False)
plt.show()
assert np.mean(errors[-1]) < np.mean(errors[0])
