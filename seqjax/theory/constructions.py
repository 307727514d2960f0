"""What a recurrence can do at all: rows of the table with weights that are given, not learned.

Each construction sets the weights of one layer so that an affine readout of its outputs is right
on every word, however long: that a class of recurrences can is shown by one that does. Tokens come
in as one-hot rows beside a constant 1.

    parity      min_gru, eigenvalues [-1, 1]     h <- 1 - h at a one                    2411.12537
    modulo      pd_ssm, P = I: diagonal          h <- exp(2 pi i x / m) h               2411.12537
    group       pd_ssm                           h <- P_x h, h the group's element      2509.22284
    symmetric   deltaproduct, n_h = n            a reflection for each swap of two      2502.10297
    counting    elman, relu                      h <- relu(h + 1) at a, relu(h - 1)     1805.04908
                lstm                             c <- c + 1 at a, c - 1
    xor         elman, relu                      x_t + x_{t-1} - 2 relu(x_t + x_{t-1} - 1)

deltaproduct starts at S = 0, where reflections do nothing: it writes v = C^T k, so that S - C is
what they act on, and S_t = C - g C for the product g so far. Its keys are divided by
sqrt(|k|^2 + 1e-6), by which each reflection is 1e-5 short of one: some day the state has shrunk.
The counters are exact up to the largest whole number that the dtype holds, 2^24 in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.core.common import predicted
from seqjax.nn.base import cast_parameters
from seqjax.tasks import make as make_task
from seqjax.tasks.synthetic.state_tracking import GROUPS
from seqjax.zoo import make

FULL = 200.0  # where a sigmoid is 1, and of its negative 0, beyond rounding
Words = Callable[[Array, int], tuple[Array, Array, Array]]  # key, T -> x, y, mask [T]


class Construction(NamedTuple):
    """A layer, and the affine readout whose largest row is the answer."""

    title: str
    layer: Any
    tokens: int
    W: Any  # [classes, out]
    b: Any  # [classes]
    words: Words

    def start(self, batch: int) -> Any:
        return self.layer.batch_state(batch, jnp.zeros(()).dtype)

    def run(self, x: Array, h: Any = None) -> tuple[Array, Any]:
        """Scores [B, T, classes] of the tokens x [B, T], and the state after them."""
        every = jnp.eye(self.tokens, self.layer.features).at[:, self.tokens].set(1)
        y, h = self.layer(every[x], h)
        W, b = (jnp.asarray(v, y.dtype) for v in (self.W, self.b))
        return y @ W.T + b[None, None], h


def given(name: str, features: int, weights: Mapping[str, Any], **options: Any) -> Any:
    """A layer whose parameters are these, by their names, and 0; its norms are as they start."""
    layer = cast_parameters(make(name, features, rngs=nnx.Rngs(0), **options), jnp.zeros(()).dtype)
    missing = set(weights)
    for path, variable in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
        at = ".".join(map(str, path))
        value, found = weights.get(at, 0.0), variable[...]
        if "norm" not in path:
            variable.set_value(jnp.broadcast_to(jnp.asarray(value, found.dtype), found.shape))
        missing.discard(at)
    if missing:
        raise ValueError(f"{name} has no parameter {sorted(missing)[0]}")
    return layer


def of_task(name: str, **options: Any) -> Words:
    task = make_task(name, **options)

    def words(key: Array, T: int) -> tuple[Array, Array, Array]:
        batch = task.sample(key, 1, T)
        return batch.x[0], batch.y[0], batch.mask[0]

    return words


def nearest(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The affine map whose largest row is the code [classes, out] that y is nearest to."""
    return codes, -np.sum(codes**2, axis=1) / 2


def parity() -> Construction:
    """z = 1 and h~ = 1 at a one, where h becomes 1 - h; z = 0 at a zero."""
    kernel = np.zeros((3, 6))
    kernel[2, 0] = 1  # h~ of the first unit
    kernel[:2, 3] = -FULL, FULL
    layer = given("min_gru", 3, {"W.kernel": kernel}, candidate="linear", eigenvalues="[-1,1]")
    W, b = nearest(np.eye(3)[:1] * np.arange(2)[:, None])
    words = of_task("state_tracking", group="parity")
    return Construction("diagonal, eigenvalues -1 and 1", layer, 2, W, b, words)


