"""A pendulum in noisy frames at irregular times (Becker et al. 2019; arXiv:2111.11344, 2208.04933).

A rod swings from a random angle, at rest at first, with friction and small random pushes:

    a'' = 3 g / l sin a - friction a',    a the angle from the top, l = 1, g = 9.81
    a'  += transition e,  e ~ N(0, 1), after each `interval` seconds

Of the first 2 T intervals T are seen, drawn without replacement.  Each shows a frame of 24 x 24
pixels, the rod in it, behind noise that comes and goes: a pixel is f times the image and 1 - f
times a uniform number, where f is a random walk in [0, 1] of uniform steps up to 0.2, cut at two
levels that are drawn for each sequence (f = 0 below one in (0, 1/4), 1 above one in (3/4, 1)).  The
first five intervals are clear.

    x float32 [B, T, 24, 24]      y float32 [B, T, 2] = (sin b, cos b), b = a - pi: 0 hangs down
    dt float32 [B, T]: intervals since the frame before

A single frame does not show the angle where there is only noise; the velocity, with the time since
the last clear one, does.  Here the rod is drawn with soft edges, there it is resampled.

Published mse: RKN 8.43e-3, CRU 4.63e-3 (arXiv:2111.11344), S5 3.41e-3 (arXiv:2208.04933), trained
on 2000 sequences of 50 frames; here they are drawn without end.

Baseline: the mean of the target.
Length generalisation: a longer time of the same swing.
"""

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.ranges import NotNegative, Positive
from seqjax.tasks.task import Batch, Features, Metrics, Spec, Task, Values, draw_distinct, sampler

SIDE, ROD, WIDTH = 24, 55 / 128, 8 / 128  # pixels; of the side: length and width of the rod
STIFFNESS = 3 * 9.81  # 3 g / l
CLEAR, WALK = 5, 0.2


def pendulum(
    *,
    interval: Positive = 0.01,
    friction: NotNegative = 0.1,
    transition: NotNegative = 0.1,
    noise: bool = True,
    timed: bool = True,
) -> Task:
    """Where the rod is, for any T.

    interval: seconds between frames, were all of them seen
    friction: in 1 / s
    transition: deviation of the pushes, in 1 / s
    noise: off for clear frames
    timed: the time between frames stands beside them; off for layers that read none
    """

    def swings(key: jax.Array, batch: int, steps: int) -> jax.Array:
        """b [B, steps]."""
        key_start, key_push = jax.random.split(key)
        a = jax.random.uniform(key_start, (batch,), jnp.float32, 0, 2 * np.pi)
        push = transition * jax.random.normal(key_push, (steps, batch), jnp.float32)

        def slope(state):
            a, velocity = state
            return jnp.stack([velocity, STIFFNESS * jnp.sin(a) - friction * velocity])

        def step(state, push):
            k1 = slope(state)
            k2 = slope(state + interval / 2 * k1)
            k3 = slope(state + interval / 2 * k2)
            k4 = slope(state + interval * k3)
            new = state + interval / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            return new.at[1].add(push), state[0]

        start = jnp.stack([a, jnp.zeros_like(a)])
        return jax.lax.scan(step, start, push)[1].T - np.float32(np.pi)

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        key_swing, key_seen, key_clear, key_noise = jax.random.split(key, 4)
        b = swings(key_swing, batch, 2 * length)
        every = jnp.zeros(2 * length, jnp.float32)
        seen = jnp.sort(draw_distinct(key_seen, every, batch, length), axis=1)
        b = jnp.take_along_axis(b, seen, axis=1)
        x = frames(b)
        if noise:
            clear = jnp.take_along_axis(clearness(key_clear, batch, 2 * length), seen, axis=1)
            clear = clear[..., None, None]
            x = clear * x + (1 - clear) * jax.random.uniform(key_noise, x.shape, jnp.float32)
        y = jnp.stack([jnp.sin(b), jnp.cos(b)], axis=2)
        dt = jnp.diff(seen, axis=1, prepend=-1).astype(jnp.float32) if timed else None
        return Batch(x, y, jnp.ones((batch, length), jnp.float32), dt=dt)

    def baseline(length: int) -> Metrics:
        b = np.asarray(swings(jax.random.key(0), 4096, 2 * length), np.float64)
        mse = float(np.mean([np.var(np.sin(b)), np.var(np.cos(b))]))
        return {"loss": mse, "mse": mse}

    spec = Spec(Features(SIDE, SIDE), Values(2, per_step=True), timed=timed)
    return Task("pendulum", spec, sample, baseline)


def frames(b: jax.Array) -> jax.Array:
    """A rod [B, T, 24, 24] from the middle, at the angles b [B, T] from hanging down."""
    places = (jnp.arange(SIDE, dtype=jnp.float32) + 0.5 - SIDE / 2) / SIDE
    down, right = (v[None, None] for v in jnp.meshgrid(places, places, indexing="ij"))
    sine, cosine = (f(b)[..., None, None] for f in (jnp.sin, jnp.cos))
    along = jnp.clip(right * sine + down * cosine, 0, ROD)
    away = jnp.hypot(right - along * sine, down - along * cosine)
    return jnp.clip(SIDE * (WIDTH / 2 - away) + 0.5, 0, 1)


def clearness(key: jax.Array, batch: int, steps: int) -> jax.Array:
    """f [B, steps]: 0 is noise, 1 the image."""
    key_start, key_walk, key_levels = jax.random.split(key, 3)
    f = jax.random.uniform(key_start, (batch,), jnp.float32)
    moves = jax.random.uniform(key_walk, (steps, batch), jnp.float32, -WALK, WALK)
    walk = jax.lax.scan(lambda f, move: (jnp.clip(f + move, 0, 1), f), f, moves)[1].T
    low, high = jax.random.uniform(key_levels, (2, batch, 1), jnp.float32, 0, 0.25)
    f = jnp.clip((walk - low) / (0.75 + high - low), 0, 1)
    return f.at[:, :CLEAR].set(1)
