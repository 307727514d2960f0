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
# # A new recurrence
#
# Write your recurrence once. This notebook writes one in twenty lines and gets, without another
# line: every way to evaluate it, streaming, resets, masks, gradients in both modes, and a
# model that trains.
#
# The recurrence: a bank of damped oscillators whose damping is chosen by the input,
#
# $$ h_t = \sigma(W x_t + r)\, e^{i\omega} \odot h_{t-1} + B x_t, \qquad y_t = C h_t. $$

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from seqjax.core.monoid import Monoid, diagonal
from seqjax.core.scan import explain, scan
from seqjax.nn import Associative
from seqjax.zoo import LAYERS, Entry


class Oscillators(Associative):
    monoid = diagonal  # h = a * h + b: the element is the pair (a, b)

    def __init__(self, features, *, rngs):
        self.features = self.out_features = features
        self.omega = nnx.Param(jnp.linspace(0.1, jnp.pi, features))
        self.rate = nnx.Linear(
            features, features, bias_init=nnx.initializers.constant(3.0), rngs=rngs
        )
        self.B = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.C = nnx.Linear(2 * features, features, rngs=rngs)

    def initial(self):
        return jnp.zeros(self.features, jnp.complex64)

    def lift(self, x):
        damping, omega = jax.nn.sigmoid(self.rate(x)), self.omega[...]
        a = jax.lax.complex(damping * jnp.cos(omega), damping * jnp.sin(omega))
        b = self.B(x)
        return a, jax.lax.complex(b, jnp.zeros_like(b))

    def readout(self, h, x):
        return self.C(jnp.concatenate([h.real, h.imag]))


layer = Oscillators(8, rngs=nnx.Rngs(0))

# %% [markdown]
# ## Every evaluator
#
# One at a time, as a tree, in chunks, or by the linear-scan primitive (an in-place loop on CPU, a
# Pallas kernel on TPU and Hopper). They agree; `explain` names the one that runs by default.

# %%
x = jax.random.normal(jax.random.key(0), (2, 300, 8))
y, h = layer(x)
for name in layer.evaluators:
    other, _ = layer(x, evaluator=name)
    print(f"{name:12s} differs from the default by {float(jnp.max(jnp.abs(other - y))):.1e}")
    assert jnp.allclose(other, y, rtol=0, atol=1e-4)
for name, reason in explain("diagonal").items():
    print(f"{name:12s} {reason}")

# %% [markdown]
# ## Streams, resets, masks
#
# The state that comes out is the state that goes in, so a stream is a loop. A reset forgets the
# past, even a NaN in it; a masked step is left out.

# %%
first, state = layer(x[:, :123])
second, state = layer(x[:, 123:], state)
print("a stream in two pieces:", float(jnp.max(jnp.abs(jnp.concatenate([first, second], 1) - y))))

broken = x.at[:, 10].set(jnp.nan)
resets = jnp.zeros((2, 300), bool).at[:, 100].set(True)
after, _ = layer(broken, None, resets)
fresh, _ = layer(x[:, 100:])
print("after a reset, with a NaN before it:", float(jnp.max(jnp.abs(after[:, 100:] - fresh))))
assert jnp.allclose(after[:, 100:], fresh, rtol=0, atol=1e-4)

# %% [markdown]
# ## What it remembers
#
# Impulse responses, and how far back the output still depends on the input: the gradient of the
# last output with respect to every input, by reverse mode; the response to a change of $\omega$,
# by forward mode through the same scan.

# %%
impulse = jnp.zeros((1, 120, 8)).at[:, 0].set(1.0)
states, _ = scan(diagonal, jax.vmap(layer.lift)(impulse[0]), jnp.zeros(8, jnp.complex64))
memory = jax.grad(lambda x: jnp.sum(layer(x)[0][:, -1]))(x)
graph, params = nnx.split(layer)
direction = jax.tree.map(jnp.zeros_like, params)
direction["omega"] = jax.tree.map(jnp.ones_like, params["omega"])
tangent = jax.jvp(lambda p: nnx.merge(graph, p)(x[:, :120])[0], (params,), (direction,))[1]

fig, axes = plt.subplots(1, 3, figsize=(13, 3.4))
for channel in range(0, 8, 2):
    label = rf"$\omega = {float(layer.omega[...][channel]):.2f}$"
    axes[0].plot(np.asarray(states.real)[:60, channel], lw=1, label=label)
