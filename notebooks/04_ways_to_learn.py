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
# # Ways to learn
#
# The gradient of a recurrence $h_t = f(\theta, h_{t-1}, x_t)$ needs, in one form or the other, the
# *influence* of every parameter on every unit of the state,
#
# $$M_t = \frac{d h_t}{d\theta} = J_t M_{t-1} + I_t, \qquad
#   \frac{dL}{d\theta} = \sum_t \frac{\partial \ell_t}{\partial h_t} M_t .$$
#
# Backward in time it is never formed, but the past must be stored. Forward in time (RTRL) nothing
# of the past is stored but $M$ itself: $n$ units times $P$ parameters. Everything in between is a
# way not to store all of $M$: because most of it is zero (exact), because it is small (SnAp,
# e-prop), or because a random rank-one matrix has the same mean (UORO).
#
# `seqjax.learn` has these as pairs of functions over any cell. Here they meet.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree

from seqjax.learn.bptt import bptt
from seqjax.learn.cell import as_cell
from seqjax.learn.influence import influence
from seqjax.learn.learner import squared_error
from seqjax.learn.uoro import uoro
from seqjax.tools.agreement import RECURRENCES, measure, network
from seqjax.zoo import make

SMOKE = os.environ.get("SEQJAX_SMOKE") == "1"  # as CI runs it: fewer learners and draws
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})

# %% [markdown]
# ## Who reaches whom
#
# Rows are units of the state, columns are parameters: dark where a parameter moves a unit within
# one step, light where it does so sooner or later, white where it never does. The small square is
# $J$: which unit sees which.
#
# This is not declared by anybody: `influence` looks at the derivatives of the step at random
# points, and follows them. In an Elman network everything reaches everything. A unit of an IndRNN
# or an LRU sees itself only (an LRU's is complex, two real numbers), so every column of $M$ has one
# or two numbers in it and RTRL costs what the forward pass costs. The gated delta rule lies
# between: a value channel of its matrix state sees only itself, but what moves the key moves them
# all. (The state of a layer made of several parts has its output at the end.)


# %%
def reach(found):
    """M as far as it is kept: bool [n, P]."""
    pattern, n = found.pattern, len(found.pattern.jacobian) - 1
    if pattern.kept is not None:
        return pattern.kept.T
    M = np.zeros((n + 1, len(pattern.units)), bool)
    M[pattern.units, np.arange(len(pattern.units))[:, None]] = True
    return M[:n]


shown = {
    "elman": dict(hidden=8),
    "indrnn": dict(hidden=8),
    "lru": dict(state=4),
    "gated_deltanet": dict(heads=1, key_size=2, value_size=4, conv=2),
}
titles = dict(zip(shown, ("Elman", "IndRNN", "LRU", "gated delta rule")))
fig, axes = plt.subplots(
    len(shown), 2, figsize=(9.5, 6.4), width_ratios=(1, 7), layout="constrained"
)
for (left, right), (name, options) in zip(axes, shown.items()):
    cell, params = as_cell(make(name, 4, rngs=nnx.Rngs(0), **options))
    xs = jnp.ones((32, 4))  # so many random points: a relu may be off at some of them
    ever, once = influence(cell, params, xs), influence(cell, params, xs, steps=1)
    in_one = reach(once)
    M = reach(ever).astype(int) + in_one
    J = ever.pattern.jacobian[:-1, :-1]
    left.imshow(J, cmap="Greys", vmin=0, vmax=1.4)
    right.imshow(M, cmap="Blues", vmin=0, vmax=2.4, aspect="auto", interpolation="nearest")
    edges = np.cumsum([np.size(leaf) for leaf in jax.tree.leaves(params)])
    for edge in edges[:-1]:
        right.axvline(edge - 0.5, color="C1", lw=0.8)
    left.set(ylabel=titles[name], xticks=[], yticks=[])
    right.set(xticks=[], yticks=[])
    right.set_title(
        f"{M.shape[0]} x {M.shape[1]}; per parameter {(M > 0).sum(0).max()} ever, "
        f"{in_one.sum(0).max()} in one step; {ever.pattern.products} products a step",
        fontsize=9, loc="left",
    )  # fmt: skip
axes[0, 0].set_title("$J$")
axes[-1, 1].set_xlabel("parameters, one array after the other")
plt.show()

