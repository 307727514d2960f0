"""Goldens of the losses of supervised memory training: the official code's numbers."""

import jax

from seqjax.layers.transformer import normalise_memory
from seqjax.learn.smt import smt_loss, uniformity_loss, window


def normalised(inputs, meta):
    return {"z": normalise_memory(inputs["z"])}


def uniformity(inputs, meta):
    return {"loss": uniformity_loss(inputs["z"], t=meta["t"])}


def losses(inputs, meta):
    config = meta["config"]
    context, horizon = config["Tc"], config["Tf"]
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
        gamma=config["gamma"],
        detach=config["detach_rnn"],
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


ADAPTERS = {
    "smt_normalize_mem": {"smt": normalised},
    "smt_uniformity_loss": {"smt": uniformity},
    "smt_forward_losses": {"smt": losses},
}
