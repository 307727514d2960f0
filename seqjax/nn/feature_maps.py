"""Feature maps: phi with phi(q).phi(k) near a similarity of q and k, for any linear attention.

    elu+1           elu(x) + 1                                                   arXiv:2006.16236
    relu            max(x, 0)                                                    arXiv:2202.08791
    identity        x
    dpfp            r_i r_{i-j}, r = relu [x, -x], j = 1 .. nu                   arXiv:2102.11174
    taylor          outer powers of x up to `order`, over sqrt(n!): exp(q.k)     arXiv:2402.18668
    square          x_i x_j, i <= j: (q.k)^2, the core of ReBased                arXiv:2402.10644
    rebased         square of gamma * norm(x) + beta, learned for q and for k    ibid.
    favor+          exp(W x - |x|^2/2): exp(q.k), positive                       arXiv:2009.14794
    favor+-         the same with W and -W: hyperbolic, of less variance         ibid., lemma 1
    trigonometric   exp(|x|^2/2) [sin W x, cos W x]: exp(q.k), of any sign       ibid., sec. 2.3
    fourier         [sin W x, cos W x]: the Gaussian kernel exp(-|q - k|^2/2)    ibid., sec. 2.3
    random_relu     relu(W x): the arc-cosine kernel of order 1                  ibid., sec. 2.2
    rfa             [sin W x, cos W x] of x / |x|: exp(q.k) up to a constant     arXiv:2103.02143
    learned         relu(W x + b), W and b learned per head                      arXiv:2103.13076
    hash            bits of a kernelised hash: how many of them agree            arXiv:2209.09004

The kernels are those of q and k over sqrt(temperature) each. It is an option of all maps but rfa
(whose tau it is), learned and hash: sqrt(K) by default, as in softmax attention, and 1 in the first
four.

Here are the functions of arrays x [..., T, H, K], and `FeatureMap`, which holds what a map needs
(random or learned) and is what layers use: `make_map(name, heads, K, rngs=)` or, with options,
`make_map((name, {...}), ...)`. Random matrices are `Frozen`: drawn once, not trained.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from seqjax.core.common import unknown
from seqjax.nn.activations import identity, relu, relu2, sigmoid, silu
from seqjax.nn.base import Frozen, Precise, option
from seqjax.nn.norms import Norm

# ---- functions ----------------------------------------------------------------------------------


def elu_plus_one(x: Array) -> Array:
    """exp(x) for x <= 0 and x + 1 above: positive, with derivative 1 at 0 from both sides."""
    return jnp.where(x > 0, x + 1, jnp.exp(jnp.where(x > 0, 0, x)))


QK_MAPS = {
    "identity": identity,
    "silu": silu,
    "relu": relu,
    "relu2": relu2,
    "elu+1": elu_plus_one,
    "sigmoid": sigmoid,
}
"""What queries and keys pass through, channel by channel, in layers that are not named for it."""


def dpfp(x: Array, nu: int = 1) -> Array:
    """[..., 2 K nu]: products of r = relu [x, -x] with itself moved by 1 .. nu places."""
    r = jax.nn.relu(jnp.concatenate([x, -x], axis=-1))
    return jnp.concatenate([r * jnp.roll(r, j, axis=-1) for j in range(1, nu + 1)], axis=-1)


def taylor(x: Array, order: int = 2) -> Array:
    """[..., 1 + K + ... + K^order]: phi(x).phi(y) = sum_n (x.y)^n / n!; order 2 is positive."""
    power, terms = jnp.ones_like(x[..., :1]), []
    for n in range(order + 1):
        terms.append(power * math.factorial(n) ** -0.5)
        power = outer(power, x)
    return jnp.concatenate(terms, axis=-1)


def square(x: Array) -> Array:
    """[..., K (K + 1) / 2]: x x^T, where a pair off the diagonal stands once, times sqrt(2)."""
    i, j = np.triu_indices(x.shape[-1])
    counted = jnp.asarray(np.where(i == j, 1, 2**0.5), x.dtype)
    return x[..., i] * x[..., j] * counted.reshape(*(1,) * (x.ndim - 1), -1)


def outer(x: Array, y: Array) -> Array:
    """[..., N] and [..., M] to [..., N M], the places of y running fastest."""
    return (x[..., :, None] * y[..., None, :]).reshape(*x.shape[:-1], -1)


def project(x: Array, W: Array) -> Array:
    """W x [..., H, M] for W [H, M, K], or [1, M, K] for all heads alike."""
    W = jnp.broadcast_to(W, (x.shape[-2], *W.shape[1:])).astype(x.dtype)
    return jnp.einsum("...hk,hmk->...hm", x, W)


def half_square(x: Array) -> Array:
    return jnp.sum(x * x, axis=-1, keepdims=True) / 2


STABILISERS: dict[str, Callable[[Array, Array], Any]] = {
    "none": lambda x, u: 0.0,
    "query": lambda x, u: lax.stop_gradient(jnp.max(u, axis=-1, keepdims=True)),
    "sequence": lambda x, u: lax.stop_gradient(jnp.max(u, axis=(-3, -1), keepdims=True)),
    "norm": lambda x, u: 2 * jnp.max(half_square(x), axis=-3, keepdims=True),
}
"""What is subtracted from the exponents of `favor`, for u = W x. A factor common to all features
of a query cancels in normalised attention; so does one common to all keys, but it can only be
known once all keys are: the last two look ahead."""


def favor(
    x: Array, W: Array, *, stabilise: str = "none", hyperbolic: bool = False, eps: float = 0.0
) -> Array:
    """M^-1/2 (exp(W x - |x|^2/2 - stabiliser) + eps) [..., M], or 2 M with -W beside W."""
    u = project(x, W)
    shift = half_square(x) + STABILISERS[option("stabiliser", stabilise, STABILISERS)](x, u)
    if hyperbolic:
        u = jnp.concatenate([u, -u], axis=-1)
    return (jnp.exp(u - shift) + eps) * u.shape[-1] ** -0.5


def fourier(x: Array, W: Array, *, smoothing: float = 0.0) -> Array:
    """M^-1/2 [sin W x, cos W x] [..., 2 M]: the Gaussian kernel exp(-|x - y|^2/2).

    smoothing: one more feature of this value, that adds its square to every similarity.
    """
    u = project(x, W)
    parts = [jnp.sin(u), jnp.cos(u)]
    parts = [part * W.shape[-2] ** -0.5 for part in parts]
    if smoothing:
        parts.append(jnp.full_like(u[..., :1], smoothing))
    return jnp.concatenate(parts, axis=-1)


def trigonometric(x: Array, W: Array) -> Array:
    return jnp.exp(half_square(x)) * fourier(x, W)


def random_relu(x: Array, W: Array, *, eps: float = 1e-3) -> Array:
    """relu(W x) + eps [..., M]; without M^-1/2, which cancels in normalised attention."""
    return jax.nn.relu(project(x, W)) + eps


def cosine_weights(phi: Array, place: Array, length: int) -> Array:
    """[..., T, H, 2 N]: phi times the sine and the cosine of pi place / (2 length).

    The similarity of two steps is thereby multiplied by cos(pi (i - j) / (2 length)), which is
    not negative where |i - j| <= length (arXiv:2202.08791).
    """
    angle = (place.astype(phi.dtype) * (math.pi / (2 * length)))[:, None, None]
    return jnp.concatenate([phi * jnp.sin(angle), phi * jnp.cos(angle)], axis=-1)


def bits(x: Array) -> Array:
    """The sign of x as -1 or 1; the gradient is that of x where |x| <= 1, and zero beyond."""
    clipped = jnp.clip(x, -1, 1)
    return clipped + lax.stop_gradient(jnp.where(x > 0, 1.0, -1.0).astype(x.dtype) - clipped)


# ---- random matrices ----------------------------------------------------------------------------


def gaussian(key: Array, heads: int, count: int, K: int) -> Array:
    return jax.random.normal(key, (heads, count, K))


def orthogonal(key: Array, heads: int, count: int, K: int) -> Array:
    """Rows that are standard normal each, and orthogonal within each block of K of them."""
    blocks = -(-count // K)
    direction, size = jax.random.split(key)
    Q, R = jnp.linalg.qr(jax.random.normal(direction, (heads, blocks, K, K)))
    # the signs that a factorisation happens to choose would make the directions uneven
    Q = Q * jnp.sign(jnp.diagonal(R, axis1=2, axis2=3))[:, :, None]
    rows = Q.reshape(heads, blocks * K, K)[:, :count]
    norms = jnp.linalg.norm(jax.random.normal(size, rows.shape), axis=-1, keepdims=True)
    return rows * norms


DRAWS = {"orthogonal": orthogonal, "gaussian": gaussian}

# ---- maps with what they hold -------------------------------------------------------------------


class FeatureMap(nnx.Module):
    """x [T, H, K] to phi(x) [T, H, size]; `query` where queries and keys are mapped differently."""

    size: int

    def __call__(self, x: Array, *, query: bool = False) -> Array:
        raise TypeError(f"{type(self).__name__} must define __call__()")


@dataclass(frozen=True)
class Given:
    """f with options. Unlike partial objects two of them are equal, as layers built alike are."""

    f: Callable[..., Array]
    options: tuple[tuple[str, Any], ...]

    def __call__(self, *args: Array, **more: Any) -> Array:
        return self.f(*args, **dict(self.options), **more)


def given(f: Callable[..., Array], options: Mapping[str, Any]) -> Callable[..., Array]:
    """f with options; without any f itself."""
    return Given(f, tuple(sorted(options.items()))) if options else f


def root_of(temperature: float | None, default: float) -> float:
    """1 / sqrt(temperature), what q and k are multiplied by."""
    temperature = default if temperature is None else temperature
    if temperature <= 0:
        raise ValueError(f"the temperature of a feature map is {temperature}, expected above 0")
    return temperature**-0.5


class Fixed(FeatureMap):
    """A function without weights, of x / sqrt(temperature); sqrt(K) by default if `tempered`."""

    def __init__(
        self,
        heads: int,
        K: int,
        *,
        f: Callable[..., Array],
        size: Callable[..., int] = lambda K: K,
        tempered: bool = False,
        temperature: float | None = None,
        rngs: nnx.Rngs | None = None,
        **options: Any,
    ):
        del heads, rngs
        self.f, self.size = given(f, options), size(K, **options)
        self.scale = root_of(temperature, K**0.5 if tempered else 1.0)

    def __call__(self, x, *, query=False):
        del query
        return self.f(x * self.scale)


class Favor(FeatureMap):
    """Random features of the softmax kernel; all heads share W of `count` rows, by default K log K.

    The release adds 1e-4 to every exponential. Queries are stabilised by their own maximum; keys
    are not (their exponents are at most |w|^2/2), so that nothing looks ahead.
    """

    def __init__(
        self,
        heads: int,
        K: int,
        *,
        f: Callable[..., Array],
        doubles: bool = False,
        stabilised: bool = False,
        count: int | None = None,
        draw: str = "orthogonal",
        temperature: float | None = None,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        del heads
        self.f, self.stabilised = given(f, options), stabilised
        self.scale, self.draw = root_of(temperature, K**0.5), DRAWS[option("draw", draw, DRAWS)]
        count = count or max(1, round(K * math.log(K)))
        self.size = (2 * count if doubles else count) + bool(options.get("smoothing"))
        self.W = Frozen(self.draw(rngs.params(), 1, count, K))

    def redraw(self, key: Array) -> None:
        """Other random features, as the paper takes from time to time while training."""
        self.W = Frozen(self.draw(key, *self.W.shape))

    def __call__(self, x, *, query=False):
        options = {"stabilise": "query"} if query and self.stabilised else {}
        return self.f(x * self.scale, self.W[...], **options)


class RFA(FeatureMap):
    """Fourier features of x / |x|, W = sigma R / tau, with sigma learned and R drawn per head."""

    def __init__(
        self, heads: int, K: int, *, count: int | None = None, tau: float = 1.0, rngs: nnx.Rngs
    ):
        count = count or K
        self.tau, self.size = tau, 2 * count
        self.R = Frozen(gaussian(rngs.params(), heads, count, K))
        self.sigma = Precise(jnp.ones((heads, 1, K)))

    def __call__(self, x, *, query=False):
        del query
        sigma = jnp.broadcast_to(self.sigma[...], self.R.shape)
        norm = jnp.sqrt(2 * half_square(x) + 1e-12)  # differentiable at zero
        return fourier(x / (norm + 1e-3), sigma * self.R[...] / self.tau)


class Learned(FeatureMap):
    """relu(W x + b) [T, H, count], W [H, count, K] and b [H, count] trained (T2R); count is K."""

    def __init__(self, heads: int, K: int, *, count: int | None = None, rngs: nnx.Rngs):
        self.size = count or K
        init = nnx.initializers.lecun_normal(in_axis=-1, out_axis=-2, batch_axis=0)
        self.W = nnx.Param(init(rngs.params(), (heads, self.size, K)))
        self.b = nnx.Param(jnp.zeros((heads, self.size)))

    def __call__(self, x, *, query=False):
        del query
        return jax.nn.relu(project(x, self.W[...]) + self.b[...][None])


class ReBased(FeatureMap):
    """`square` of gamma * norm(x) + beta, over sqrt(K), all heads alike.

    gamma and beta [1 or 2, K]: queries have the first row, keys the last, the same if `shared`.
    """

    def __init__(
        self,
        heads: int,
        K: int,
        *,
        shared: bool = False,
        gamma: bool = True,
        beta: bool = True,
        normalise: bool = True,
        rngs: nnx.Rngs,
    ):
        del heads, rngs
        shape = (1 if shared else 2), K
        self.gamma = Precise(jnp.ones(shape)) if gamma else None
        self.beta = Precise(jnp.zeros(shape)) if beta else None
        self.norm = Norm(K, centre=True, weight=False, eps=1e-5) if normalise else None
        self.size, self.scale = K * (K + 1) // 2, K**-0.25

    def __call__(self, x, *, query=False):
        row = slice(0, 1) if query else slice(-1, None)
        if self.norm is not None:
            x = self.norm(x)
        if self.gamma is not None:
            x = x * self.gamma[...][None, row].astype(x.dtype)
        if self.beta is not None:
            x = x + self.beta[...][None, row].astype(x.dtype)
        return square(x * self.scale)


class Hash(FeatureMap):
    """[b_1 .. b_count, sqrt(count)] / sqrt(2) of `count` bits: phi.phi is how many bits agree.

    b = sign(A (kappa(x) - mean)), kappa_m(x) = exp(-|x - anchor_m|^2 / (2 width)). All of it is
    `Frozen`; `seqjax.layers.linear_attention.ecoformer.fit` learns A from attention maps.
    """

    def __init__(self, heads: int, K: int, *, count: int = 16, anchors: int = 25, rngs: nnx.Rngs):
        self.size = count + 1
        self.A = Frozen(gaussian(rngs.params(), heads, count, anchors))
        self.anchors = Frozen(gaussian(rngs.params(), heads, anchors, K))
        # of standard normal x: the mean squared distance, and kappa's mean at that
        self.width = Frozen(jnp.full(heads, 2.0 * K))
        self.mean = Frozen(jnp.full((heads, anchors), math.exp(-0.5)))

    def kernel(self, x: Array) -> Array:
        """kappa(x) [T, H, anchors]."""
        apart = x[:, :, None] - self.anchors[...].astype(x.dtype)[None]
        width = self.width[...].astype(x.dtype)[None, :, None]
        return jnp.exp(-half_square(apart)[..., 0] / width)

    def codes(self, x: Array) -> Array:
        """The bits [T, H, count] of x [T, H, K], each -1 or 1."""
        return bits(project(self.kernel(x) - self.mean[...].astype(x.dtype)[None], self.A[...]))

    def __call__(self, x, *, query=False):
        del query
        codes = self.codes(x)
        constant = jnp.full_like(codes[..., :1], codes.shape[-1] ** 0.5)
        return jnp.concatenate([codes, constant], axis=-1) * 0.5**0.5


FEATURE_MAPS: dict[str, Callable[..., FeatureMap]] = {
    "elu+1": partial(Fixed, f=elu_plus_one),
    "relu": partial(Fixed, f=relu),
    "identity": partial(Fixed, f=identity),
    "dpfp": partial(Fixed, f=dpfp, size=lambda K, nu=1: 2 * K * nu),
    "taylor": partial(
        Fixed, f=taylor, size=lambda K, order=2: sum(K**n for n in range(order + 1)), tempered=True
    ),
    "square": partial(Fixed, f=square, size=lambda K: K * (K + 1) // 2, tempered=True),
    "rebased": ReBased,
    "favor+": partial(Favor, f=given(favor, dict(eps=1e-4)), stabilised=True),
    "favor+-": partial(Favor, f=given(favor, dict(hyperbolic=True)), doubles=True),
    "trigonometric": partial(Favor, f=trigonometric, doubles=True),
    "fourier": partial(Favor, f=fourier, doubles=True),
    "random_relu": partial(Favor, f=random_relu),
    "rfa": RFA,
    "learned": Learned,
    "hash": Hash,
}


def make_map(
    spec: str | tuple[str, Mapping[str, Any]], heads: int, K: int, *, rngs: nnx.Rngs
) -> FeatureMap:
    """A feature map of heads of size K, by its name or by (name, options)."""
    name, options = (spec, {}) if isinstance(spec, str) else spec
    if name not in FEATURE_MAPS:
        raise ValueError(unknown("feature map", name, FEATURE_MAPS))
    return FEATURE_MAPS[name](heads, K, rngs=rngs, **options)
