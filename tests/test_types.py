"""The types in the signatures of what is public hold: of arguments, and of what is returned.

The functions are traced with jaxtyping's checks, and compute nothing.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from flax import nnx
from jaxtyping import TypeCheckError, jaxtyped
from test_ops import CASES, SIZES

import seqjax
from seqjax.core.monoid import diagonal
from seqjax.nn.base import Layer
from seqjax.ops import OPS
from seqjax.ops.op import Spec

OPTIONS = {"linear_scan": ("linear_scan", {}), **CASES}


def checked(function):
    return jaxtyped(getattr(function, "__wrapped__", function), typechecker=beartype)


def traced(function, arguments):
    """Of arrays, their shapes alone."""
    arrays = {n: a for n, a in arguments.items() if isinstance(a, np.ndarray | jax.Array)}
    rest = {n: a for n, a in arguments.items() if n not in arrays}
    return jax.eval_shape(partial(function, **rest), **arrays)


@pytest.mark.share(12)
@pytest.mark.parametrize("case", OPTIONS)
def test_arguments_and_results_of_ops_have_the_axes_of_their_types(case):
    name, options = OPTIONS[case]
    arguments = OPS[name].example(Spec(case, SIZES, options), 0)
    flags = jnp.zeros((SIZES["B"], SIZES["T"]), bool)
    function = checked(getattr(seqjax, name))
    traced(function, {**arguments, "resets": flags, "mask": ~flags})
    with pytest.raises(TypeCheckError):
        traced(function, {**arguments, "resets": flags[:, 1:]})
    first = next(iter(arguments))
    with pytest.raises(TypeCheckError):
        traced(function, {**arguments, first: arguments[first][0, 0, 0]})


def test_corrections_and_taps():
    q, k = jnp.ones((2, 3, 1, 2)), jnp.ones((2, 6, 1, 2))
    beta, log_a = jnp.ones((2, 6, 1)), jnp.zeros((2, 3, 1))
    known = dict(q=q, k=k, v=k, beta=beta, log_a=log_a)
    traced(checked(seqjax.gated_delta_product), known)
    traced(checked(seqjax.delta_rule), dict(q=k, k=k, v=k, beta=beta))
    traced(checked(seqjax.fft_convolution), dict(u=q[:, :, 0], kernel=jnp.ones((4, 2))))
    traced(checked(seqjax.ssd), dict(x=k, dt=beta, A=jnp.ones(1), B=k, C=k, D=jnp.ones(1)))
    with pytest.raises(TypeCheckError):
        traced(checked(seqjax.gated_delta_product), {**known, "beta": beta[:, 1:]})


def test_labels_without_alignment():
    logits, labels, lengths = jnp.ones((2, 5, 3)), jnp.ones((2, 4), int), jnp.ones(2, int)
    known = dict(logits=logits, labels=labels, lengths=lengths, label_lengths=lengths)
    traced(checked(seqjax.ctc_loss), known)
    with pytest.raises(TypeCheckError):
        traced(checked(seqjax.ctc_loss), {**known, "labels": labels[1:]})
    for decode in (seqjax.ctc_best_path, seqjax.ctc_beam_search):
        traced(checked(decode), dict(logits=logits, lengths=lengths))
        with pytest.raises(TypeCheckError):
            traced(checked(decode), dict(logits=logits, lengths=labels))


def test_scans_layers_and_models():
    scan = checked(seqjax.scan)
    elements, h, flags = (jnp.ones(4), jnp.ones(4)), jnp.zeros(()), jnp.zeros(4, bool)
    scan(diagonal, elements, h, resets=flags, mask=~flags)
    with pytest.raises(TypeCheckError):
        scan(diagonal, elements, h, resets=flags[None])
    layer = seqjax.make("min_gru", 2, rngs=nnx.Rngs(0))
    call, x = checked(Layer.__call__), jnp.ones((2, 3, 2), jnp.float32)
    flags = jnp.zeros((2, 3), bool)
    call(layer, x, resets=flags, mask=~flags)
    with pytest.raises(TypeCheckError):
        call(layer, x, mask=flags[:, 1:])
    with pytest.raises(TypeCheckError):
        call(layer, x[0])
