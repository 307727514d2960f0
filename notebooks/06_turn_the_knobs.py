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
# # Turn the knobs
#
# Three things to move by hand: an eigenvalue, a gate, the size of a chunk. The first two need no
# kernel: what they show is computed here, once, for all positions of the sliders.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import HTML, display

import seqjax
from seqjax.core.monoid import diagonal
from seqjax.tools.knobs import knobs

# %% [markdown]
# ## An eigenvalue
#
# $h_t = r\, e^{i \omega}\, h_{t-1} + x_t$ after one impulse: the modulus $r$ is how long it
# remembers, the phase $\omega$ how it turns. At $\omega = \pi$ it alternates: a parity. Just
# inside the unit circle it keeps the most, outside of it nothing is safe.

# %%
T = 80
moduli, phases = jnp.array([0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0, 1.02]), jnp.linspace(0, jnp.pi, 13)


def response(modulus, phase):
    a = jnp.full(T, modulus * jnp.exp(1j * phase))
    b = jnp.zeros(T, complex).at[0].set(1.0)
    return seqjax.scan(diagonal, (a, b), jnp.zeros((), complex))[0].real


curves = jax.vmap(lambda r: jax.vmap(lambda p: response(r, p))(phases))(moduli)
page = knobs(curves, {"modulus r": moduli, "phase ω": phases}, low=-2, high=2,
             caption="Re h over 80 steps after an impulse at step 0")  # fmt: skip
display(HTML(page))
assert np.allclose(curves[3, -1], 0.9 ** np.arange(T) * (-1) ** np.arange(T), atol=1e-4)

# %% [markdown]
# ## A gate
#
# A minimal gated unit, $h_t = (1 - z)\, h_{t-1} + z\, x_t$, on a noisy square wave. Wide open it
# copies the noise; nearly closed it misses the steps. A learned gate opens at the steps only: the
# second slider opens it where the wave jumps.

# %%
t = np.arange(160)
wave = np.where(t // 40 % 2, 1.0, -1.0)
x = jnp.asarray(wave + 0.6 * np.random.default_rng(0).normal(size=160), jnp.float32)
jumps = jnp.asarray((t % 40 < 3) & (t >= 40))
always, then = (
    jnp.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0]),
    jnp.array([0.0, 0.2, 0.4, 0.6, 0.8]),
)


def filtered(gate, more):
    z = jnp.clip(gate + more * jumps, 0, 1)
    return seqjax.linear_scan((1 - z)[:, None], (z * x)[:, None])[0][:, 0]


gated = jax.vmap(lambda g: jax.vmap(lambda m: filtered(g, m))(then))(always)
page = knobs(gated, {"gate z": always, "more at jumps": then}, low=-2.2, high=2.2,
             caption="h over 160 steps; the wave jumps at 40, 80 and 120")  # fmt: skip
display(HTML(page))
error = np.sqrt(np.mean((np.asarray(gated) - wave) ** 2, axis=-1))
best = np.unravel_index(error.argmin(), error.shape)
print(f"nearest to the wave: z = {always[best[0]]:.2f}, and {then[best[1]]:.1f} more at jumps")
assert best[1] > 0, "a gate that opens at the jumps is better than any constant one"

# %% [markdown]
# ## The size of a chunk
#
# This one is measured while you move it, and needs a kernel and `ipywidgets`; without, it prints a
# few sizes. A chunk is solved at once, and the state is carried over its border: small chunks are
# many small steps, large ones much work that is quadratic in their size.

# %%
import time  # noqa: E402

H, K, LENGTH = 2, 16, 1024
draw = np.random.default_rng(1)
q, k, v = (jnp.asarray(draw.normal(size=(1, LENGTH, H, K)), jnp.float32) for _ in range(3))
k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
beta, log_a = jnp.full((1, LENGTH, H), 0.5), jnp.full((1, LENGTH, H), -0.05)


def milliseconds(chunk_size):
    """Of the value and gradient of a gated delta rule, the best of five."""

    def loss(q):
        y, _ = seqjax.gated_delta_rule(
            q, k, v, beta, log_a, evaluator="chunked", chunk_size=chunk_size
        )
        return jnp.sum(y**2)

    run = jax.jit(jax.value_and_grad(loss))
    jax.block_until_ready(run(q))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(run(q))
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def show(chunk_size):
    print(f"chunk_size {chunk_size:4d}: {milliseconds(chunk_size):7.2f} ms")


try:
    from ipywidgets import SelectionSlider, interact

    interact(show, chunk_size=SelectionSlider(options=(8, 16, 32, 64, 128), value=32))
except ImportError:
    for size in (8, 32, 128):
        show(size)
