"""How the loss falls with parameters, data, work and the depth of the work.

    L(N, D) = E + A / N^alpha + B / D^beta                            Hoffmann et al., 2203.15556

of models of N parameters that have seen D tokens. log L is fitted by Huber's loss of the residuals
(their eq. 3 and appendix D.2, delta = 1e-3), from a grid of starts; bands are quantiles over
points drawn again with replacement. Of C = c N D operations the best share is

    N* = G (C / c)^(beta / (alpha + beta)),  D* = C / (c N*),  G^(alpha + beta) = alpha A / (beta B)

Points along one run, at a constant rate, stand in place of theirs, of one run for each D whose rate
has come down: losses lie a little higher, early points of large models the most.

longest     the longest chain of operations that wait for each other in a program, one each, a sum
            of n numbers log2 n: 2 T of a diagonal recurrence as a loop, O(log T) as an associative
            scan. Times the updates it is what training costs in sequence, whatever is done at once
            (the SeqFLOPs of 2606.06479, figure 6, here without the width of each operation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import ceil, log2, prod
from typing import Any, Literal, NamedTuple

import numpy as np
from jax import numpy as jnp
from jax.extend.core import Jaxpr, Literal as Constant, jaxprs_in_params

from seqjax.core.ranges import Count, NotNegative, Seed
from seqjax.stacks.config import LayerConfig, ModelConfig, show_pattern
from seqjax.stacks.summary import FREE
from seqjax.theory.finding import Finding, Layers
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CLASSIC = tuple(map(LayerConfig, ("min_gru", "lstm")))
DELTA = 1e-3  # where Huber's loss of a residual of log L turns from square to straight
STARTS = tuple(product((0.3, 0.8), (0.3, 0.8), (0.3, 0.9)))  # alpha, beta, E over the least loss


class Law(NamedTuple):
    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def __call__(self, N: Any, D: Any) -> np.ndarray:
        N, D = np.asarray(N, float), np.asarray(D, float)
        return self.E + self.A * N**-self.alpha + self.B * D**-self.beta

    def best(self, ND: Any) -> tuple[np.ndarray, np.ndarray]:
        """N* and D* of that product of the two."""
        ND, both = np.asarray(ND, float), self.alpha + self.beta
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / both)
        N = G * ND ** (self.beta / both)
        return N, ND / N


def fit(N: Any, D: Any, loss: Any, *, near: Law | None = None) -> Law:
    """The law of losses [n] of N parameters [n] and D tokens [n].

    near: start there alone. Raises ValueError for fewer points than it has numbers, or for one N or
    one D, of which no exponent can be known.
    """
    N, D, loss = (np.asarray(v, float) for v in (N, D, loss))
    for name, v in (("N", N), ("D", D)):
        if len(np.unique(v)) < 2:
            raise ValueError(f"{name} must have two values at least, got {v[0]:g} alone")
    if len(N) < 5:
        raise ValueError(f"a law of 5 numbers takes as many losses at least, got {len(N)}")
    if not np.all(loss > 0):
        raise ValueError(f"losses must be above 0, got {loss.min():g}")
    from scipy.optimize import least_squares  # a fifth of a second, of every command's start

    n, d, least = np.log(N), np.log(D), float(loss.min())
    n0, d0 = n.mean(), d.mean()  # A and B where the points are: else they go with the exponents

    def parts(p: np.ndarray) -> np.ndarray:
        a, b, e, alpha, beta = p
        return np.stack([a - alpha * (n - n0), b - beta * (d - d0), np.full_like(n, e)])

    def residual(p: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce(parts(p)) - np.log(loss)

    def slope(p: np.ndarray) -> np.ndarray:
        each = parts(p)
        share = np.exp(each - np.logaddexp.reduce(each))
        return np.stack(
            [share[0], share[1], share[2], -share[0] * (n - n0), -share[1] * (d - d0)], axis=1
        )

    if near is None:
        rest = [np.log(max(1e-6, 0.5 * (1 - e))) + np.log(least) for *_, e in STARTS]
        starts = [
            [r, r, np.log(e * least), alpha, beta]
            for r, (alpha, beta, e) in zip(rest, STARTS, strict=True)
        ]
    else:
        at = np.log(near.A) - near.alpha * n0, np.log(near.B) - near.beta * d0
        starts = [[*at, np.log(near.E), near.alpha, near.beta]]
    bounds = [-30, -30, -30, 0, 0], [30, 30, np.log(least), 5, 5]
    found = min(
        (
            least_squares(
                residual, np.clip(start, *bounds), jac=slope,  # pyright: ignore
                bounds=bounds, loss="huber", f_scale=DELTA, x_scale=[1, 1, 1, 0.3, 0.3],
                max_nfev=400,
            )
            for start in starts
        ),
        key=lambda one: one.cost,
    )  # fmt: skip
    a, b, e, alpha, beta = found.x
    return Law(*map(float, (np.exp(e), np.exp(a + alpha * n0), np.exp(b + beta * d0), alpha, beta)))


def bootstrap(N: Any, D: Any, loss: Any, *, draws: int = 50, seed: int = 0) -> list[Law]:
    """Laws of the points, drawn again with replacement, that have two N and two D."""
    N, D, loss = (np.asarray(v, float) for v in (N, D, loss))
    near, draw, laws = fit(N, D, loss), np.random.default_rng(seed), []
    while len(laws) < draws:
        at = draw.integers(0, len(N), len(N))
        if len(np.unique(N[at])) > 1 and len(np.unique(D[at])) > 1:
            laws.append(fit(N[at], D[at], loss[at], near=near))
    return laws


def band(values: Sequence[Any], share: float = 0.9) -> np.ndarray:
    """[2, ...], between which that share of the values [draws, ...] lie."""
    tail = (1 - share) / 2
    return np.quantile(np.asarray(values, float), [tail, 1 - tail], axis=0)


# ---- depth --------------------------------------------------------------------------------------


def longest(jaxpr: Jaxpr) -> int:
    """The longest chain of operations from any input to any output.

    Loops are opened; a linear scan of the library is its associative form. Of branches the
    shallowest counts, as of those by platform; of a loop of unknown length one turn.
    """
    return int(np.max(paths(jaxpr), initial=0))


def paths(jaxpr: Jaxpr) -> np.ndarray:
    """The longest chain from each input to each output, [outputs, inputs + 1]; the last column is
    from what is constant, and -inf where there is none.

    Programs one after the other are products of such matrices, of maxima of sums.
    """
    width = len(jaxpr.invars) + 1
    nothing = np.full(width, -np.inf)
    constant = np.where(np.arange(width) == width - 1, 0.0, -np.inf)
    at = {v: np.where(np.arange(width) == n, 0.0, -np.inf) for n, v in enumerate(jaxpr.invars)}

    def when(v: Any) -> np.ndarray:
        return constant if isinstance(v, Constant) else at.get(v, constant)

    for eqn in jaxpr.eqns:
        given = np.array([when(v) for v in eqn.invars]).reshape(-1, width)
        at |= zip(eqn.outvars, _after(eqn, given, constant), strict=True)
    out = [when(v) for v in jaxpr.outvars]
    return np.array(out) if out else nothing[None]


def _then(M: np.ndarray, given: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Rows [outputs, width] of a program of these paths, whose inputs are there at `given`."""
    rows = np.concatenate([given, constant[None]])
    return np.max(M[:, :, None] + rows[None], axis=1)