axes[0].set(title="impulse responses of four channels", xlabel="time", ylabel="Re $h$")
for number in range(2):
    label = f"sequence {number + 1}"
    axes[1].semilogy(np.asarray(jnp.linalg.norm(memory[number], axis=-1)), lw=1, label=label)
    axes[2].plot(np.asarray(jnp.linalg.norm(tangent[number], axis=-1)), lw=1, label=label)
axes[1].set(title="dependence of the last output", xlabel="input time", ylabel="gradient norm")
axes[2].set(title=r"sensitivity to $\omega$ (forward mode)", xlabel="time", ylabel="tangent norm")
for axis in axes:
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
plt.tight_layout()
plt.show()

# %% [markdown]
# ## One row, and it is a layer like every other
#
# A row in the table puts it into models, the trainer, the command line and the contract tests.
#
# Parity, the first task, counts modulo 2: a channel that turns by half a circle at each 1 does it.

# %%
from seqjax.stacks.config import LayerConfig, ModelConfig  # noqa: E402
from seqjax.stacks.model import Model  # noqa: E402
from seqjax.tasks import make as make_task  # noqa: E402

LAYERS["oscillators"] = Entry(Oscillators, "Gated damped oscillators", "this notebook")

# %%
import optax  # noqa: E402

task = make_task("state_tracking", group="parity")
config = ModelConfig(layer=(LayerConfig("oscillators"),), features=16, depth=2)
model = Model(config, task.spec, rngs=nnx.Rngs(1))
graph, params = nnx.split(model)
optimiser = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-2, 400))
)
opt_state = optimiser.init(params)


@jax.jit
def train_step(params, opt_state, key):
    batch = task.sample(key, 32, 12)

    def loss(params):
        logits, _ = nnx.merge(graph, params)(batch.x)
        score = task.score(logits, batch)
        return score["loss"], score["accuracy"]

    (value, accuracy), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = optimiser.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value, accuracy


history = []
for key in jax.random.split(jax.random.key(2), 400):
    params, opt_state, value, accuracy = train_step(params, opt_state, key)
    history.append((float(value), float(accuracy)))
history = np.array(history)
print(f"parity of 12 bits: accuracy {history[-20:, 1].mean():.3f} (chance 0.5)")
assert history[-20:, 1].mean() > 0.95

fig, axis = plt.subplots(figsize=(7, 3))
axis.plot(history[:, 0], color="#22577a", lw=1, label="loss (nats)")
axis.plot(history[:, 1], color="#f2a541", lw=1, label="accuracy")
axis.axhline(0.5, color="0.7", lw=0.8, ls="--", label="accuracy of chance")
axis.set(xlabel="step", title="it learns parity", ylim=(0, 1.05))
axis.legend(frameon=False, fontsize=8, loc="center right")
axis.spines[["top", "right"]].set_visible(False)
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Your own algebra
#
# The recurrence need not be one the library knows. Any associative `combine` with an identity and
# an action runs in every generic evaluator: here the running mean and variance (Welford), which
# the tree computes in logarithmic depth.

# %%


def combine(p, q):
    n = p[0] + q[0]
    delta, safe = q[1] - p[1], jnp.where(n > 0, n, 1)
    return n, p[1] + delta * q[0] / safe, p[2] + q[2] + delta**2 * p[0] * q[0] / safe


welford = Monoid(combine, lambda e: jax.tree.map(jnp.zeros_like, e), lambda e, h: combine(h, e))
walk = jnp.cumsum(jax.random.normal(jax.random.key(3), (500,)))
elements, nothing = (jnp.ones(500), walk, jnp.zeros(500)), (jnp.zeros(()),) * 3
(n, mean, squares), _ = scan(welford, elements, nothing, evaluator="associative")
(_, mean_loop, _), _ = scan(welford, elements, nothing, evaluator="sequential")
print("tree against loop:", float(jnp.max(jnp.abs(mean - mean_loop))))
spread = jnp.sqrt(squares / n)

fig, axis = plt.subplots(figsize=(7, 3))
axis.plot(walk, color="#999999", lw=0.8, label="a random walk")
axis.plot(mean, color="#22577a", label="mean so far")
axis.fill_between(range(500), mean - spread, mean + spread, color="#22577a", alpha=0.2, lw=0,
                  label="deviation")  # fmt: skip
axis.set(title="running mean and deviation, by a monoid written here", xlabel="time")
axis.legend(frameon=False, fontsize=8)
axis.spines[["top", "right"]].set_visible(False)
plt.tight_layout()
plt.show()