# %% [markdown]
# ## Agreement and cost
#
# Every way to learn on every recurrence, one layer with a linear readout, 64 random steps with
# random targets: the same as `seqjax learners`. The gradient is compared with that of autodiff
# through the whole stream.

# %%
ways = ["bptt", "tbptt k1=1 k2=8", "rtrl_sparse", "online_lru", "snap n=1", "uoro"]
recurrences = ["elman", "lru"]
if not SMOKE:
    ways = ["bptt", "tbptt k1=1 k2=8", "fptt", "rtrl", "rtrl mode=window", "rtrl_sparse",
            "online_lru", "snap n=1", "snap n=2", "eprop", "uoro", "uoro rank=16"]  # fmt: skip
    recurrences = list(RECURRENCES)
rows = {}
for recurrence in recurrences:
    net = network(recurrence, 64)
    for way in ways:
        rows[way, recurrence] = measure(way, recurrence, net)

print("relative error of the gradient (cosine with the exact one)\n")
print(f"{'':14}" + "".join(f"{name:>19}" for name in recurrences))
for way in ways:
    cells = (rows[way, name] for name in recurrences)
    print(f"{way:14}" + "".join(f"{f'{c.error:.0e} ({c.cosine:+.2f})':>19}" for c in cells))

# %% [markdown]
# What is exact where, and why:
#
# * **RTRL**, in each of its forms, is exact everywhere. `rtrl_sparse` stores only what is not white
#   above; where all is dark it stores all.
# * **SnAp-1** keeps the dark part. In an IndRNN there is no other, and it *is* RTRL; so it is in
#   the gated delta rule, where what a parameter ever reaches it reaches at once. In an LRU it
#   misses how the real part turns into the imaginary one: there, and in dense networks, **SnAp-2**
#   is exact.
# * **online_lru** follows each layer's influence on itself and is exact for a single layer of any
#   kind. Its approximation begins with the second layer.
# * **e-prop** takes only the diagonal of $J$: exact in an IndRNN and nowhere else.
# * **tbptt(1, 8)** forgets what is more than 8 steps old.
# * **UORO** has the right mean and a large variance: see below.
# * **FPTT** is BPTT on its first window; what makes it differ is what it does after an update.

# %%
COLOURS = {"bptt": "C0", "tbptt": "C0", "fptt": "C0", "rtrl": "C2", "online": "C2", "snap": "C1",
           "eprop": "C1", "uoro": "C3"}  # fmt: skip
FLOOR = 1e-8


def style(way):
    """A colour per family, a marker per member."""
    colours = [COLOURS[w.split("_")[0].split()[0]] for w in ways]
    n = ways.index(way)
    return dict(color=colours[n], marker="osD^vPX"[colours[:n].count(colours[n])])


fig, axes = plt.subplots(
    2, len(recurrences), figsize=(2.2 * len(recurrences) + 1.5, 5), sharey=True, sharex="row",
    layout="constrained", squeeze=False,
)  # fmt: skip
for column, recurrence in zip(axes.T, recurrences):
    for way in ways:
        row = rows[way, recurrence]
        for axis, cost in zip(column, (row.microseconds, (row.state + row.temporary) / 1e3)):
            axis.plot(cost, max(row.error, FLOOR), ls="", ms=6, alpha=0.8, label=way, **style(way))
    for axis in column:
        axis.set(xscale="log", yscale="log", ylim=(FLOOR / 3, 100))
        axis.axhspan(FLOOR / 3, 3e-6, color="0.95", zorder=0)
    column[0].set_title(recurrence)
