"""Any gated linear recurrence with eigenvalues in [-1, 1] (Grazzi et al. 2024, arXiv:2411.12537).

    a = 2 s - 1              for a diagonal transition with the gate s in [0, 1]
    I - 2 beta k k^T         for a delta rule with beta in [0, 1] and |k| = 1

instead of s and I - beta k k^T. A state can then change its sign at a token, which is what parity
needs, and a product of such reflections can permute.

It is the option eigenvalues="[-1,1]" of the layer itself, see `seqjax.nn.gates`; this row
turns it on for any layer that has it. Only what multiplies the state changes, and what is written
stays (RG-LRU's sqrt(1 - a^2) is of the new a). The state is that layer's, in a tuple.

Not for it: decays that do not depend on the input (RetNet, S4: a sign that every step changes
tracks nothing); those that turn already (GateLoop, Mamba-3, the complex HGRU) or whose eigenvalues
lie there already (Comba); states that are divided by, or hold, what must stay positive (the
normalisers of mLSTM, ReLiT and RFA, the slots of GSA, the matrix that MesaNet solves with); RWKV-6,
whose read before the decay, with a bonus, has two signs where `signed_linear_attention` has one;
and steps without such a gate (Longhorn).
"""

import inspect
from collections.abc import Callable
from functools import partial

from flax import nnx

from seqjax.layers.classic.stacked import Stacked
from seqjax.layers.ssm.mamba import Mamba
from seqjax.nn.base import Layer


class NegativeEigenvalues(Stacked):
    """layer: a callable (features, *, eigenvalues, rngs) -> Layer; `make` also takes a name, or a
    pair (name, options). Raises ValueError for a layer without that option."""

    sequence_parallel = True

    def __init__(self, features: int, *, layer: Callable[..., Layer] = Mamba, rngs: nnx.Rngs):
        made = getattr(layer, "func", layer)  # `make` gives a partial
        if (
            "eigenvalues"
            not in inspect.signature(made.__init__ if isinstance(made, type) else made).parameters
        ):
            name = getattr(made, "__name__", str(made))
            raise ValueError(f"{name} has no option eigenvalues: it does not decay by a gate")
        super().__init__(features, layers=(partial(layer, eigenvalues="[-1,1]"),), rngs=rngs)
