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
# # What a state can track
#
# Is the number of ones so far odd? A loop over a bit answers that for ever. Whether a recurrence
# can is a question of its eigenvalues, and whether it learns to is another one. Everything here
# takes rows of the table; `seqjax theory expressivity` asks the same of any of them.

# %%
import os
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from IPython.display import HTML, display

from seqjax.stacks.config import LayerConfig
from seqjax.theory import automata, constructions, expressivity
from seqjax.tools.knobs import knobs
from seqjax.train.config import TaskConfig
from seqjax.zoo import make

SMOKE = os.environ.get("SEQJAX_SMOKE") == "1"  # as CI runs it: fewer constructions

# %% [markdown]
# ## One eigenvalue
#
# `min_gru` on nothing but ones: $h_t = a\, h_{t-1} + (1 - a)/2$, with $a$ in $[-1, 1]$. Parity goes
# to and fro. With $a \ge 0$ the state goes one way, and words of 30 and of 31 ones soon look alike;
# with $a < 0$ it goes to and fro, for ever only at $a = -1$ (arXiv:2411.12537, theorem 1).

# %%
at = np.array([-1.0, -0.98, -0.9, -0.7, -0.3, 0.0, 0.3, 0.7, 0.9, 0.98])


def on_ones(a, steps=40):
    layer: Any = make("min_gru", 1, candidate="linear", eigenvalues="[-1,1]", rngs=nnx.Rngs(0))
    gate = jnp.clip((1 - a) / 2, 1e-7, 1 - 1e-7)  # z, of which a is 1 - 2 z
    layer.W.kernel[...] = jnp.zeros((1, 2))
    layer.W.bias[...] = jnp.stack([jnp.ones(()), jnp.log(gate / (1 - gate))])
    d = expressivity.settling(layer, jnp.ones(1), steps)[:, 0]
    return jnp.cumsum(d)


states = jax.vmap(on_ones)(jnp.asarray(at))
page = knobs(states, {"eigenvalue a": at}, low=-0.1, high=1.2,
             caption="h over 40 ones, from 0")  # fmt: skip
display(HTML(page))
change = np.abs(np.diff(states, axis=1))[:, -1]
for a, last in zip(at, change, strict=True):
    print(f"a = {a:5.2f}   |h_40 - h_39| = {last:.1e}")
assert change[0] > 0.99 and np.all(change[2:-1] < 0.05)

# %% [markdown]
# ## Weights that are given
#
# What a class of recurrences can is shown by one of them that does. Each of these is a row whose
# weights are set by hand: eigenvalue $-1$, a rotation, a permutation of one-hot states,
# reflections, a counter. All of them are right on every step of a word far longer than any they
# were made for.

# %%
few = ("parity, min_gru", "S3, pd_ssm", "a^n b^n, elman")
for name in few if SMOKE else constructions.CONSTRUCTIONS:
    one = constructions.CONSTRUCTIONS[name]()
    share = constructions.right(one, jax.random.key(0), 512)
    print(f"{name:24} {one.title:40} {share:.4f}")
    assert share == 1

# %% [markdown]
# ## What is learned
#
# The same gate, with eigenvalues in $[0, 1]$ and in $[-1, 1]$, trained on words of 20 bits. Within
# 20 a table will do; beyond, only a rule.

# %%
LENGTH, LONGEST = 20, 160
layers = {
    "eigenvalues in [0, 1]": LayerConfig("min_gru"),
    "eigenvalues in [-1, 1]": LayerConfig("min_gru", {"eigenvalues": "[-1,1]"}),
}
task = TaskConfig("state_tracking", {"group": "parity"}, batch=64, length=LENGTH)
models = {
    label: expressivity.learn(layer, task, features=16, steps=300, rate=1e-2, seed=0)
    for label, layer in layers.items()
}
words = expressivity.make_task("state_tracking", group="parity")
figure, axis = plt.subplots(figsize=(7, 3))
for label, model in models.items():
    found = np.asarray(expressivity.by_position(model, words, 128, LONGEST))
    axis.plot(np.arange(1, LONGEST + 1), found, label=label)
    within, end = found[:LENGTH].mean(), found[-LENGTH:].mean()
    print(f"{label:24} {within:.2f} within {LENGTH}, {end:.2f} at the end")
axis.axvline(LENGTH, color="black", linewidth=0.8, linestyle=":")
axis.set(xlabel="position", ylabel="accuracy", ylim=(0.4, 1.03))
axis.legend()
plt.show()

# %% [markdown]
# ## The automaton inside
#
# States of the second model that are near each other, and give the same answer, are taken for one.
# Too fine, and they are told apart without end; coarser, and several of them are one state of
# parity. What comes out is made minimal, and compared with the automaton of parity on all words of
# any length at once; all words of 12 bits are put to the model itself.

# %%
model = models["eigenvalues in [-1, 1]"]
target = automata.of_group("parity")
tolerances, most = [0.02, 0.1, 0.3, 1.0], 40
sizes, same = [], []
for tolerance in tolerances:
    try:
        found = automata.extract(model, model.start(1), 2, tolerance=tolerance, most=most)
    except ValueError:
        sizes.append((most, most))
        same.append(False)
        continue
    least = automata.minimal(found)
    sizes.append((found.delta.shape[1], least.delta.shape[1]))
    same.append(automata.difference(least, target) is None)
for tolerance, (many, few), equal in zip(tolerances, sizes, same, strict=True):
    print(f"tolerance {tolerance:4.2f}: {many:3} states, {few:3} when minimal, parity: {equal}")
assert any(same), "no tolerance gives the automaton of parity"
agrees = automata.agreement(model, None, target, 12)
print(f"{agrees:.1%} of all words of 12 bits are answered right on every step")