def _after(eqn: Any, given: np.ndarray, constant: np.ndarray) -> np.ndarray:
    inside = [paths(one) for one in jaxprs_in_params(eqn.params)]
    name = eqn.primitive.name
    if name == "cond":
        index, given = given[0], given[1:]
        each = [np.maximum(_then(M, given, constant), index) for M in inside]
        return min(each, key=np.max)
    if name == "scan":
        fixed, carried = eqn.params["num_consts"], eqn.params["num_carry"]
        carry, ys = given[fixed : fixed + carried], None
        for _ in range(eqn.params["length"]):
            rows = np.concatenate([given[:fixed], carry, given[fixed + carried :]])
            out = _then(inside[0], rows, constant)
            carry, now = out[:carried], out[carried:]
            ys = now if ys is None else np.maximum(ys, now)
        empty = np.full((len(eqn.outvars) - carried, given.shape[1]), -np.inf)
        return np.concatenate([carry, empty if ys is None else ys])
    if name == "while":
        first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        carry = given[first + second :]
        body = paths(eqn.params["body_jaxpr"].jaxpr)
        return np.maximum(_then(body, given[first:], constant), carry)
    if len(inside) == 1 and inside[0].shape == (len(eqn.outvars), len(given) + 1):
        return _then(inside[0], given, constant)
    more = sum(max(0.0, float(M.max(initial=0))) for M in inside) if inside else _alone(eqn)
    return np.repeat((np.max(given, axis=0, initial=-np.inf) + more)[None], len(eqn.outvars), 0)


