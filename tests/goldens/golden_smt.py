"""Goldens of the losses of supervised memory training: the official code's numbers."""

import jax
import jax.numpy as jnp
from jax import lax

from seqjax.learn.smt import DMTWeights, Weights, dmt_loss, smt_loss, uniformity_loss, window
from seqjax.learn.smt_students import roll
from seqjax.nn.transformer import normalise_memory

LOSSES = {"dec": "decoding", "dyn": "dynamics", "unif": "uniformity", "readout": "readout"}


def normalised(inputs, meta):
    return {"z": normalise_memory(inputs["z"])}


def uniformity(inputs, meta):
    return {"loss": uniformity_loss(inputs["z"], t=meta["t"])}


def weights_of(config, kind):
    """The published ones, and what the case has instead."""
    found = {ours: f"coef_{theirs}" for theirs, ours in LOSSES.items()}
    return kind(**{name: config[coef] for name, coef in found.items() if coef in config})


def losses(inputs, meta):
    config = meta["config"]
    context, horizon = config["Tc"], config["Tf"]
    config.expect(T=inputs["x"].shape[1])
    cut = jax.vmap(lambda x, y: window(x, y, context, context, horizon))(inputs["x"], inputs["y"])
    m, following, predicted = (
        inputs[name].reshape(len(inputs["x"]), config["mem_tokens"], -1)
        for name in ("m_now", "m_next", "m_next_pred")
    )
    found = smt_loss(
        m,
        following,
        predicted,
        inputs["logits"],
        cut.targets,
        weights=weights_of(config, Weights),
        gamma=config["gamma"],
        detach=config["detach_rnn"],
        over_tokens=config["unif_over_tokens"],
    )
    return {
        "x_ctx": cut.context,
        "x_fut": cut.future,
        "y_fut": cut.targets,
        "x_in": cut.future[:, :1],
        "loss_decoder": found.decoding,
        "loss_decoder0": found.first,
        "loss_dyn": found.dynamics,
        "loss_unif": found.uniformity,
        "loss": found.total,
    }


def imitation(inputs, meta):
    """The reference's student reads out its memory z [d], one token, by W."""
    config, x, y, m = meta["config"], inputs["x"], inputs["y"], inputs["z_enc"]
    context, horizon, count, every = (config[name] for name in ("Tc", "Tf", "Td", "k"))
    config.expect(T=x.shape[1])

    def student(z, token):
        return jnp.tanh(z @ inputs["A"] + inputs["E"][token])

    def one(m, x, y):
        along = x[context : context + count - 1]  # its detach_rnn means the opposite
        own = roll(student, m[0], along, detach=not config["detach_rnn"])
        read = lax.stop_gradient(own) if config["detach_readout"] else own
        starts = jnp.arange(0, count, every)
        futures = jax.vmap(lambda t: window(x, y, context + t, 1, horizon).targets)(starts)
        return own, read @ inputs["W"], window(x, y, context, 1, count).targets, futures

    own, logits, targets, futures = jax.vmap(one)(m, x, y)
    found = dmt_loss(
        m[:, :, None],
        own[:, ::every, None],
        logits,
        targets,
        (inputs["logits"], futures),
        weights=weights_of(config, DMTWeights),
    )
    return {
        "z_rnn": own[:, ::every],
        "loss_readout": found.readout,
        "loss_decoder": found.decoding,
        "loss_decoder0": found.first,
        "loss_dyn": found.dynamics,
        "loss_unif": found.uniformity,
        "loss": found.total,
    }


ADAPTERS = {
    "smt_normalize_mem": {"smt": normalised},
    "smt_uniformity_loss": {"smt": uniformity},
    "smt_forward_losses": {"smt": losses},
    "smt_dmt_losses": {"dmt": imitation},
}