def modulo(m: int = 5) -> Construction:
    """Turns of exp(2 pi i x / m), of modulus 1: D is 1 at size FULL, its angle an MLP of x."""
    features, turn = m + 1, np.arange(m) / m
    log = np.r_[-FULL, np.log(turn[1:] / (1 - turn[1:]))]  # the sigmoid's inverse
    first = np.zeros((features, features))
    first[:m, :m] = 40 * np.eye(m)  # gelu(40) = 40
    weights = {
        "A": 1.0, "a.layers.2.bias": FULL, "b.layers.0.kernel": first,
        "b.layers.2.kernel": np.r_[log / 40, 0][:, None],
        "W.kernel": np.pad([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)], ((0, 0), (0, 1))),
    }  # fmt: skip
    layer = given("pd_ssm", features, weights, state=1, dictionary=1, expansion=features)
    words = of_task("state_tracking", group="modular_addition", modulus=m)
    title = f"diagonal, complex eigenvalues, {m} of them"
    return Construction(title, layer, m, np.eye(m, features), np.zeros(m), words)


def group(name: str = "S3") -> Construction:
    """The element so far is a one-hot state; each symbol permutes it as it multiplies from the
    right (Cayley)."""
    table = GROUPS[name](0)
    order = len(table)
    A = np.zeros((order, order, order))  # [after, before, symbol]
    before, symbol = np.indices(table.shape)
    A[table, before, symbol] = 1
    weights = {
        "S.kernel": FULL * np.eye(order + 1, order), "A": A, "a.layers.2.bias": FULL,
        "b.layers.2.bias": -FULL, "W.kernel": np.eye(2 * order, order + 1),
    }  # fmt: skip
    options = dict(state=order, dictionary=order, expansion=1)
    layer = given("pd_ssm", order + 1, weights, **options)
    words = of_task("state_tracking", group=name)
    title = f"one-hot transitions, {order} states"
    return Construction(title, layer, order, np.eye(order, order + 1), np.zeros(order), words)


def swaps(p: tuple[int, ...]) -> list[tuple[int, int]]:
    """Swaps of two numbers, at most len(p) - 1, which one after the other send each i to p[i]."""
    now, found = list(range(len(p))), []
    for i in range(len(p)):
        j = now.index(p[i])
        if i != j:
            now[i], now[j] = now[j], now[i]
            found.append((i, j))
    return found[::-1]


def before_silu(y: np.ndarray) -> np.ndarray:
    """x with SiLU(x) = y > -0.27, by Newton's method on its rising branch."""
    x = np.array(y)
    for _ in range(60):
        s = 1 / (1 + np.exp(-x))
        x = np.maximum(x - (x * s - y) / (s + x * s * (1 - s)), -1.2)
    return x