def _alone(eqn: Any) -> int:
    """Of one operation, all numbers of its result at once."""
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    operands = [v.aval for v in eqn.invars]
    if name in FREE or not any(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in eqn.outvars):
        return 0
    if name == "linear_scan":
        return 2 * _levels(operands[1].shape[1])
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 1 + _levels(prod(operands[0].shape[axis] for axis in contracted))
    if name == "conv_general_dilated":
        channels = eqn.params["dimension_numbers"].rhs_spec[0]
        return 1 + _levels(operands[1].size // operands[1].shape[channels])
    if name.startswith("reduce_"):
        return _levels(operands[0].size // max(1, out.size))
    if name.startswith("cum"):
        return _levels(operands[0].shape[eqn.params["axis"]])
    if name == "fft":
        return 2 * _levels(prod(eqn.params["fft_lengths"]))
    return 1


def _levels(n: int) -> int:
    return ceil(log2(n)) if n > 1 else 0


# ---- the question -------------------------------------------------------------------------------


class Runs(NamedTuple):
    """Points of one layer, of several widths, along their runs."""

    N: np.ndarray  # [n] parameters
    D: np.ndarray  # [n] tokens
    loss: np.ndarray  # [n] of validation
    flops: np.ndarray  # [n] until then
    depth: np.ndarray  # [n] until then, the chain of all updates


def runs(layer: LayerConfig, task: TaskConfig, widths: Sequence[int], of: Config) -> Runs:
    """Trained by the training loop, validated eight times on the way."""
    from rich.console import Console  # and a loop that not every command waits for

    from seqjax.train.loop import train
    from seqjax.train.progress import Progress
    from seqjax.train.step import prepare

    points = []
    for width in widths:
        model = replace(of.model, layer=(layer,), features=width)
        config = replace(of, task=task, model=model)
        programs = prepare(config)
        tokens = task.batch * task.length
        size, chain = programs.size, longest(programs.traced.jaxpr.jaxpr)

        def note(step: int, metrics: Any, _: Any, size=size, of=(tokens, chain)) -> None:
            tokens, chain = of
            flops = step * tokens * size.flops_per_token
            points.append((size.parameters, step * tokens, metrics["loss"], flops, step * chain))

        quiet = Progress(of.train.steps, Console(quiet=True))
        train(config, progress=quiet, callbacks=[note])
    return Runs(*np.array(points, float).T)


def scaling(
    layer: Layers = CLASSIC,
    *,
    widths: tuple[Count, ...] = (8, 16, 32),
    task: str = "char_lm",
    batch: Count = 16,
    length: Count = 64,
    steps: Count = 320,
    rate: NotNegative = 6e-3,
    depth: Count = 1,
    evaluator: str | None = None,
    against: Literal["tokens", "parameters", "flops", "depth"] = "flops",
    draws: Count = 50,
    seed: Seed = 0,
) -> Finding:
    """The law of the loss of each of several layers, in parameters and tokens, with bands.

    Args:
        layer: layers, each that of models of several widths, with their options
        widths: features of the models, two at least
        task: whose loss it is
        batch: sequences of an update
        length: of the sequences
        steps: updates of each model, validated eight times on the way
        rate: learning rate, constant after some updates
        depth: blocks of the models
        evaluator: of the recurrences, as associative: their depth is that of it
        against: what the losses are drawn over
        draws: of points, of which bands of 90 % are
        seed: of weights, batches and draws
    """
    if len(set(widths)) < 2:
        raise ValueError(f"widths must be two at least, got {widths}")
    every = max(1, steps // 8)
    of = Config(
        model=ModelConfig(depth=depth, evaluator=evaluator),
        optimiser=OptimiserConfig(
            learning_rate=rate, schedule="constant", warmup=min(20, steps), weight_decay=0.0
        ),
        train=TrainConfig(steps=steps, evaluate_every=every, log_every=steps, seed=seed),
    )
    config, rows, curves = TaskConfig(task, batch=batch, length=length), [], {}
    for one in layer:
        label, found = " ".join(show_pattern((one,))), runs(one, config, widths, of)
        points = found.N, found.D, found.loss
        law, laws = fit(*points), bootstrap(*points, draws=draws, seed=seed)
        shares = [each.beta / (each.alpha + each.beta) for each in laws]
        numbers = (law.E, law.alpha, law.beta, law.beta / (law.alpha + law.beta))
        drawn = ([each.E for each in laws], [each.alpha for each in laws],
                 [each.beta for each in laws], shares)  # fmt: skip
        shown = (f"{v:.2f} ({low:.2f}-{high:.2f})"
                 for v, (low, high) in zip(numbers, map(band, drawn), strict=True))  # fmt: skip
        off = np.sqrt(np.mean((np.log(law(*points[:2])) - np.log(found.loss)) ** 2))
        chain = found.depth[-1] / (found.D[-1] / (batch * length))
        rows.append(
            (label, *shown, f"{off:.3f}", f"{found.flops[-1] / found.D[-1]:.3g}", f"{chain:.0f}")
        )
        over = {
            "tokens": found.D,
            "parameters": found.N,
            "flops": found.flops,
            "depth": found.depth,
        }
        for N in np.unique(found.N):
            at = found.N == N
            curves[f"{label}, {N:.0f} parameters"] = over[against][at], found.loss[at]
        at = found.N == found.N.max()
        ends = band([each(found.N[at], found.D[at]) for each in laws])
        for name, end in zip(("from", "to"), ends, strict=True):
            curves[f"{label}, the law of the largest, {name}"] = over[against][at], end
    columns = (
        "layer",
        "E",
        "alpha",
        "beta",
        "N* by C",
        "misfit",
        "flops a token",
        "chain of an update",
    )
    return Finding(f"scaling on {task}", columns, rows, against, "loss", curves, ("log", "log"))
