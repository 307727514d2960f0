"""Where the classic networks start: orthogonal, identity, glorot; chrono gates."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.zoo import make

H = 64


def start(name, **options):
    return make(name, 3, hidden=H, rngs=nnx.Rngs(0), **options)


def test_recurrent_weights_start_as_asked():
    blocks = start("gru").U[...].reshape(3, H, H)
    gram = np.asarray(jnp.einsum("bij,bik->bjk", blocks, blocks))
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(H), gram.shape), atol=1e-6)
    assert not np.allclose(blocks[0], blocks[1], atol=0.1)  # drawn apart
    half = start("elman", recurrent_init="identity", recurrent_scale=0.5).U[...]
    np.testing.assert_array_equal(half, 0.5 * np.eye(H))
    glorot = np.asarray(start("lstm", recurrent_init="glorot").U[...])
    assert abs(glorot.std() * H**0.5 - 1) < 0.05
    uniform = np.abs(start("lstm", recurrent_init="uniform").U[...])
    assert 0.99 < uniform.max() * H**0.5 <= 1 + 1e-6 and abs(uniform.mean() * H**0.5 - 0.5) < 0.02
    with pytest.raises(ValueError, match="orthogonal"):
        start("elman", recurrent_init="orthogonl")


def test_chrono_gates_forget_over_all_time_scales():
    """1 / (1 - sigmoid(b)) = 1 + exp(b) is uniform on [2, T_max]."""
    i, f, g, o = np.split(np.asarray(start("lstm", chrono=100).W.bias[...], np.float64), 4)
    np.testing.assert_array_equal(i, -f)
    assert not g.any() and not o.any()
    r, z, n = np.split(np.asarray(start("gru", chrono=100).W.bias[...], np.float64), 3)
    assert not r.any() and not n.any()
    for bias in (f, z):
        scales = 1 + np.exp(bias)
        assert 2 <= scales.min() < 12 and 90 < scales.max() <= 100
        assert abs(scales.mean() - 51) < 4 * 98 / (12 * H) ** 0.5
    plain = np.asarray(start("lstm").W.bias[...])
    np.testing.assert_array_equal(plain, np.repeat([0, 1, 0, 0], H))
    with pytest.raises(ValueError, match="'chrono' .* at least 2, or None, got 1"):
        start("gru", chrono=1)


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("lstm", dict(gates="oif"), "'ifo', in this order"),
        ("lstm", dict(gates="io", coupled=True), "forget gate"),
        ("lstm", dict(gates="", full_recurrence=True), "there are none"),
        ("lstm", dict(bias=False, chrono=9), "bias=True"),
        ("lstm", dict(cell_clip=0.0), "cell_clip"),
        ("lstm", dict(output_activation="relu"), "linear"),
        ("gru", dict(bias=False, chrono=9), "bias=True"),
        ("elman", dict(leak=0.0), "leak"),
        ("qrnn", dict(masks=2), "masks"),
    ],
)
def test_bad_options_say_what_is_right(name, options, says):
    with pytest.raises(ValueError, match=says):
        make(name, 3, hidden=3, **options)


def test_forget_gates_of_slstm_blocks_fall_by_their_place_in_the_stack():
    """b_f from 5 to -7 over the units of a head, as a power from 0.3 to 1.6 (the official code)."""
    stack = make("xlstm", 8, pattern=("slstm", "mlstm", "slstm"), heads=2, rngs=nnx.Rngs(0))
    for n, power in ((0, 0.3), (2, 1.6)):
        falling = 5 - 12 * (np.arange(4) / 3) ** power
        b = stack.layers[n].cell.b[...]
        np.testing.assert_allclose(b[1], np.tile(falling, 2), rtol=1e-6)
        assert not b[np.array([0, 2, 3])].any()