def symmetric(n: int = 3) -> Construction:
    """S_n on the rows of S - C, C = I / 5: a swap is the reflection I - 2 k k^T of
    k = (e_i - e_j) / sqrt 2, and where none is left beta is 0. S^T q = (q - g^T q) / 5 names g,
    as the entries of q are all different; the last correction writes 1 to a row of its own, so that
    what the norm is of is never 0."""
    elements = list(permutations(range(n)))
    order, K = len(elements), n + 1
    keys, beta = np.zeros((order + 1, n, K)), np.full((order + 1, n), -FULL)
    for x, p in enumerate(elements):
        for step, (i, j) in enumerate(swaps(p)):
            keys[x, step, [i, j]], beta[x, step] = (0.2, -0.2), FULL
    values = keys[:, :, :n] / 2**0.5  # C k of unit length
    beta[:, -1] = beta[order] = 0  # 2 sigmoid(0) = 1: in place of what was there
    query = np.arange(1.0, K + 1) ** 1.5
    queries = np.zeros((order + 1, K))
    queries[order], keys[order, -1, -1], values[order, -1] = query, 100, 0.2
    qkv = [before_silu(part).reshape(order + 1, -1) for part in (queries, keys, values)]
    weights = {
        "W_qkv.kernel": np.concatenate(qkv, axis=1), "W_beta.kernel": beta,
        "W_o.kernel": np.eye(n, order + 1),
    }  # fmt: skip
    layer = given(
        "deltaproduct", order + 1, weights, n_h=n, heads=1, key_size=K, value_size=n,
        gated=False, output_gate=False, conv=0,
    )  # fmt: skip
    codes = np.stack([query[:n] - query[list(p)] + query[n] for p in elements])
    codes /= np.sqrt(np.mean(codes**2, axis=1, keepdims=True))  # the layer's norm
    words = of_task("state_tracking", group=f"S{n}")
    codes = np.pad(codes, ((0, 0), (0, order + 1 - n)))
    return Construction(f"products of {n - 1} reflections", layer, order, *nearest(codes), words)


# ab while there is no b; then b while the counter, the first output, is not 0
COUNTS = np.array([[1.0, -1e6], [1.0, 0.0], [0.0, 0.0]]), np.array([0.5, 0.0, 0.5])


def counter() -> Construction:
    """h = relu(h + 1) at a, relu(h - 1) at b, and whether this is a b."""
    kernel = np.array([[1.0, 0.0], [-1.0, 1.0], [0.0, 0.0]])
    weights = {"W.kernel": kernel, "U": np.diag([1.0, 0.0])}
    layer = given("elman", 3, weights, hidden=2, activation="relu")
    return Construction("a rectified counter", layer, 2, *COUNTS, of_task("counting"))


def counting_lstm() -> Construction:
    """Gates at 1 but for the forget gate of what must not stay; c = c + 1 at a, c - 1 at b."""
    kernel = np.zeros((3, 4, 2))  # of i, f, g, o
    kernel[2, [0, 1, 3]] = FULL
    kernel[2, 1, 1] = -FULL
    kernel[0, 2, 0], kernel[1, 2] = FULL, (-FULL, FULL)
    layer = given("lstm", 3, {"W.kernel": kernel.reshape(3, 8)}, hidden=2)
    return Construction("a cell that counts", layer, 2, *COUNTS, of_task("counting"))


def xor() -> Construction:
    """x_t and x_{t-1} differ: their sum, less twice what is above 1 of it."""
    U = np.zeros((3, 3))
    U[1:, 0] = 1
    kernel = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, -1.0]])
    layer = given("elman", 3, {"W.kernel": kernel, "U": U}, activation="relu")

    def words(key: Array, T: int) -> tuple[Array, Array, Array]:
        x = jax.random.bernoulli(key, shape=(T,)).astype(jnp.int32)
        return x, x ^ jnp.roll(x, 1).at[0].set(0), jnp.ones(T)

    W = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, -2.0]])
    return Construction("one nonlinear step", layer, 2, W, np.array([0.5, 0.0]), words)


CONSTRUCTIONS: dict[str, Callable[[], Construction]] = {
    "parity, min_gru": parity,
    "sum modulo 5, pd_ssm": modulo,
    "S3, pd_ssm": group,
    "A5, pd_ssm": lambda: group("A5"),
    "S3, deltaproduct": symmetric,
    "S5, deltaproduct": lambda: symmetric(5),
    "a^n b^n, elman": counter,
    "a^n b^n, lstm": counting_lstm,
    "x_t xor x_{t-1}, elman": xor,
}


def right(one: Construction, key: Array, T: int) -> float:
    """The share of the steps of a random word of T that the construction has right."""

    @jax.jit
    def share(key: Array) -> Array:
        x, y, mask = one.words(key, T)
        found = predicted(one.run(x[None])[0][0]).astype(y.dtype) == y
        return jnp.sum(jnp.where(found, mask, 0)) / jnp.sum(mask)

    return float(share(key))
