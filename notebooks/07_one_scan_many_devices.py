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
# # One scan, many devices
#
# A sequence that is too long for one device is cut into pieces, one for each. A recurrence allows
# that: what a piece of the steps does to the state $h$ that enters it is *one element* of its
# monoid, however many steps it has. So
#
# | | | |
# |---|---|---|
# | `summarise` | $e_p$ = what piece $p$ does to a state | each device by itself |
# | `combine` | $h_p = (e_0 \cdot e_1 \cdots e_{p-1}) \cdot h$ | a scan over the devices |
# | `replay` | $y_p$ = the outputs of piece $p$ from $h_p$ | each device by itself |
#
# is the whole sequence, and all that travels are elements. Here it runs on eight devices, which the
# CPU plays.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from jax.sharding import AxisType, PartitionSpec as P

import seqjax
from seqjax.tools.hlo import sent

jax.config.update("jax_num_cpu_devices", 8)
N, T, H, K = 8, 64, 2, 8
mesh = jax.make_mesh((N,), ("time",), axis_types=(AxisType.Auto,))
draw = np.random.default_rng(0)


def inputs(steps):
    """q, k, v, beta and log decay of the gated delta rule."""
    q, k, v = draw.normal(size=(3, steps, H, K))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    beta, log_a = np.full((steps, H), 0.7), -draw.exponential(0.05, size=(steps, H))
    return tuple(jnp.asarray(x, jnp.float32) for x in (q, k, v, beta, log_a))


xs, S0 = inputs(T), jnp.zeros((H, K, K))
y, last = seqjax.gated_delta_rule(*xs, S0)

# %% [markdown]
# ## By hand, on one device
#
# The gated delta rule has $S_t = a_t (I - \beta_t k_t k_t^\top) S_{t-1} + \beta_t k_t v_t^\top$: a
# piece multiplies by a matrix $A$ and adds another, $b$. `summarise` finds both in one run of the
# op, with $K$ more columns of values, which begin as the identity and to which nothing is written.

# %%
pieces = [tuple(x[n : n + T // N] for x in xs) for n in range(0, T, T // N)]
summaries = [seqjax.summarise(seqjax.gated_delta_rule, *piece) for piece in pieces]
A, b = summaries[0].element
print(f"a piece is A {A.shape} and b {b.shape}; it has {T // N} steps")

S, outputs = S0, []
for piece, summary in zip(pieces, summaries):
    outputs.append(seqjax.replay(seqjax.gated_delta_rule, S, *piece)[0])
    S = summary.act(S)
print("from the whole:", float(jnp.max(jnp.abs(jnp.concatenate(outputs) - y))))
np.testing.assert_allclose(jnp.concatenate(outputs), y, atol=1e-5)
np.testing.assert_allclose(S, last, atol=1e-5)

# %% [markdown]
# The loop over the pieces acts on the state. It need not go one by one: summaries may be combined
# first, in any grouping, since that is what a monoid is.

# %%
left = summaries[0].then(summaries[1]).then(summaries[2].then(summaries[3]))
right = summaries[4].then(summaries[5].then(summaries[6].then(summaries[7])))
np.testing.assert_allclose(left.then(right).act(S0), last, atol=1e-5)

# %% [markdown]
# ## On eight devices
#
# Inside `jax.shard_map`, `axis="time"` does the three steps. Gradients go through it, too.


# %%
def split(call):
    """call(xs, state), with the steps of xs over the devices."""
    return jax.shard_map(call, mesh=mesh, in_specs=(P("time"), P()), out_specs=(P("time"), P()))


def delta(xs, S):
    return seqjax.gated_delta_rule(*xs, S, axis="time")


def loss(run):
    return lambda xs, S: jnp.sum(jnp.sin(run(xs, S)[0]))


found, end = jax.jit(split(delta))(xs, S0)
one = jax.jit(jax.grad(loss(lambda xs, S: seqjax.gated_delta_rule(*xs, S))))(xs, S0)
many = jax.jit(jax.grad(loss(split(delta))))(xs, S0)
apart = max(float(jnp.max(jnp.abs(p - q))) for p, q in zip(one, many))
print("outputs:", float(jnp.max(jnp.abs(found - y))), " gradients:", apart)
np.testing.assert_allclose(found, y, atol=1e-5)
np.testing.assert_allclose(end, last, atol=1e-5)
assert apart < 1e-4

# %% [markdown]
# ## Who sends what
#
# Each device wants the product of all elements before its own. First every element moves one
# place on; then, in rounds, each device takes what the one 1, 2, 4, ... places before has so far,
# and puts it in front. After $\lceil \log_2 (N - 1) \rceil$ rounds each has all of its past. (Few
# or small elements are gathered instead, in one message.)

# %%
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
past = [{n} for n in range(N)]
rounds = [1, *(1 << r for r in range((N - 2).bit_length()))]
for r, by in enumerate(rounds):
    before = [set(p) for p in past]
    for n in range(N):
        if n >= by:
            axis.annotate(
                "", (n, r + 1), (n - by, r), arrowprops=dict(arrowstyle="->", color=f"C{r}")
            )
        received = before[n - by] if n >= by else set()
        past[n] = received if r == 0 else received | before[n]
for r in range(len(rounds) + 1):
    axis.plot(range(N), [r] * N, "o", color="black", markersize=4)
assert past == [set(range(n)) for n in range(N)]
axis.invert_yaxis()
axis.set_yticks(range(len(rounds) + 1), ["own", "shift", *(f"{by} before" for by in rounds[1:])])
axis.set_xticks(range(N), [f"{n}" for n in range(N)])
axis.set(xlabel="device", title="elements on their way")
plt.show()

# %% [markdown]
# ## What is sent does not depend on T
#
# The compiled program has its collectives in its text. Counted are the bytes that each device sends
# by them; beside it, what all inputs are, which a device would have if they were gathered.


# %%
lengths, elements, gathered = [64, 128, 256, 512], [], []
for steps in lengths:
    given = inputs(steps)
    program = jax.jit(split(delta)).lower(given, S0).compile().as_text()
    elements.append(sent(program))
    gathered.append(sum(x.nbytes for x in given))
print(dict(zip(lengths, elements)))
assert len(set(elements)) == 1 and elements[0] > 0

figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
axis.plot(lengths, np.array(elements) / 1024, marker="o", label="elements")
axis.plot(lengths, np.array(gathered) / 1024, marker="s", label="all inputs")
axis.set_xscale("log", base=2)
axis.set_yscale("log", base=2)
axis.set_xticks(lengths, [str(n) for n in lengths])
axis.set(xlabel="T", ylabel="KiB to each device")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## A nonlinear step
#
# $h_t = \mathrm{GRU}(h_{t-1}, x_t)$ is no element of anything small. Its devices wait for each
# other, one state is handed on. Newton's method goes around that: the linearisation *is* affine, so
# that all devices work at once, and solve for all states in a few scans.

# %%
layer = seqjax.make("gru", 8, rngs=nnx.Rngs(0))
x, h = jnp.asarray(draw.normal(size=(2, T, 8)), jnp.float32), layer.batch_state(2)
expected = layer(x)[0]
for evaluator in ("sequential", "newton"):

    def local(x, h, evaluator=evaluator):
        return layer(x, h, axis="time", evaluator=evaluator)

    over_time = P(None, "time")
    run = jax.shard_map(local, mesh=mesh, in_specs=(over_time, P()), out_specs=(over_time, P()))
    found = jax.jit(run)(x, h)[0]
    print(f"{evaluator:10}", float(jnp.max(jnp.abs(found - expected))))
    np.testing.assert_allclose(found, expected, atol=1e-4)
