"""What a run is: frozen dataclasses, every field with its range and its meaning beside it.

A config is a value. Experiments are configs, the command line edits one, and a run saves the one
it was made from. Nothing heavy is imported here; names are looked up in the tables (`LAYERS`,
`TASKS`) and options bound against the constructors before anything runs.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from seqjax.core.common import unknown
from seqjax.core.ranges import (
    Count,
    Fraction,
    NotNegative,
    Positive,
    Range,
    Seed,
    check,
    check_options,
)
from seqjax.stacks.config import (
    LayerConfig,
    ModelConfig,
    Options,
    parse_pattern,
    repeated,
    show_options,
)

if TYPE_CHECKING:
    from seqjax.tasks import Task


@dataclass(frozen=True)
class TaskConfig:
    name: str = "state_tracking"  # a name of TASKS (`seqjax list`)
    options: Options = field(default_factory=dict)  # its options
    batch: Count = 32  # sequences per step
    length: Count = 64  # time steps per sequence; of rows of your own those that they have
    evaluation_batches: Count | None = 8  # validation batches; None: all, as of rows of your own
    evaluation_length: Count | None = None  # their length; None: as in training


@dataclass(frozen=True)
class GroupConfig:
    """Parameters with a name of such a pattern, as of files: "*.log_dt", "blocks.0.*"."""

    name: str
    rate: NotNegative = 1.0  # share of the learning rate
    decay: NotNegative | None = None  # weight decay; None: as it is without the group


def _parse_groups(words: list[str]) -> tuple[GroupConfig, ...]:
    known = [f.name for f in fields(GroupConfig)][1:]
    groups = parse_pattern(words, "groups are patterns of names, each followed by KEY=VALUE")
    for group in groups:
        for key in group.options:
            if key not in known:
                raise ValueError(f"a group has {' and '.join(known)}, got {key!r}")
    return tuple(GroupConfig(group.name, **group.options) for group in groups)


def _show_groups(groups: tuple[GroupConfig, ...]) -> list[str]:
    return [
        word
        for group in groups
        for word in (group.name, f"rate={group.rate}", f"decay={group.decay}")
    ]


@dataclass(frozen=True)
class Choice:
    """A row of a table, with its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _parse_choice(words: list[str]) -> Choice | None:
    if words == ["None"]:
        return None
    one, *more = parse_pattern(words, "one name, followed by its options KEY=VALUE")
    if more:
        raise ValueError(f"one name, followed by its options KEY=VALUE, got {more[0].name!r} too")
    return Choice(one.name, one.options)


def show_choice(chosen: Choice | None) -> list[str]:
    """The words of the command line that mean it."""
    return ["None"] if chosen is None else [chosen.name, *show_options(chosen.options)]


Chosen = Annotated[
    Choice | None,
    PrimitiveConstructorSpec(
        "*", "NAME [KEY=VALUE ...]|None", _parse_choice,
        lambda x: x is None or isinstance(x, Choice), show_choice,
    ),
]  # fmt: skip


def check_choice(
    kind: str, table: Mapping[str, Any], chosen: Choice, given: Sequence[str] = ()
) -> Any:
    """The row of the table, a function of its options and of what is `given`.

    Raises ValueError for names, options and values that there are not.
    """
    from seqjax.nn.base import option

    function = table[option(kind, chosen.name, table)]
    known = [name for name in signature(function).parameters if name not in given]
    for name in chosen.options:
        if name not in known:
            raise ValueError(unknown(f"option of {kind} {chosen.name!r}:", name, known))
    check_options(chosen.options, function, f"{kind} {chosen.name}: ")
    return function


Groups = Annotated[
    tuple[GroupConfig, ...],
    PrimitiveConstructorSpec(
        "*", "PATTERN [rate=SHARE] [decay=VALUE] ...", _parse_groups,
        lambda x: isinstance(x, tuple), _show_groups,
    ),
]  # fmt: skip


