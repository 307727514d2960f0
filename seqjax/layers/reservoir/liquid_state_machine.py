"""Liquid state machine: a spiking reservoir (Maass, Natschlaeger & Markram 2002, Real-time
computing without stable states).

    i_t = e^(-dt/tau_s) (i_{t-1} + W z_{t-2} + W_in x_{t-1}) + W z_{t-1} + W_in x_t      currents
    v_t = e^(-dt/tau) v_{t-1} + (1 - e^(-dt/tau)) i_t                                    potentials
    z_t = [v_t > threshold],  then v_t = 0 for the time `refractory`                     spikes
    s_t = e^(-dt/`trace`) s_{t-1} + z_t = y_t                                            [hidden]

The neurons stand in a column 3 x 3 wide, a fifth of them inhibitory; a joins b with probability
C exp(-(distance / 2)^2), C of .3, .2, .4 and .1 for EE, EI, IE and II, by a weight that is
exponentially distributed about 2, 4, -19/15 and -19/15 thresholds (the paper's nanoamperes), times
`recurrent_scale`. A share `input_density` of them sees the inputs, by normal weights. All of it is
`Frozen`; what is trained is a readout of the traces (`reads` "spikes" or "potential": of those).
Useful where events come in time, and for neuromorphic hardware.

Times are in seconds. By `solver` "exact", as above, or "euler" (1 - dt/tau, as norse has it). reset
"subtract" takes the threshold off a potential that crossed it; `delayed`, a potential is reset in
the step after its spike, as snntorch does. `synapse` 0: currents last one step. coding "current":
x is a current; "rate": x, kept within [0, 1], is the probability of a spike of its channel, drawn
with a key, and without one the current is its mean. Gradients go through the threshold by a
`surrogate` of `seqjax.nn.spikes`, not through the reset. Dynamic synapses are not here, nor delays
and time constants that differ between neurons.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from seqjax.nn.base import Frozen, option
from seqjax.nn.recurrent import Recurrent
from seqjax.nn.spikes import SURROGATES, spike

SOLVERS = {"exact": lambda ratio: np.exp(-ratio), "euler": lambda ratio: 1 - ratio}
RESETS, READS, CODINGS = (
    ("zero", "subtract"),
    ("trace", "spikes", "potential"),
    ("current", "rate"),
)
JOINED = np.array([[0.3, 0.2], [0.4, 0.1]])  # from E or I, to E or I
STRENGTH = np.array([[2.0, 4.0], [-19 / 15, -19 / 15]])


class Liquid(NamedTuple):
    v: jax.Array  # [hidden], potentials
    i: jax.Array  # [hidden], what is left of the currents
    z: jax.Array  # [hidden], spikes
    trace: jax.Array  # [hidden]
    rest: jax.Array  # int32 [hidden], refractory steps to go


class LiquidStateMachine(Recurrent):
    loops = ("sequential",)
    learned = "v"

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        dt: float = 1e-3,
        tau: float = 0.03,
        synapse: float = 3e-3,
        refractory: float = 3e-3,
        trace: float = 0.03,
        threshold: float = 1.0,
        solver: str = "exact",
        reset: str = "zero",
        delayed: bool = False,
        coding: str = "current",
        reads: str = "trace",
        recurrent_scale: float = 1.0,
        input_scale: float = 20.0,
        input_density: float = 0.3,
        surrogate: str = "fast_sigmoid",
        slope: float | None = None,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        if min(dt, tau, trace, threshold) <= 0 or min(synapse, refractory) < 0:
            raise ValueError(
                "dt, tau, trace and threshold are above 0, synapse and refractory at least 0; got "
                f"{dt}, {tau}, {trace}, {threshold}, {synapse} and {refractory}"
            )
        left = SOLVERS[option("solver", solver, SOLVERS)]
        self.kept = float(left(dt / tau))
        self.synapse = float(left(dt / synapse)) if synapse else 0.0
        self.fading = float(np.exp(-dt / trace))
        self.threshold, self.pause = threshold, round(refractory / dt)
        self.reset, self.delayed = option("reset", reset, RESETS), delayed
        self.coding, self.reads = option("coding", coding, CODINGS), option("reads", reads, READS)
        self.noisy = coding == "rate"
        self.surrogate = option("surrogate", surrogate, SURROGATES)
        self.slope = SURROGATES[surrogate][0] if slope is None else slope
        n = np.arange(H)
        place = np.stack([n % 3, n // 3 % 3, n // 9], axis=1)
        far = ((place[:, None] - place[None]) ** 2).sum(-1)
        kind = jax.random.bernoulli(rngs.params(), 0.2, (H,)).astype(int)
        chance, strength = (
            jnp.asarray(table)[kind[None], kind[:, None]] for table in (JOINED, STRENGTH)
        )
        joined = jax.random.bernoulli(rngs.params(), chance * jnp.asarray(np.exp(-far / 4)))
        drawn = strength * jax.random.exponential(rngs.params(), (H, H))
        self.W = Frozen(recurrent_scale * jnp.where(joined, drawn, 0))
        W_in = input_scale * jax.random.normal(rngs.params(), (H, features))
        seeing = jax.random.bernoulli(rngs.params(), input_density, (H, 1))
        self.W_in = Frozen(jnp.where(seeing, W_in, 0))

    def initial(self):
        zero = jnp.zeros(self.out_features)
        return Liquid(zero, zero, zero, zero, jnp.zeros(self.out_features, jnp.int32))

    def drive(self, x, flow=None):
        if self.coding == "rate":
            x = jnp.clip(x, 0, 1)
            if flow is not None and flow.key is not None:
                draw = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], x.dtype))
                x = x + lax.stop_gradient((draw(flow.key) < x).astype(x.dtype) - x)
        return x @ self.W_in[...].T

    def step(self, h, z):
        def fired(v):
            return spike(v - self.threshold, self.surrogate, self.slope)

        i = h.i + self.W[...] @ h.z + z
        over = lax.stop_gradient(fired(h.v))
        v = self.kept * (h.v if self.reset == "subtract" else (1 - over) * h.v)
        v = v + (1 - self.kept) * i
        v = v - over * self.threshold if self.reset == "subtract" else v
        awake = h.rest == 0
        z = jnp.where(awake, fired(v), 0)
        if not self.delayed:
            off = lax.stop_gradient(z - over)
            v = v - off * (self.threshold if self.reset == "subtract" else v)
        v = jnp.where(awake, v, 0)
        rest = jnp.where(z > 0, self.pause, jnp.maximum(h.rest - 1, 0)).astype(h.rest.dtype)
        return Liquid(v, self.synapse * i, z, self.fading * h.trace + z, rest)

    def readout(self, h, x):
        del x
        return {"trace": h.trace, "spikes": h.z, "potential": h.v}[self.reads]
