"""What the tasks of neural Turing machines share: vectors of random bits, in a given order."""

import jax
import jax.numpy as jnp


def draw_bits(key: jax.Array, *shape: int) -> jax.Array:
    """Fair coins, float32."""
    return jax.random.bernoulli(key, 0.5, shape).astype(jnp.float32)


def at(vectors: jax.Array, place: jax.Array) -> jax.Array:
    """Vector number `place` int [B, T] of the vectors [B, N, bits] of its row; beyond them any."""
    place = jnp.clip(place, 0, vectors.shape[1] - 1)
    return jnp.take_along_axis(vectors, place[..., None], axis=1)


def where(due: jax.Array, vectors: jax.Array) -> jax.Array:
    """The vectors [B, T, bits] where they are due, bool [B, T], and zeros elsewhere."""
    return jnp.where(due[..., None], vectors, jnp.zeros_like(vectors))


def beside(vectors: jax.Array, *channels: jax.Array) -> jax.Array:
    """The vectors [B, T, bits], and a channel [B, T] each for the rest."""
    rest = [channel.astype(vectors.dtype)[..., None] for channel in channels]
    return jnp.concatenate([vectors, *rest], axis=2)


def lasting(longest: int, shortest: int, name: str, needed: int, length: int) -> int:
    """`longest`, or one error where it is less than `shortest`, which needs `needed` steps."""
    if longest < shortest:
        raise ValueError(f"{name} of {shortest} needs length >= {needed}, got {length}")
    return longest