@dataclass(frozen=True)
class OptimiserConfig:
    name: str = "adamw"  # of OPTIMISERS: sgd, lion, adafactor, muon ...
    options: Options = field(default_factory=dict)  # its options, as momentum=0.9
    learning_rate: NotNegative = 3e-3  # at its peak
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # its decay, after the warm-up
    warmup: Annotated[int, Range(0)] = 50  # steps of linear warm-up
    final: Annotated[float, Range(0, 1)] = 0.1  # learning rate at the end, a share of the peak
    weight_decay: NotNegative = 0.1  # of matrices; not of norms, biases and Precise parameters
    groups: Groups = ()  # parameters with rates and decays of their own; of several the last
    paper: bool = False  # rates and decays as the papers of the layers have them; groups go first
    clip: Positive = 1.0  # largest global norm of the gradient
    clip_value: Positive | None = None  # largest absolute value in it; None: any
    noise: NotNegative = 0.0  # eta of noise on it, of variance eta / (1 + step)^0.55
    average: Chosen = None  # of AVERAGES, of the weights: ema, polyak, nt_asgd, schedule_free
    beta1: Fraction = 0.9  # of adamw: decay of the mean of the gradient
    beta2: Fraction = 0.99  # of adamw: decay of the mean of its square
    accumulate: Count = 1  # micro-batches of a step, one after the other; divides the batch


@dataclass(frozen=True)
class TrainConfig:
    steps: Count = 1000  # of the optimiser; with a learner batches, each of some windows
    max_seconds: Positive | None = None  # end earlier after so long; the schedule follows the clock
    seed: Seed = 0  # of parameters, data and dropout
    learner: Chosen = None  # of LEARNERS, as snap n=2; None: backpropagation through the batch
    window: Count | None = None  # time steps of an update by a learner, 1: online; None: all
    # fading factor of means of the metrics so far, prequential_*; 1: none fades; None: none
    prequential: Annotated[float, Range(above=0, high=1)] | None = None
    freeze: tuple[str, ...] = ()  # parameters that are not trained, as "embed*" or "tail.0.*"
    evaluate_every: Count = 200  # steps between evaluations
    patience: Count | None = None  # stop after so many evaluations without a better one
    save_every: Count = 200  # steps between checkpoints
    max_to_keep: Count = 2  # latest checkpoints kept, beside the best one
    keep_every: Count | None = None  # steps whose multiples are saved and kept for good
    best_by: str = "loss"  # the validation metric that the best checkpoint is chosen by
    best_is: Literal["lowest", "highest"] = "lowest"  # of that metric
    log_every: Count = 20  # steps between lines of metrics
    # where loss or gradient are not finite: an error, no update, or back to the last checkpoint
    # and past the batches since (`seqjax.train.guard`)
    bad_step: Literal["stop", "skip", "rewind"] = "stop"
    # the same where they are so many standard deviations above their mean, 6 is usual; None: never
    spike: Positive | None = None
    bad_in_a_row: Count = 10  # bad steps one after the other: more are an error


@dataclass(frozen=True)
class MeshConfig:
    data: Count = 1  # so many devices share the examples of a batch
    fsdp: Count = 1  # the same, and each holds a share of the parameters, which is gathered in use
    tensor: Count = 1  # hidden units and vocabulary are split over so many
    sequence: Count = 1  # and time steps, of layers that allow it, `sequence_parallel`
    rules: Options = field(default_factory=dict)  # other mesh axes, as hidden=None features=tensor


@dataclass(frozen=True)
class Config:
    task: TaskConfig = TaskConfig()
    model: ModelConfig = ModelConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    train: Annotated[TrainConfig, arg(name="")] = TrainConfig()  # flags without a prefix
    mesh: MeshConfig = MeshConfig()


