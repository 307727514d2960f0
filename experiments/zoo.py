"""Every row of the table of layers learns: one small model each, on one task.

command     python -m experiments.zoo        (or names of layers)
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-22
time        5 s of CPU a row, 8 min in all, most of it compilation
expected    accuracy, with the default seed:

    hopfield               1.00   dss                    1.00   mesa_net               1.00
    elman                  1.00   dlr                    1.00   rwkv7                  1.00
    jordan                 1.00   mamba                  1.00   ttt_linear             1.00
    lstm                   1.00   mamba2                 1.00   ttt_mlp                1.00
    lstm_1997              1.00   mamba3                 1.00   titans                 1.00
    lstmp                  1.00   rg_lru                 1.00   negative_eigenvalues   1.00
    janet                  1.00   griffin                1.00   neural_ode_fwp         1.00
    gru                    1.00   hawk                   1.00   iplr                   1.00
    mgu                    1.00   lmu                    1.00   mom                    1.00
    mogrifier_lstm         1.00   mega                   1.00   deltaformer            1.00
    awd_lstm               1.00   gss                    1.00   attention              1.00
    on_lstm                1.00   h3                     1.00   local_attention        1.00
    convlstm               1.00   hyena                  1.00   latent_attention       1.00
    md_lstm                1.00   laughing_hyena         1.00   stripedhyena           1.00
    bidirectional          1.00   sgconv                 1.00   jamba                  1.00
    stacked                1.00   hippo_rnn              1.00   zamba                  1.00
    zoneout                1.00   linoss                 1.00   rnn_mlp                1.00
    indrnn                 1.00   pd_ssm                 1.00   parallel               1.00
    min_gru                1.00   linear_transformer     1.00   highway_rnn            1.00
    min_lstm               1.00   performer              1.00   highway_lstm           1.00
    qrnn                   1.00   rfa                    1.00   highway_state_gating   1.00
    slstm                  1.00   cosformer              1.00   residual_rnn           1.00
    sru                    1.00   ecoformer              1.00   residual_stacked_rnn   1.00
    sru_pp                 1.00   transnormer            1.00   residual_lstm          1.00
    gilr_lstm              1.00   transnormer_llm        1.00   residual_time_gru      1.00
    ur_lstm                1.00   lightning_attention    1.00   sctt_rnn               1.00
    chrono_lstm            1.00   aft                    1.00   e1                     1.00
    xlstm                  1.00   retnet                 1.00   e33                    1.00
    hgru                   1.00   relit                  1.00   e42                    1.00
    elstm                  1.00   mao_decay              1.00   e59                    1.00
    tcn                    0.78   hgrn2                  1.00   e88                    1.00
    orthogonal_rnn         1.00   based                  1.00   heterogeneous_residual 1.00
    unitary_rnn            1.00   gla                    1.00   log_polynomial         1.00
    nnrnn                  1.00   mlstm                  1.00   esn                    1.00
    incremental_rnn        1.00   rwkv4                  1.00   residual_esn           1.00
    tarnn                  1.00   rwkv5                  1.00   deep_residual_esn      1.00
    limit_cycle_rnn        1.00   rwkv6                  1.00   liquid_state_machine   1.00
    antisymmetric_rnn      1.00   aaren                  1.00   deep_esn               0.76
    ct_rnn                 1.00   gau                    1.00   es2n                   0.77
    neural_ode             0.77   flash_gau              0.87   nvar                   1.00
    neural_cde             1.00   gateloop               1.00   transformer_xl         1.00
    ode_rnn                1.00   gsa                    1.00   rmt                    1.00
    ltc                    1.00   fox                    1.00   armt                   0.81
    cfc                    1.00   tova_msrnn             1.00   infini_transformer     1.00
    lipschitz_rnn          1.00   gated_rnn_attention    1.00   r_transformer          1.00
    cornn                  1.00   log_linear_attention   1.00   rpe_rnn                1.00
    unicornn               1.00   abc                    1.00   rsa                    1.00
    nwm                    1.00   rebased                1.00   memformer              1.00
    wave_rnn               0.77   lightnet               1.00   block_state            1.00
    noisy_rnn              1.00   rodimus                1.00   arn                    1.00
    lem                    1.00   ffm                    1.00   ran                    1.00
    plrnn                  1.00   fwp                    1.00   block_recurrent        1.00
    koopman_ae             0.72   deltanet               1.00   compressive_transformer1.00
    hippo                  1.00   gated_deltanet         1.00   tlb                    1.00
    lru                    0.98   deltaproduct           1.00   token_turing_machine   1.00
    s4d                    1.00   recurrent_deltanet     1.00   ntm                    1.00
    lssl                   1.00   srwm                   1.00   dnc                    1.00
    s4                     1.00   kda                    1.00   bahdanau               1.00
    sashimi                0.94   comba                  1.00   mdn_handwriting        1.00
    liquid_s4              1.00   gdn2                   1.00   smt_memory_rnn         1.00
    s5                     1.00   longhorn               1.00

A token that is not noise is shown once, at a random place among noise, and asked for at the end
(`selective_copy` of one token out of four, 12 steps, chance 0.25): a memory that keeps what counts
is all it takes. There are 44 such sequences, so this shows that a row carries and learns, not how
it generalises. All rows see the same 300 batches of 32, and are asked before they learn from them:
the last tenth are the accuracy. One block of 16 features, Adam; the layer at its row's tiny
options, but that a window or a filter is as long as the sequence, and `FITTING`.

FLASH finds what lies before the chunk of the question, by its linear part: 1 - 3/4 * 2/11. Inside
the chunk its squared rectifier stays at its start, for GAU's reason below.
"""

