"""Ops with their batch and their time split over devices: errors, and what they send each other.

command     python -m experiments.meshes, and with the names of the other ops
hardware    2 CPU cores, shared, as 8 devices; jax 0.10.2, 2026-12-01
time        7 minutes, less than 10 for all others, nearly all of it in the compiler
expected    errors of values, of gradients

    op                    evaluator    data 2, time 4   time 2           time 8
    linear_scan           naive        1.1e-07 1.1e-07  6.1e-08 1.2e-07  9.4e-08 2.0e-07
    linear_scan           sequential   1.1e-07 1.1e-07  6.1e-08 1.2e-07  9.4e-08 2.0e-07
    linear_scan           associative  9.1e-08 1.8e-07  1.1e-07 1.6e-07  1.3e-07 2.0e-07
    linear_scan           chunked      9.1e-08 2.0e-07  1.1e-07 1.6e-07  1.3e-07 2.0e-07
    linear_scan           primitive    1.1e-07 1.2e-07  6.1e-08 9.4e-08  9.4e-08 2.0e-07
    short_convolution     naive        9.6e-08 5.6e-08  9.6e-08 7.8e-08  9.6e-08 5.6e-08
    short_convolution     sequential   9.6e-08 5.6e-08  9.6e-08 7.8e-08  9.6e-08 5.6e-08
    short_convolution     taps         5.4e-08 8.7e-08  5.4e-08 8.7e-08  5.4e-08 7.8e-08
    short_convolution     fft          5.6e-08 8.7e-08  1.1e-07 1.2e-07  6.3e-08 8.7e-08
    gated_delta_rule      naive        1.7e-07 1.7e-07  1.2e-07 1.9e-07  1.4e-07 2.0e-07
    gated_delta_rule      sequential   1.7e-07 1.7e-07  1.2e-07 1.9e-07  1.4e-07 2.0e-07
    gated_delta_rule      chunked      2.4e-07 2.2e-07  3.2e-07 3.7e-07  2.2e-07 1.7e-07
    bounded_delta_rule    naive        1.1e-07 1.3e-07  1.1e-07 1.5e-07  1.1e-07 2.2e-07
    bounded_delta_rule    sequential   1.1e-07 1.3e-07  1.1e-07 1.5e-07  1.1e-07 2.2e-07
    linear_attention      naive        1.0e-07 1.2e-07  9.3e-08 1.2e-07  7.0e-08 1.2e-07
    linear_attention      sequential   1.0e-07 1.2e-07  9.3e-08 1.2e-07  7.0e-08 1.2e-07
    linear_attention      chunked      6.5e-08 9.3e-08  7.5e-08 9.6e-08  7.5e-08 1.1e-07
    dplr                  naive        1.5e-07 1.8e-07  1.4e-07 2.1e-07  1.7e-07 2.2e-07
    dplr                  sequential   1.5e-07 1.8e-07  1.4e-07 2.1e-07  1.7e-07 2.2e-07
    dplr                  chunked      1.6e-07 1.9e-07  2.9e-07 2.2e-07  1.5e-07 1.8e-07
    stabilised_attention  naive        9.9e-08 4.0e-07  9.9e-08 3.0e-07  9.9e-08 6.3e-07
    stabilised_attention  sequential   9.9e-08 4.0e-07  9.9e-08 3.0e-07  9.9e-08 6.3e-07
    stabilised_attention  chunked      9.9e-08 3.0e-07  9.9e-08 2.1e-07  9.9e-08 1.8e-07
    log_linear_attention  naive        1.2e-07 1.8e-07  1.2e-07 1.8e-07  1.2e-07 1.2e-07
    log_linear_attention  sequential   1.2e-07 1.8e-07  1.2e-07 1.8e-07  1.2e-07 1.2e-07
    log_linear_attention  chunked      1.1e-07 1.1e-07  6.7e-08 1.2e-07  1.1e-07 1.3e-07
    mesa                  naive        1.2e-07 2.4e-07  1.2e-07 2.4e-07  1.2e-07 2.4e-07
    mesa                  sequential   1.2e-07 2.4e-07  1.2e-07 2.4e-07  1.2e-07 2.4e-07
    mesa                  chunked      8.0e-08 2.2e-07  1.2e-07 1.9e-07  6.9e-08 2.2e-07
    inner_learning        naive        1.2e-07 1.6e-07  1.2e-07 2.0e-07  1.2e-07 1.7e-07
    inner_learning        sequential   1.2e-07 1.6e-07  1.2e-07 2.0e-07  1.2e-07 1.7e-07
    inner_learning        chunked      1.0e-07 1.5e-07  1.0e-07 2.1e-07  9.8e-08 1.7e-07
    slot_attention        naive        1.3e-07 2.8e-07  1.2e-07 2.8e-07  1.2e-07 3.0e-07
    slot_attention        sequential   1.3e-07 2.8e-07  1.2e-07 2.8e-07  1.2e-07 3.0e-07
    slot_attention        chunked      1.1e-07 2.8e-07  1.3e-07 2.8e-07  1.3e-07 3.0e-07
    softmax_attention     naive        1.7e-07 2.8e-07  1.7e-07 2.8e-07  1.7e-07 2.8e-07
    softmax_attention     sequential   1.7e-07 2.8e-07  1.7e-07 2.8e-07  1.7e-07 2.8e-07
    softmax_attention     blocks       1.5e-07 2.2e-07  1.5e-07 2.2e-07  1.7e-07 2.2e-07
    diagonal_ssm          naive        2.0e-07 3.7e-07  2.1e-07 2.3e-07  2.0e-07 3.2e-07
    diagonal_ssm          sequential   2.0e-07 3.7e-07  2.1e-07 2.3e-07  2.0e-07 3.2e-07
    diagonal_ssm          associative  2.0e-07 2.6e-07  2.1e-07 2.6e-07  2.0e-07 3.2e-07
    diagonal_ssm          chunked      2.0e-07 2.6e-07  2.1e-07 2.6e-07  2.0e-07 3.2e-07
    diagonal_ssm          primitive    2.0e-07 3.7e-07  2.1e-07 2.3e-07  2.0e-07 3.2e-07
    diagonal_ssm          fft          1.5e-07 1.2e-07  1.9e-07 1.2e-07  9.9e-08 1.0e-07
    selective_scan        naive        1.1e-07 2.9e-07  1.1e-07 2.3e-07  1.2e-07 2.3e-07
    selective_scan        sequential   1.5e-07 2.5e-07  1.3e-07 2.3e-07  1.2e-07 2.3e-07
    selective_scan        linear_scan  1.5e-07 3.2e-07  1.3e-07 2.3e-07  1.2e-07 4.1e-07

    bytes exchanged on 8 devices

    op                     state  value, T 256  gradient, T 256  value, T 1024  gradient, T 1024
    linear_scan              512          8064            15239           8064             15239
    short_convolution      15872         43652            74315          43652             74315
    gated_delta_rule       32768        319488           581639         319488            581639
    bounded_delta_rule     32768        286720           516103         286720            516103
    linear_attention       32768        319488           581639         319488            581639
    dplr                   32768        319488           581639         319488            581639
    stabilised_attention   33824        194616           330047         194616            330047
    log_linear_attention  131080       1146950          2064447        1146950           2064447
    mesa                   65536        638976          1164167         638976           1164167
    inner_learning        399400       3494750          6290487        3494750           6290487
    slot_attention         10240         99840           181767          99840            181767
    softmax_attention       5128         14098            19211          14098             19211
    diagonal_ssm            2048         25088            51975          25088             51975
    selective_scan          1536         24192            47943          24192             47943

Errors are those of `seqjax selfcheck`: of outputs and last state, and of the gradients with respect
to all inputs, in float32 against the naive loop in float64, as a share of its largest number.
With `time 8` a device has 3 steps, with `data 2, time 4` 6 steps of one of two examples.

Bytes are those that each device of eight sends, counted in the compiled program
(`seqjax.tools.hlo`): for values, and for values and gradients. They are the same for any T.
Elements are gathered while all eight are 64 KiB or less, else scanned
(`seqjax.core.axis.combine`). bounded_delta_rule has no element: its devices wait for the state of
the one before, which a loop sends seven times. Names of ops choose others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec as P

import seqjax
from experiments import words
from seqjax.ops import OPS
from seqjax.ops.op import Call
from seqjax.tools.hlo import sent
from seqjax.tools.screen import print_table
from seqjax.tools.selfcheck import Check, Problem, example, solve

DEVICES, BATCH, STEPS, LENGTHS = 8, 2, 24, (256, 1024)
NAMES = ("linear_scan", "short_convolution", "gated_delta_rule", "bounded_delta_rule")
MESHES = {"data 2, time 4": (2, 4), "time 2": (1, 2), "time 8": (1, 8)}
WIDE = {"H": 4, "K": 32, "V": 32, "D": 64}  # of the problems whose bytes are counted


def on_mesh(name: str, options: dict[str, Any], shape: tuple[int, int], steps: int) -> Any:
    """The op of arrays [BATCH, steps, ...] and a state [BATCH, ...], split over so many devices."""
    mesh = jax.make_mesh(
        shape, ("data", "time"), axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[: prod(shape)],
    )  # fmt: skip

    def run(arrays: dict[str, Any], **more: Any) -> Any:
        def split(x: Any) -> P:
            return P("data", "time") if x.shape[:2] == (BATCH, steps) else P()

        specs: dict[str, Any] = {n: split(x) for n, x in arrays.items() if n != "state"}
        specs["state"] = P("data")

        def local(arrays: dict[str, Any]) -> Any:
            return getattr(seqjax, name)(**arrays, **options, **more, axis="time")

        return jax.shard_map(
            local, mesh=mesh, in_specs=(specs,), out_specs=(P("data", "time"), P("data")),
            check_vma=False,
        )(arrays)  # fmt: skip

    return run


def problem(name: str) -> Problem:
    """All evaluators of an op on all meshes, as `selfcheck` takes it."""
    op = OPS[name]
    spec = min(op.specs, key=lambda spec: spec.sizes["T"])
    arrays, options = example(op, replace(spec, sizes={**spec.sizes, "B": BATCH, "T": STEPS}))
    runs = {label: on_mesh(name, options, shape, STEPS) for label, shape in MESHES.items()}

    def run(arrays: Any, label: str) -> Any:
        evaluator, _, mesh = label.partition(" on ")
        if not mesh:
            return getattr(seqjax, name)(**arrays, **options, evaluator=evaluator)
        return runs[mesh](arrays, evaluator=evaluator)

    call = Call(STEPS, "cpu", options={**arrays, **options})
    able = [n for n, e in op.evaluators.items() if e.supports(call) is None]
    labels = tuple(f"{evaluator} on {mesh}" for evaluator in able for mesh in MESHES)
    return Problem(name, spec.name, STEPS, arrays, run, labels, "naive", ("float32",))


def errors(names: list[str]) -> Iterator[Check]:
    for name in names:
        yield from solve(problem(name))


def exchanged(name: str, steps: int) -> tuple[int, int, int]:
    """Bytes of the state, and of what values, and values and gradients, exchange on a device."""
    op = OPS[name]
    spec = min(op.specs, key=lambda spec: spec.sizes["T"])
    sizes = {n: WIDE.get(n, size) for n, size in spec.sizes.items()}
    arrays, options = example(op, replace(spec, sizes={**sizes, "B": BATCH, "T": steps}))
    arrays = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else x.dtype), arrays
    )
    run = on_mesh(name, options, (1, DEVICES), steps)

    def number(arrays: Any) -> Any:
        y, _ = run(arrays)
        return jnp.sum(jnp.sin(y))

    programs = run, jax.value_and_grad(number, allow_int=True)
    texts = [jax.jit(f).lower(arrays).compile().as_text() or "" for f in programs]
    found = [sent(text) for text in texts]
    state = sum(x.nbytes for x in jax.tree.leaves(arrays["state"]))
    return state, found[0], found[1]


def main(names: list[str]) -> None:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for check in errors(names):
        evaluator, _, mesh = check.evaluator.partition(" on ")
        over = "" if check.passed else f" over {check.tolerance:.0e}"
        cell = f"{check.value:.1e} {check.gradient:.1e}{over}"
        rows.setdefault((check.what, evaluator), {})[mesh] = cell
    cells = [(*row, *(found[mesh] for mesh in MESHES)) for row, found in rows.items()]
    print_table("errors of values, of gradients", ("op", "evaluator", *MESHES), cells)
    sizes = []
    for name in names:
        found = [exchanged(name, steps) for steps in LENGTHS]
        sizes.append((name, *(str(n) for n in (found[0][0], *found[0][1:], *found[1][1:]))))
    heads = [f"{what}, T {steps}" for steps in LENGTHS for what in ("value", "gradient")]
    print_table(f"bytes exchanged on {DEVICES} devices", ("op", "state", *heads), sizes)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.config.update("jax_platforms", "cpu")
    main(words("op", OPS) or list(NAMES))
