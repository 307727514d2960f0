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
# # Gradients are scans
#
# A nonlinear recurrence $h_t = \tanh(W h_{t-1} + x_t)$ has no associative form. Its *linearisation*
# has one: with the Jacobians $J_t = \partial h_t / \partial h_{t-1}$, three things that look
# different are the same affine scan $s_t = J_t\, s_{t-1} + b_t$ over the `dense` monoid:
#
# | | runs | matrix | drive |
# |---|---|---|---|
# | adjoint of backpropagation through time | backward | $J_{t+1}^\top$ | the error $e_t$ |
# | sensitivity of real-time recurrent learning | forward | $J_t$ | $\partial f/\partial W$ |
# | Newton's method for the states themselves | forward | $J_t$ | $f - J_t h$ at the guess |
#
# Here each is computed by `seqjax.core.scan` and compared with `jax.grad`.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from seqjax import newton, scan
from seqjax.core.monoid import dense

jax.config.update("jax_enable_x64", True)

T, D = 60, 4
key_W, key_x, key_y = jax.random.split(jax.random.key(0), 3)
W = 1.1 * jnp.linalg.qr(jax.random.normal(key_W, (D, D)))[0]
x = 0.7 * jax.random.normal(key_x, (T, D))
target = jax.random.normal(key_y, (T, D))
h0 = jnp.zeros(D)


def step(W, h, x):
    return jnp.tanh(W @ h + x)


def states(W):
    def body(h, x):
        h = step(W, h, x)
        return h, h

    return jax.lax.scan(body, h0, x)[1]


def loss(W):
    return 0.5 * jnp.sum((states(W) - target) ** 2)


exact = jax.grad(loss)(W)
h = states(W)
before = jnp.concatenate([h0[None], h[:-1]])  # h_{t-1}
error = h - target  # dL/dh_t, the part that is immediate
J = jax.vmap(lambda h, x: jax.jacfwd(lambda h: step(W, h, x))(h))(before, x)  # [T, D, D]
influence = jax.vmap(lambda h, x: jax.jacfwd(lambda W: step(W, h, x))(W))(before, x)  # [T, D, D, D]


def relative(a, b):
    return float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))


# %% [markdown]
# ## Backpropagation through time: a scan that runs backward
#
# $\lambda_t = \partial L / \partial h_t = J_{t+1}^\top \lambda_{t+1} + e_t$ and
# $\partial L / \partial W = \sum_t \lambda_t^\top\, \partial f / \partial W$.

# %%
next_J = jnp.concatenate([jnp.swapaxes(J[1:], 1, 2), jnp.zeros((1, D, D))])
adjoint, _ = scan(dense, (next_J, error), jnp.zeros(D), evaluator="associative", reverse=True)
bptt = jnp.einsum("ti,tijk->jk", adjoint, influence)
print(f"adjoint scan against jax.grad: {relative(bptt, exact):.1e}")
assert relative(bptt, exact) < 1e-10

# %% [markdown]
# ## Real-time recurrent learning: a scan that runs forward
#
# $S_t = \partial h_t / \partial W = J_t S_{t-1} + \partial f / \partial W$. No future is needed:
# $\partial L/\partial W = \sum_t e_t^\top S_t$ can be updated after every step. The price is the
# size of $S$: `D` times the number of parameters.

# %%
flat = influence.reshape(T, D, D * D)
sensitivity, _ = scan(dense, (J, flat), jnp.zeros((D, D * D)), evaluator="associative")
rtrl = jnp.einsum("ti,tip->p", error, sensitivity).reshape(D, D)
print(f"sensitivity scan against jax.grad: {relative(rtrl, exact):.1e}")
assert relative(rtrl, exact) < 1e-10

online = np.cumsum(np.einsum("ti,tip->tp", error, sensitivity), axis=0)
fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
distance = [
    float(
        jnp.linalg.norm(
            jnp.linalg.multi_dot(list(J[T - d : T][::-1]), precision=None) if d > 1 else J[T - 1], 2
        )
    )
    for d in range(1, T)
]
left.semilogy(range(1, T), distance, color="#22577a")
left.set(
    title="what the past still does",
    xlabel="distance $d$ in steps",
    ylabel=r"$\|J_T \cdots J_{T-d+1}\|_2$",
)
for row in range(D):  # of W: the units that it drives
    entries = slice(row * D, (row + 1) * D)
    right.plot(online[:, entries], lw=0.8, color=f"C{row}")
    right.plot([], [], color=f"C{row}", label=f"row {row + 1} of $W$")
    right.plot([T - 1] * D, np.asarray(exact).ravel()[entries], "o", ms=3, color=f"C{row}")
right.plot([], [], "o", ms=3, color="0.4", label="jax.grad")
right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
right.set(
    title="RTRL: the gradient as the stream goes by",
    xlabel="time $t$",
    ylabel=r"$\sum_{s \leq t} e_s^\top S_s$, each entry of $W$",
)
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Newton: the states themselves, all at once
#
# Guess all states; linearise about the guess; solve the affine recurrence by a scan; repeat. The
# error is squared in each round, and far fewer rounds are needed than there are steps.

# %%
exact_states = np.asarray(states(W))
guess = jnp.zeros((T, D))
errors = []
for _ in range(8):
    g = jnp.concatenate([h0[None], guess[:-1]])
    Jg = jax.vmap(lambda h, x: jax.jacfwd(lambda h: step(W, h, x))(h))(g, x)
    b = jax.vmap(lambda h, x: step(W, h, x))(g, x) - jnp.einsum("tij,tj->ti", Jg, g)
    guess, _ = scan(dense, (Jg, b), h0, evaluator="associative")
    errors.append(np.abs(guess - exact_states).max(axis=1))

fig, axis = plt.subplots(figsize=(7, 3.6))
shades = plt.cm.viridis(np.linspace(0.1, 0.9, len(errors)))
for n, (row, shade) in enumerate(zip(errors, shades), start=1):
    axis.semilogy(np.maximum(row, 1e-17), color=shade, label=f"{n}")
axis.set(
    title="Newton rounds: error of every state",
    xlabel="time $t$",
    ylabel=r"$\max_i |h_{t,i} - h^*_{t,i}|$",
)
axis.legend(title="round", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
axis.spines[["top", "right"]].set_visible(False)
plt.tight_layout()
plt.show()

# %% [markdown]
# `seqjax.newton` is this loop with a stopping rule, damping and a fallback, and its gradient is
# the adjoint scan from above (the implicit function theorem), so that nothing of the iteration is
# differentiated. It returns how it went:

# %%
result = newton(lambda h, x: step(W, h, x), x, h0)
print(
    f"iterations {int(result.iterations)} for {T} steps, residual {float(result.residual):.1e}, "
    f"fell back to the loop: {bool(result.fell_back)}"
)


def loss_by_newton(W):
    return 0.5 * jnp.sum((newton(lambda h, x: step(W, h, x), x, h0).states - target) ** 2)


print(
    f"gradient through newton against jax.grad: {relative(jax.grad(loss_by_newton)(W), exact):.1e}"
)
assert relative(jax.grad(loss_by_newton)(W), exact) < 1e-9
forward = jax.jvp(loss_by_newton, (W,), (W,))[1]
assert abs(float(forward - jnp.sum(exact * W))) < 1e-9 * abs(float(forward)) + 1e-9
print("and forward mode agrees with reverse mode")