axes[0, len(recurrences) // 2].set_xlabel("µs per step")
axes[1, len(recurrences) // 2].set_xlabel("kB: state and temporaries")
for axis in axes[:, 0]:
    axis.set_ylabel("relative error (grey: rounding)")
for row in axes:  # at least two decades, else there are no ticks to read
    low, high = row[0].get_xlim()
    row[0].set_xlim(low, max(high, 100 * low))
points = axes[0, 0].get_legend_handles_labels()
first = fig.legend(*points, loc="outside right upper", frameon=False, fontsize=8, title="learner")
families = {"C0": "backward in time", "C2": "forward, exact", "C1": "forward, truncated",
            "C3": "forward, random"}  # fmt: skip
known = {style(way)["color"] for way in ways}
keys = [plt.Line2D([], [], color=c, lw=4, label=n) for c, n in families.items() if c in known]
fig.legend(handles=keys, loc="outside right lower", frameon=False, fontsize=8, title="colour")
plt.show()

# %% [markdown]
# ## UORO: unbiased, at a price
#
# The mean of many estimates is the exact gradient, of which a single one has only a little. `rank`
# estimates side by side divide the variance by `rank`, at as many times the cost: the error falls
# as the square root.

# %%
net = network("gru", 32)
ranks, draws = (1, 4, 16) if SMOKE else (1, 4, 16, 64), 64 if SMOKE else 256
single, cosine, mean = [], [], []
for rank in ranks:
    learner = uoro(net.cell, squared_error, rank=rank)

    @jax.jit
    def estimate(key, learner=learner):
        state = learner.init(net.params, key)
        return ravel_pytree(learner.grad(net.params, state, net.xs, net.ys)[1])[0]

    found = jax.lax.map(estimate, jax.random.split(jax.random.key(0), draws), batch_size=16)
    size = jnp.linalg.norm(net.exact)
    single.append(float(jnp.sqrt(jnp.mean(jnp.sum((found - net.exact) ** 2, axis=1))) / size))
    cosine.append(np.asarray(found @ net.exact / (jnp.linalg.norm(found, axis=1) * size)))
    mean.append(float(jnp.linalg.norm(found.mean(axis=0) - net.exact) / size))
    print(
        f"rank {rank:3d}: error of one estimate {single[-1]:6.2f}, of the mean of {draws} "
        f"{mean[-1]:5.2f} (by chance {single[-1] / draws**0.5:5.2f}), "
        f"cosine {cosine[-1].mean():.2f} +- {cosine[-1].std():.2f}"
    )

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
left.loglog(ranks, single, "o-", color="C3", label="one estimate")
left.loglog(ranks, mean, "s--", color="C3", mfc="w", label=f"mean of {draws}")
left.loglog(ranks, single[0] / np.sqrt(ranks), color="0.6", lw=0.8, label=r"$1/\sqrt{rank}$")
left.set(xlabel="rank", ylabel="relative error", title="UORO of a GRU, 32 steps")
left.set_xticks(ranks, ranks)
left.set_ylim(min(mean) / 3, 3 * max(single))
left.minorticks_off()
left.legend(frameon=False)
right.violinplot(cosine, positions=np.arange(len(ranks)), showmedians=True)
right.axhline(0, color="0.6", lw=0.8)
right.set(xlabel="rank", ylabel="cosine with the exact gradient", ylim=(-0.1, 1))
right.set_xticks(np.arange(len(ranks)), ranks)
plt.show()

# %% [markdown]
# ## Backward in less memory
#
# `bptt(chunks=...)` stores the state between chunks only and computes what is inside once more.
# With $L$ levels the memory grows as $T^{1/(L+1)}$, for $L$ more forward passes. RTRL's memory does
# not grow at all.

# %%
chunks = {
    64: ((), (8,), (16, 4)),
    256: ((), (16,), (32, 8)),
    1024: ((), (32,), (128, 8)),
    4096: ((), (64,), (256, 16)),
}
lengths = list(chunks)[: 3 if SMOKE else 4]
needed = {}
for steps in lengths:
    net = network("gru", steps)
    for name, cut in zip(("all states", "one level", "two levels"), chunks[steps]):
        learner = bptt(net.cell, squared_error, chunks=cut)
        state = learner.init(net.params)
        program = jax.jit(learner.grad).lower(net.params, state, net.xs, net.ys).compile()
        needed.setdefault(name, []).append(program.memory_analysis().temp_size_in_bytes / 1e3)
        print(f"{steps:5d} steps, {name:10} {str(cut):12} {needed[name][-1]:8.0f} kB")
fig, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for name, values in needed.items():
    axis.loglog(lengths, values, "o-", label=name)
axis.set(xlabel="steps $T$", ylabel="kB of temporaries", title="BPTT of a GRU with 16 units")
axis.legend(frameon=False, title="what is stored")
axis.set_xticks(lengths, lengths)
axis.set_ylim(10 ** np.floor(np.log10(axis.get_ylim()[0])), None)
axis.minorticks_off()
plt.show()
assert needed["one level"][-1] < needed["all states"][-1]
