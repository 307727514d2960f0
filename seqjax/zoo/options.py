"""What the options of layers may be: an option of one name has one range, wherever it stands.

Types are those of the constructors' annotations. A whole number is a `SIZE` unless it stands in
`COUNTS`; every other number stands in `NUMBERS`. A `Range` in the annotation goes before both.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from math import inf, tau as TURN
from typing import Annotated, Any

from seqjax.core.ranges import Range, check, number

ANY, SHARE, POSITIVE, NOT_NEGATIVE = Range(), Range(0, 1), Range(above=0), Range(0)
BELOW_1 = Range(0, below=1)

# Upper ends are far above what is of use: beyond them nothing would be built in hours.
SIZE = Range(1, 2**20)
COUNTS: dict[str, Range] = {
    # may be 0: what they count is left out, or the first one
    **dict.fromkeys(("attention_at", "deep", "expansion", "feed_forward", "feedback", "ff",
                     "first_scale", "keep_first", "masks", "memory", "negative", "non_recurrent",
                     "norm_groups", "persistent", "r"), Range(0, SIZE.high)),
    # squared: matrices from state to state
    **dict.fromkeys(("modes", "ndim", "order", "state"), Range(1, 2**13)),
    # built or run one after the other
    **dict.fromkeys(("blocks", "degree", "depth", "experts", "iterations", "levels", "n_h",
                     "rounds", "substeps", "unfolds", "updates"), Range(1, 1000)),
}  # fmt: skip
NUMBERS: dict[str, Range] = {
    "add_noise": NOT_NEGATIVE,
    "alpha": ANY,  # a factor
    "balance": NOT_NEGATIVE,  # weight of a loss
    "base": POSITIVE,  # of rotary angles
    "beta": ANY,  # of a gate, against another; of what is antisymmetric; an inverse temperature
    "bias_scale": NOT_NEGATIVE,  # of random biases
    "bound": POSITIVE,  # of the size of recurrent weights
    "cell_clip": POSITIVE,
    "cell_rate": BELOW_1,  # of zoneout
    "chrono": Range(2),  # longest time scale, in steps
    "clamp": ANY,  # of the logarithm of what slots take
    "clip": POSITIVE,  # of a state
    "d": ANY,  # of a correction
    "decay_max": POSITIVE,
    "decay_min": POSITIVE,
    "density": Range(above=0, high=1),
    "depth": SHARE,  # of a block in its model: 0 the first, 1 the last
    "dropout": BELOW_1,
    "dt": POSITIVE,  # time steps
    "dt_limit": Range(0, inf),
    "dt_max": POSITIVE,
    "dt_min": POSITIVE,
    "eps": NOT_NEGATIVE,
    "epsilon": NOT_NEGATIVE,  # a damping
    "eta_base": POSITIVE,  # inner learning rate
    "expansion": NOT_NEGATIVE,  # of a feed-forward part, as a multiple; 0: none, where it may be
    "fast_decay": POSITIVE,  # where a window falls to its target, as a share of the length
    "feedback_scale": ANY,
    "floor": NOT_NEGATIVE,
    "forcing": SHARE,  # of a state by the input
    "forget_bias": ANY,
    "frequency": ANY,
    "gain": POSITIVE,
    "gamma": NOT_NEGATIVE,  # a restoring force
    "gamma_A": ANY,  # what moves eigenvalues to the left
    "gamma_W": ANY,
    "gate_bias": ANY,
    "gate_cap": POSITIVE,
    "head_eps": NOT_NEGATIVE,
    "highway_bias": ANY,
    "init_std": NOT_NEGATIVE,
    "input_density": Range(above=0, high=1),
    "input_scale": ANY,
    "inter_scale": ANY,
    "key_eps": NOT_NEGATIVE,
    "leak": Range(above=0, high=1),
    "longest": Range(2),  # time scale, in steps
    "lower_bound": BELOW_1,  # of a forget gate
    "max_period": POSITIVE,
    "max_phase": Range(0, TURN),
    "min_period": POSITIVE,
    "mult_noise": SHARE,
    "norm_eps": NOT_NEGATIVE,
    "norm_offset": ANY,  # added to the weights of a norm
    "pace": POSITIVE,  # of a window over a source
    "r_max": Range(above=0, high=1),  # ring of eigenvalues
    "r_min": BELOW_1,
    "rate": BELOW_1,  # of zoneout
    "rates": ANY,
    "recurrent_scale": NOT_NEGATIVE,
    "refractory": NOT_NEGATIVE,  # in seconds
    "rotary_fraction": SHARE,
    "scale": POSITIVE,  # of scores
    "scales": ANY,
    "shift": ANY,
    "slope": POSITIVE,  # of a surrogate
    "slow_decay": POSITIVE,
    "softcap": POSITIVE,  # of scores
    "spectral_radius": NOT_NEGATIVE,
    "step_rescale": POSITIVE,  # of time steps
    "strength": ANY,  # of a second path through time
    "synapse": NOT_NEGATIVE,  # in seconds
    "target": Range(above=0, below=1),  # of a window
    "tau": POSITIVE,  # temperature
    "tolerance": POSITIVE,  # of the error of a step
    "theta": POSITIVE,  # window of a delay, in steps
    "temperature": POSITIVE,  # of scores
    "threshold": POSITIVE,  # of a potential
    "trace": BELOW_1,  # of state units
    "weight_drop": BELOW_1,
    "zoneout": BELOW_1,
}


def declared(name: str, hint: Any) -> Any:
    """The annotation of the option `name`, with its range."""
    whole = number(hint) is int
    ranges = COUNTS if whole else NUMBERS
    return Annotated[hint, ranges.get(name, SIZE if whole else ANY)]


def hints(cls: type) -> dict[str, Any]:
    """option -> annotation with its range, of the constructor of a layer."""
    found = typing.get_type_hints(cls.__init__, include_extras=True)
    left_out = ("features", "rngs", "return")
    return {name: declared(name, hint) for name, hint in found.items() if name not in left_out}


def check_options(layer: str, cls: type, options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that is not what it is declared to be."""
    known = hints(cls)
    for name, value in options.items():
        check(value, known[name], f"option {name!r} of layer {layer!r}")
    parameters = inspect.signature(cls.__init__).parameters
    for low in (name for name in known if name.endswith("_min")):
        high = low.removesuffix("min") + "max"
        ends = [options.get(name, parameters[name].default) for name in (low, high)]
        if ends[0] > ends[1]:
            raise ValueError(
                f"option {low!r} of layer {layer!r} must be at most {high!r}, which is {ends[1]}, "
                f"got {ends[0]}"
            )
