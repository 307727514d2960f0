"""What the contract cannot say about state-space, linear-attention and fast-weight layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import seqjax
from seqjax.core.flow import Carry, Flow
from seqjax.layers.attention.local_attention import LocalAttention
from seqjax.layers.ssm.s4d import legs_spectrum
from seqjax.nn.base import cast_parameters
from seqjax.nn.gates import decay, signed_linear_attention
from seqjax.ops.positions import rotary
from seqjax.zoo import make


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def build(name, features, **options):
    return cast_parameters(make(name, features, rngs=nnx.Rngs(1), **options), jnp.float64)


@pytest.mark.share(1)
@pytest.mark.parametrize("discretisation", ["zoh", "bilinear"])
def test_s4d_as_a_convolution(discretisation):
    """The FFT form: outputs, final state and gradients from any entering state."""
    layer = build("s4d", 3, state=4, discretisation=discretisation)
    graph, params = nnx.split(layer)
    x, h = normal(0, 1, 9, 3), layer(normal(1, 1, 5, 3))[1]

    def loss(params, x, h, evaluator):
        y, last = nnx.merge(graph, params)(x, h, evaluator=evaluator)
        return jnp.sum(jnp.sin(y)) + jnp.sum(last.real * last.imag), (y, last)

    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
    for got, expected in zip(
        jax.tree.leaves(run(params, x, h, "fft")),
        jax.tree.leaves(run(params, x, h, "primitive")),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_legs_spectrum():
    """Eigenvalues of the HiPPO-LegS matrix with its rank-one correction, the upper half."""
    n = np.arange(8)
    low = np.tril(np.sqrt(np.outer(2 * n + 1, 2 * n + 1)), -1) + np.diag(n + 1.0)
    p = np.sqrt(n + 0.5)
    found = np.linalg.eigvals(-low + np.outer(p, p))
    upper = sorted(found[found.imag > 0], key=lambda z: z.imag)
    np.testing.assert_allclose(legs_spectrum(8), upper, atol=1e-12)


@pytest.mark.share(1)
@pytest.mark.parametrize("per_key", [False, True])
def test_negative_decays(per_key):
    """Signs folded into queries and keys against the loop, with resets and masked steps."""
    T, H, K, V = 9, 2, 3, 2
    q, k, v = normal(0, T, H, K), normal(1, T, H, K), normal(2, T, H, V)
    log_s = jnp.log(jax.random.uniform(jax.random.key(3), (T, H, K) if per_key else (T, H)))
    state, fresh = normal(4, H, K, V), normal(5, H, K, V)
    resets, mask = np.zeros(T, bool), np.ones(T, bool)
    resets[[2, 6]], mask[[2, 4]] = True, False
    a = np.broadcast_to(decay(log_s, "[-1,1]").reshape(T, H, -1), (T, H, K))
    S, outputs = np.asarray(state), []
    assert (a < 0).any() and (a > 0).any()
    for t in range(T):
        if mask[t]:
            S = np.asarray(fresh) if resets[t] else S
            S = a[t][:, :, None] * S + np.einsum("hk,hv->hkv", k[t], v[t])
        outputs.append(np.einsum("hk,hkv->hv", q[t], S) * mask[t])
    y, last = signed_linear_attention(
        q, k, v, log_s, state, eigenvalues="[-1,1]", resets=jnp.array(resets),
        mask=jnp.array(mask), start=fresh,
    )  # fmt: skip
    np.testing.assert_allclose(y, outputs, atol=1e-12)
    np.testing.assert_allclose(last, S, atol=1e-12)


def test_a_reflection_tracks_parity():
    """What [-1, 1] is for: 2 s - 1 = -1 flips the state at every step, [0, 1] cannot."""
    ones = jnp.ones((6, 1, 1))
    log_s = jnp.full((6, 1), -60.0)
    y, _ = signed_linear_attention(
        ones, 0 * ones, ones, log_s, ones[0, :, :, None], eigenvalues="[-1,1]",
        resets=None, mask=None,
    )  # fmt: skip
    np.testing.assert_allclose(y[:, 0, 0], [-1, 1, -1, 1, -1, 1], atol=1e-9)


@pytest.mark.thorough
def test_local_attention_is_softmax_over_the_window():
    layer = cast_parameters(LocalAttention(4, heads=2, window=3, rngs=nnx.Rngs(0)), jnp.float64)
    x = normal(0, 8, 4)
    q = rotary(layer.W_q(x).reshape(8, 2, 2), jnp.arange(8), fraction=0.5)
    k = rotary(layer.W_k(x)[:, None], jnp.arange(8), fraction=0.5)[:, 0]
    scores = jnp.einsum("thk,sk->hts", q, k) / 2**0.5
    age = np.arange(8)[:, None] - np.arange(8)[None]
    scores = jnp.where(((age >= 0) & (age < 3))[None], scores, -jnp.inf)
    y = jnp.einsum("hts,sk->thk", jax.nn.softmax(scores), layer.W_v(x)).reshape(8, 4)
    np.testing.assert_allclose(layer(x[None])[0][0], layer.W_o(y), atol=1e-12)


def test_rotary_depends_on_distances_only():
    q, k = normal(0, 1, 1, 6), normal(1, 1, 1, 6)
    turn = lambda z, at: rotary(z, jnp.array([at]))[0, 0]  # noqa: E731
    near, far = turn(q, 5) @ turn(k, 3), turn(q, 905) @ turn(k, 903)
    np.testing.assert_allclose(near, far, rtol=1e-9)
    assert abs(near - turn(q, 5) @ turn(k, 4)) > 1e-3


@pytest.mark.thorough
def test_published_initialisations():
    rg_lru = make("rg_lru", 64)
    radius = jnp.exp(-8 * jax.nn.softplus(rg_lru.Lambda[...]))  # a^c
    assert 0.9 <= radius.min() < 0.92 and 0.98 < radius.max() <= 0.999
    for name, options in (("mamba", {}), ("mamba2", dict(heads=64)), ("gated_deltanet", {})):
        layer = make(name, 64, **options)
        dt = jax.nn.softplus(layer.dt_bias[...])
        assert 0.99e-3 <= dt.min() and dt.max() <= 0.101, name
    np.testing.assert_allclose(-jnp.exp(make("mamba", 8).A_log[0]), -np.arange(1, 17), rtol=1e-6)
    A = make("s4d", 2, state=8)
    np.testing.assert_allclose(A.A_im[0], np.pi * np.arange(4), rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(A.log_A_re[...]), 0.5, rtol=1e-6)


def test_closed_gates_have_finite_gradients():
    """A recurrence gate that is shut makes a_t = 1, where sqrt(1 - a^2) has no slope."""
    layer = build("rg_lru", 2)
    layer.b_a.set_value(jnp.full(2, -1e4))
    gradient = jax.grad(lambda x: layer(x)[0].sum())(normal(0, 1, 5, 2))
    assert bool(jnp.isfinite(gradient).all())


@pytest.mark.thorough
def test_rwkv7_asks_for_the_first_values():
    later = build("rwkv7", 4, heads=2, ranks=(2, 2, 2, 2), mixes_values=True)
    with pytest.raises(ValueError, match="v_first"):
        later(normal(0, 1, 3, 4))
    x, v_first = normal(0, 3, 4), normal(1, 3, 4)
    h = later.initial()
    _, v, _ = later.mix(x, Carry(h, h), Flow(), v_first)
    assert jnp.abs(v - later.W_v(x)).max() > 1e-3


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("gla", dict(heads=3), "3|6"),
        ("rg_lru", dict(blocks=3), "3"),
        ("griffin", dict(pattern=("recurent",)), "recurrent"),
        ("gated_deltanet", dict(eigenvalues="[0,2]"), "eigenvalues"),
        ("deltaproduct", dict(n_h=0), "n_h"),
        ("s4d", dict(init="legt"), "legs"),
        ("mamba", dict(conv=0), "'conv' .* from 1"),
    ],
)
def test_bad_options_say_what_is_right(name, options, says):
    with pytest.raises(ValueError, match=says):
        make(name, 4, **options)


@pytest.mark.parametrize("limit", [(0.5, 0.1), (-1.0, 1.0), (0.0, 0.0)])
def test_limits_of_dt_that_no_dt_can_meet_are_refused(limit):
    with pytest.raises(ValueError, match="dt_limit.*(0 <= low <= high|from 0 to inf)"):
        make("mamba2", 4, dt_limit=limit, rngs=nnx.Rngs(0))
    x, A = jnp.ones((1, 3, 1, 2)), -jnp.ones(1)
    with pytest.raises(ValueError, match="ssd: dt_limit is"):
        seqjax.ssd(x, jnp.ones((1, 3, 1)), A, x, x, dt_limit=limit)


def test_sizes_and_bounds_out_of_range_are_refused():
    for size in (0, 9, -1):
        with pytest.raises(ValueError, match="ssm_size.*(of 8 channels, expected 1 to 8|from 1)"):
            make("mamba2", 4, ssm_size=size, rngs=nnx.Rngs(0))
    for bound in (0.0, 5.0):
        with pytest.raises(ValueError, match="lower_bound.*below 0"):
            make("kda", 4, heads=1, lower_bound=bound, rngs=nnx.Rngs(0))


@pytest.mark.thorough
def test_ssd_is_a_selective_scan_with_one_decay_per_head():
    draw = np.random.default_rng(0)
    T, H, P, N, G = 37, 4, 3, 5, 2
    x, z, dt = (jnp.asarray(draw.normal(size=(2, T, H, n))) for n in (P, P, 1))
    B, C = jnp.asarray(draw.normal(size=(2, 2, T, G, N)))
    A, D, bias = (jnp.asarray(draw.normal(size=H)) for _ in range(3))
    S = jnp.asarray(draw.normal(size=(2, H, P, N)))
    mask = jnp.asarray(draw.random((2, T)) < 0.8)
    y, last = seqjax.ssd(
        x,
        dt[..., 0],
        -jnp.exp(A),
        B,
        C,
        D,
        z,
        bias,
        S,
        dt_softplus=True,
        mask=mask,
        chunk_size=8,
    )
    flat = lambda x: x.reshape(2, T, H * P)  # noqa: E731
    per_channel = lambda x: jnp.repeat(x, P)  # noqa: E731
    expected, expected_last = seqjax.selective_scan(
        flat(x),
        flat(jnp.broadcast_to(dt, x.shape)),
        jnp.broadcast_to(per_channel(-jnp.exp(A))[:, None], (H * P, N)),
        B,
        C,
        per_channel(D),
        flat(z),
        per_channel(bias),
        S.reshape(2, H * P, N),
        delta_softplus=True,
        mask=mask,
    )
    np.testing.assert_allclose(flat(y), expected, atol=1e-9)
    np.testing.assert_allclose(last.reshape(2, H * P, N), expected_last, atol=1e-9)