from __future__ import annotations

from time import process_time

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree

from experiments import words
from seqjax.core.common import predicted
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Task, make
from seqjax.zoo import LAYERS

LENGTH, CHANCE = 12, 0.25
TASK = make("selective_copy", symbols=4, memorised=1)

# Options without which a row cannot do it, or does by luck.
FITTING = {
    # They normalise the few channels all goes through, and of 2 that leaves a sign: a quarter of
    # the features, as published.
    "sru_pp": dict(attention=4),
    # And a choice of decays, drawn at random; the gate, which is all there is beside, as published.
    "gss": dict(reduced=4, hidden=64, state=32),
    # The memory is in the dynamics of the units, 3 of which have none as long as this, and the
    # released units of LTC none as long as 12 steps without the LSTM; a wave has to run as long.
    "ltc": dict(hidden=16, mixed_memory=True),
    "ct_rnn": dict(hidden=16),
    "cfc": dict(hidden=16, units=32),
    "koopman_ae": dict(hidden=16, width=16, forcing=0.1),
    "wave_rnn": dict(sites=16, channels=4, activation="relu"),
    # A block is all of its model, with no MLP behind it: with 2 heads it gets to 0.71.
    "srwm": dict(heads=4),
    # Gated by itself h is read as its square, and what Xavier's rule lets fade is not seen at all.
    "e33": dict(recurrent_init="orthogonal"),
    # With rectified features all of a head's query may start at 0, and stay there: then rounding
    # decides what is learned.
    "relit": dict(eta=4, f="elu+1"),
    # To see the whole sequence, which two blocks of two taps do not; a few channels as it starts,
    # with weights of 0.01, are few paths.
    "tcn": dict(channels=(16, 16, 16), width=3),
    # The whole sequence, and no products of pairs: they are of 192 features.
    "nvar": dict(delay=LENGTH, order=1),
    # Neurons that see the inputs, and steps in which a potential may cross its threshold.
    "liquid_state_machine": dict(hidden=64, dt=0.01, trace=0.1, input_density=1.0),
    # What the cache drops is a choice that no gradient sees: the paper trains with room for all.
    "tova_msrnn": dict(size=LENGTH),
    # Published for a width of hundreds, a start at 0.02 gives scores of 2e-4 here, squared, and a
    # gradient far below the epsilon of Adam; MEGA's smooth form of the square starts at 0.006.
    "gau": dict(weights="laplace"),
    # Segments shorter than the sequence, so that the memory is what it takes.
    **{
        name: dict(length=4)
        for name in ("armt", "block_recurrent", "infini_transformer", "rmt", "tlb")
    },
    "compressive_transformer": dict(length=2, memory=2, compressed=4),
    # Without a gate it is luck whether 2 memory tokens carry anything 12 steps far: 4, its default.
    "smt_memory_rnn": dict(memory=4),
}


def options(name: str) -> dict:
    """What the layer is built with."""
    tiny = dict(LAYERS[name].smoke)
    sight = {key: LENGTH for key in ("length", "window") if key in tiny}
    return tiny | sight | FITTING.get(name, {})


def learn(
    name: str, *, updates: int = 300, batch: int = 32, rate: float = 1e-2, seed: int = 0
) -> float:
    """The accuracy on the last tenth of `updates` batches, each before it is learned from."""
    config = ModelConfig(layer=(LayerConfig(name, options(name)),), features=16, depth=1)
    model = Model(config, TASK.spec, rngs=nnx.Rngs(seed))
    right = fit(model, TASK, LENGTH, updates=updates, batch=batch, rate=rate)[1]
    return float(right[-(updates // 10) :].mean())


def fit(
    model: Model, task: Task, length: int, *, updates: int, batch: int, rate: float
) -> tuple[Model, jax.Array]:
    """The model after so many updates, and its accuracy [updates] on each batch before it is
    learned from, of a task with one target, at the end."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    # Nearly all of the time is compiling: of one vector, and of sequences made before.
    flat, unravel = ravel_pytree(params)
    data = task.sample(jax.random.key(1), updates * batch, length)
    x, y = data.x.reshape(updates, batch, length), data.y[:, -1].reshape(updates, batch)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, updates))
    )

    def loss(flat, x, y):
        logits = nnx.merge(graph, unravel(flat), rest)(x)[0][:, -1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses.mean(), jnp.mean(predicted(logits).astype(y.dtype) == y)

    @jax.jit
    def run(flat, x, y):
        def update(carry, now):
            flat, moments = carry
            slope, right = jax.grad(loss, has_aux=True)(flat, *now)
            change, moments = optimiser.update(slope, moments, flat)
            return (optax.apply_updates(flat, change), moments), right

        (flat, _), right = jax.lax.scan(update, (flat, optimiser.init(flat)), (x, y))
        return flat, right

    flat, right = run(flat, x, y)
    return nnx.merge(graph, unravel(flat), rest), right


def main(names: list[str]) -> None:
    print(f"accuracy; chance {CHANCE}")
    for name in names or LAYERS:
        began = process_time()
        print(f"{name:24}{learn(name):6.2f}   {process_time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(words("layer", LAYERS))
