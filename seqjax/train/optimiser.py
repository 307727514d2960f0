"""Optimisers by name, their schedule, and what groups of parameters have of their own.

The learning rate of step n, counted from 0, at a share f in [0, 1] of the run is

    peak * min(1, (n + 1) / warmup) * (final + (1 - final) * shape(f))

The share is handed in by the caller: n / steps, or of the time there is. A parameter w moves by

    w -= rate * (direction + weight_decay * w)

with the direction of one of OPTIMISERS, which are those of optax: AdamW (arXiv:1711.05101) is that
of "adamw", Muon that of "muon" for matrices and of Adam for all else. A group has a share of the
rate, and a decay, of its own: time steps and decays as S4, S5, LRU and Mamba train them; with
`paper` what the layers declare, `Layer.trained`. Averages of weights: `seqjax.train.average`.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import nnx
from optax.contrib import (
    MuonDimensionNumbers,
    scale_by_ademamix,
    scale_by_adopt,
    scale_by_simplified_ademamix,
)

from seqjax.core.common import unknown
from seqjax.layers.constrained.skew import orthonormal, stiefel_step
from seqjax.nn import Precise
from seqjax.nn.base import Layer, Orthogonal, option
from seqjax.train.config import GroupConfig, OptimiserConfig

Decays = Mapping[str, bool]  # which parameters, by name, are matrices that should be small
SHAPES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "cosine": lambda f: 0.5 * (1 + jnp.cos(jnp.pi * f)),
    "linear": lambda f: 1 - f,
    "constant": jnp.ones_like,
}


def sgd(momentum: float = 0.0, nesterov: bool = False) -> optax.GradientTransformation:
    """The gradient, or with momentum m <- momentum m + gradient."""
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


def adafactor(
    decay_rate: float = 0.8, min_dim_size_to_factor: int = 128, clipping_threshold: float = 1.0
) -> optax.GradientTransformation:
    """Factored second moments, updates clipped, relative to the parameter (arXiv:1804.04235)."""
    return optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=decay_rate, min_dim_size_to_factor=min_dim_size_to_factor
        ),
        optax.clip_by_block_rms(clipping_threshold),
        optax.scale_by_param_block_rms(),
    )


def muon(
    beta: float = 0.95,
    ns_steps: int = 5,
    nesterov: bool = True,
    adaptive: bool = False,
    consistent_rms: float | None = None,
    adam_b1: float = 0.9,
    adam_b2: float = 0.999,
    *,
    decays: Decays,
) -> optax.GradientTransformation:
    """Orthogonalised momentum for matrices that decay, Adam for the rest, embeddings and heads."""
    inner = {name for name, of in decays.items() if of and not name.startswith(("embed", "head"))}
    last_two = MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)

    def matrices(params: Any) -> Any:
        axes = {name: getattr(p, "ndim", 0) - _stacked(name) for name, p in params.items()}
        return {name: last_two if n == 2 and name in inner else None for name, n in axes.items()}

    options: dict[str, Any] = dict(
        nesterov=nesterov, adaptive=adaptive, consistent_rms=consistent_rms
    )
    options |= dict(adam_b1=adam_b1, adam_b2=adam_b2, muon_weight_dimension_numbers=matrices)
    step = optax.contrib.muon(1.0, beta=beta, ns_steps=ns_steps, **options)
    return optax.chain(step, optax.scale(-1.0))


def _stacked(name: str) -> bool:
    """Whether a parameter has one axis more than its layer: the blocks of a model are stacked."""
    return "blocks" in name.split(".")[:2]  # of the model, or of its encoder


# Name -> direction(**options), with the options and defaults of optax.
OPTIMISERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": optax.scale_by_adam,
    "sgd": sgd,
    "lion": optax.scale_by_lion,
    "adafactor": adafactor,
    "muon": muon,
    "rmsprop": optax.scale_by_rms,
    "adagrad": optax.scale_by_rss,
    "adadelta": optax.scale_by_adadelta,
    "adamax": optax.scale_by_adamax,
    "nadam": partial(optax.scale_by_adam, nesterov=True),
    "radam": optax.scale_by_radam,
    "amsgrad": optax.scale_by_amsgrad,
    "adabelief": optax.scale_by_belief,
    "adan": optax.scale_by_adan,
    "novograd": optax.scale_by_novograd,
    "yogi": optax.scale_by_yogi,
    "sm3": optax.scale_by_sm3,
    "adopt": scale_by_adopt,
    "ademamix": scale_by_ademamix,
    "simplified_ademamix": scale_by_simplified_ademamix,
}


def direction_of(config: OptimiserConfig, decays: Decays) -> optax.GradientTransformation:
    """Raises ValueError for a name or an option that there is not."""
    make = OPTIMISERS[option("optimiser", config.name, OPTIMISERS)]
    known = set(inspect.signature(make).parameters)
    given: dict[str, Any] = dict(config.options)
    for name in given:
        if name not in known - {"decays"}:
            raise ValueError(unknown(f"option of optimiser {config.name!r}:", name, known))
    betas = {"b1": config.beta1, "b2": config.beta2}
    if config.name == "adamw":
        given = betas | given
    elif list(betas.values()) != [OptimiserConfig.beta1, OptimiserConfig.beta2]:
        raise ValueError(f"optimiser.beta1 and beta2 are of adamw; {config.name} has options")
    if "decays" in known:
        given["decays"] = decays
    try:
        return make(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimiser.options of {config.name}: {error}") from None


def learning_rate(config: OptimiserConfig, step: jax.Array, share: jax.Array) -> jax.Array:
    shape = SHAPES[option("schedule", config.schedule, SHAPES)]
    warm = jnp.minimum((step + 1).astype(share.dtype) / max(1, config.warmup), 1)
    return config.learning_rate * warm * (config.final + (1 - config.final) * shape(share))


def build(
    config: OptimiserConfig, decays: Decays, groups: Sequence[GroupConfig] = ()
) -> optax.GradientTransformation:
    """The optimiser up to its learning rate: the update is -learning_rate times what it gives.

    decays: which of the parameters have weight decay, where no group decides it. groups: before
    those of the config. Its `update` takes key and step, for the noise. Raises ValueError for
    unknown names and options, and a group that is the name of nothing or changes nothing.
    """
    decay = {name: config.weight_decay * of for name, of in decays.items()}
    rate = dict.fromkeys(decays, 1.0)
    for group in (*groups, *config.groups):
        names = fnmatch.filter(decays, group.name)
        if not names:
            raise ValueError(unknown("parameter of optimiser.groups", group.name, decays))
        if (group.rate, group.decay) == (1.0, None):
            raise ValueError(
                f"optimiser.groups: {group.name!r} has no rate and no decay of its own"
            )
        rate |= dict.fromkeys(names, group.rate)
        if group.decay is not None:
            decay |= dict.fromkeys(names, group.decay)
    steps = [
        optax.clip(config.clip_value) if config.clip_value else None,
        optax.clip_by_global_norm(config.clip),
        noise(config.noise) if config.noise else None,
        direction_of(config, decays),
        *(
            optax.add_decayed_weights(value, {name: decay[name] == value for name in decay})
            for value in sorted(set(decay.values()) - {0.0})
        ),
        _scaled(rate) if set(rate.values()) != {1.0} else None,
    ]
    chained = optax.chain(*(step for step in steps if step is not None))
    return optax.with_extra_args_support(chained)


def noise(eta: float) -> optax.GradientTransformationExtraArgs:
    """Gaussian noise of variance eta / (1 + step)^0.55 on the gradient (arXiv:1511.06807)."""

    def update(updates, state, params=None, **beside: Any):
        deviation = jnp.sqrt(eta / (1 + beside["step"]) ** 0.55)
        drawn = optax.tree.random_like(beside["key"], updates, jax.random.normal)
        return optax.tree.add_scale(updates, deviation, drawn), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def orthogonal(model: nnx.Module) -> set[str]:
    """The names of the parameters that are `Orthogonal`."""
    found = nnx.to_flat_state(nnx.state(model, Orthogonal))
    return {".".join(map(str, path)) for path, _ in found}


def moved(params: Any, changes: Any, turned: Container[str] = ()) -> Any:
    """Parameters plus changes, by name; those of `turned` stay orthogonal.

    Of Q and a change -G it is the Q of arXiv:1611.00035 eq. 8, 9, which to first order is what
    Q - G has of it along the orthogonal matrices. Rounding, which adds up over steps, is taken
    out each time.
    """

    def turn(Q: jax.Array, change: jax.Array) -> jax.Array:
        if Q.ndim > 2:  # of stacked blocks
            return jax.vmap(turn)(Q, change)
        return orthonormal(stiefel_step(Q, -change, 1.0))

    return {
        name: turn(p, changes[name]) if name in turned else (p + changes[name]).astype(p.dtype)
        for name, p in params.items()
    }


def groups_of_papers(model: nnx.Module, names: Container[str]) -> tuple[GroupConfig, ...]:
    """What its layers declare (`Layer.trained`) of the parameters `names`.

    Raises ValueError if that is nothing.
    """
    found = [
        GroupConfig(name, *group)
        for path, module in nnx.iter_graph(model)
        if isinstance(module, Layer)
        for key, group in module.trained.items()
        if (name := ".".join(map(str, (*path, key)))) in names
    ]
    if not found:
        raise ValueError("optimiser.paper: no layer of the model declares groups of parameters")
    return tuple(found)


def described(groups: Sequence[GroupConfig]) -> list[str]:
    """A line for each rate and decay that groups have, with the names."""
    lines = []
    for rate, decay in sorted({(g.rate, g.decay) for g in groups}, key=str):
        names = " ".join(g.name for g in groups if (g.rate, g.decay) == (rate, decay))
        decays = {None: "", 0.0: ", no decay"}.get(decay, f", weight decay {decay}")
        lines.append(f"{names}: {rate:g} of the learning rate{decays}")
    return lines


def _scaled(shares: Mapping[str, float]) -> optax.GradientTransformation:
    def scaled(updates: Any, _: Any) -> Any:
        return {name: shares[name] * update for name, update in updates.items()}

    return optax.stateless(scaled)


def decays(path: tuple, variable: nnx.Variable) -> bool:
    """Whether a parameter is a matrix that should be small: no scale, bias, decay or time step."""
    stacked = _stacked(".".join(map(str, path)))
    return not isinstance(variable, Precise) and variable.get_value().ndim - stacked > 1