def check_config(config: Config, task: Task | None = None) -> None:
    """Raise ValueError naming the first field that is not what it is declared to be.

    task: one that is given in place of the name and the options in `config.task`.
    """
    import jax

    from seqjax.tasks import check_task
    from seqjax.train.average import averaging
    from seqjax.train.layout import rules_of
    from seqjax.train.learning import check_learner
    from seqjax.train.optimiser import direction_of
    from seqjax.zoo import factory

    check(config, Config, "")
    if config.model.compute == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError("model.compute=float64 needs JAX_ENABLE_X64=1 in the environment")
    direction_of(config.optimiser, {})
    averaging(config.optimiser)
    check_learner(config)
    if task is None:
        check_task(config.task.name, config.task.options)
    for layer in (*config.model.layer, *config.model.encoder):
        factory((layer.name, layer.options))
    if config.model.depth < len(config.model.layer):
        raise ValueError(
            f"model.depth must be at least the {len(config.model.layer)} layers of the pattern, "
            f"got {config.model.depth}"
        )
    rules_of(config.mesh)
    if config.task.batch % (examples := config.mesh.data * config.mesh.fsdp):
        raise ValueError(
            f"mesh.data * mesh.fsdp must divide task.batch={config.task.batch}, got {examples}"
        )
    if config.task.batch % config.optimiser.accumulate:
        raise ValueError(
            f"optimiser.accumulate must divide task.batch={config.task.batch}, "
            f"got {config.optimiser.accumulate}"
        )


def task_of(config: Config, task: Task | None = None) -> Task:
    """The task of the config, or the one given, its tokens as many as the model knows."""
    from seqjax.tasks import make

    task = task or make(config.task.name, **config.task.options)
    return replace(task, spec=task.spec.widened(config.model.vocabulary))


def fitted(config: Config, task: Task | None = None) -> Config:
    """The config with what own data decide, where it has the defaults, and with the features that
    have `model.parameters`, where it is given."""
    from seqjax.stacks import summary

    check_config(config, task)
    task, plain = task_of(config, task), TaskConfig()
    decided = {
        name: value for name, value in task.decides.items()
        if getattr(config.task, name) == getattr(plain, name)
    }  # fmt: skip
    config = replace(config, task=replace(config.task, **decided))
    if config.model.parameters is None:
        return config
    return replace(config, model=summary.fitted(config.model, task.spec))


def smoke(config: Config) -> Config:
    """The same run, tiny and two steps long: to see that it runs at all."""
    from seqjax.nn.base import option
    from seqjax.tasks import TASKS
    from seqjax.zoo import LAYERS

    entry = TASKS[option("task", config.task.name, TASKS)]
    task = replace(
        config.task, options={**config.task.options, **entry.smoke}, batch=2,
        length=entry.length or config.task.length, evaluation_batches=1, evaluation_length=None,
    )  # fmt: skip
    layer, encoder = (
        tuple(
            LayerConfig(
                one.name, {**one.options, **LAYERS[option("layer", one.name, LAYERS)].smoke}
            )
            for one in pattern
        )
        for pattern in (config.model.layer, config.model.encoder)
    )
    model = replace(
        config.model, layer=layer, features=4, parameters=None, depth=len(layer),
        encoder=encoder, encoder_depth=len(encoder) or None, bridge_heads=2,
    )  # fmt: skip
    optimiser = replace(config.optimiser, accumulate=min(config.optimiser.accumulate, 2))
    window = None if config.train.window is None else 1
    train = replace(
        config.train,
        window=window,
        steps=2,
        max_seconds=None,
        evaluate_every=2,
        save_every=2,
        log_every=1,
    )
    return Config(task, model, optimiser, train)


def from_dict(cls: Any, data: Any, name: str = "", unknown: list[str] | None = None) -> Any:
    """The dataclass `cls` from what `dataclasses.asdict` and JSON made of it.

    unknown: takes the names of fields that the dataclass does not have.
    """
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    if origin in (typing.Union, types.UnionType) and is_dataclass(args[0]):
        return None if data is None else from_dict(args[0], data, name, unknown)
    if origin is tuple:
        items = tuple(from_dict(args[0], item, name, unknown) for item in data)
        return repeated(items) if args[0] is LayerConfig else items
    if isinstance(data, dict) and not is_dataclass(cls):  # options: JSON has no tuples
        return {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
    if not is_dataclass(cls):
        return data
    hints = typing.get_type_hints(cls)
    place = f"{name}." if name else ""
    if unknown is not None:
        unknown += [f"{place}{one}" for one in data if one not in hints]
    given = {
        f.name: from_dict(hints[f.name], data[f.name], place + f.name, unknown)
        for f in fields(cls) if f.name in data
    }  # fmt: skip
    return cls(**given)  # type: ignore[operator]
