# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One recurrence, every evaluator
#
# The same numbers by different roads. For two recurrences, the diagonal linear scan and the gated
# delta rule, every evaluator is compared with the naive loop in float64, then timed against the
# others in one run, with the temporary memory that XLA reports for each compiled program.
#
# The times are of the machine that runs the notebook; compare them with each other only.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from seqjax.ops import OPS
from seqjax.ops.delta_rule import gated_delta_rule
from seqjax.ops.linear_scan import linear_scan
from seqjax.tools.bench import Program, measure, with_gradients

SMOKE = os.environ.get("SEQJAX_SMOKE") == "1"  # as CI runs it: shorter sequences, fewer repeats
LENGTHS = (64, 128, 256, 512, 1024) if SMOKE else (256, 1024, 4096, 16384)
REPEATS = 3 if SMOKE else 5
COLOURS = dict(
    zip(
        ("naive", "sequential", "associative", "chunked", "primitive"),
        ("#999999", "#b07aa1", "#f2a541", "#57a773", "#22577a"),
    )
)


def example(name, T):
    """Float32 arguments of an op: batch 4, 64 channels, or 2 heads of 32 x 32."""
    draw = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(draw.normal(size=shape), jnp.float32)  # noqa: E731
    if name == "linear_scan":
        return dict(a=jax.nn.sigmoid(2 + normal(4, T, 64)), b=normal(4, T, 64))
    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    q, k, v = (normal(1, T, 2, 32) for _ in range(3))
    beta, log_a = jax.nn.sigmoid(normal(1, T, 2)), -0.05 * jnp.abs(normal(1, T, 2))
    return dict(q=unit(q), k=unit(k), v=v, beta=beta, log_a=log_a)


FUNCTIONS = {"linear_scan": linear_scan, "gated_delta_rule": gated_delta_rule}

# %% [markdown]
# ## They agree
#
# The largest difference from the float64 loop, in units of the largest output. `seqjax selfcheck`
# prints this for every op, evaluator and dtype on your own device.

# %%
for name, function in FUNCTIONS.items():
    arguments = example(name, 300)
    with jax.enable_x64(True):
        exact = {k: np.asarray(v, np.float64) for k, v in arguments.items()}
        oracle = np.asarray(function(**exact, evaluator="naive")[0])
    for evaluator in OPS[name].evaluators:
        y = np.asarray(function(**arguments, evaluator=evaluator)[0])
        error = np.abs(y - oracle).max() / np.abs(oracle).max()
        print(f"{name:18s} {evaluator:12s} {error:.1e}")
        assert error < 1e-4

# %% [markdown]
# ## They do not cost the same
#
# Forward and backward: the value and all gradients of a weighted sum of the outputs.

# %%


def race(name):
    """evaluator -> [(T, milliseconds, megabytes)]; what needs too much memory stops early."""
    rows = {}
    for T in LENGTHS:
        arguments = example(name, T)
        programs = []
        for evaluator in OPS[name].evaluators:
            if name == "gated_delta_rule" and evaluator == "naive" and T > 4096:
                continue  # it keeps a matrix for every step: the memory curve is clear by then
            run = lambda arrays, e=evaluator: FUNCTIONS[name](**arrays, evaluator=e)[0]  # noqa: E731
            programs.append(with_gradients(Program(evaluator, "ours", run, (arguments,))))
        for program, timing in zip(programs, measure(programs, REPEATS)):
            rows.setdefault(program.name, []).append((T, timing.run_ms, timing.temp_mb))
    return rows


results = {name: race(name) for name in FUNCTIONS}

# %%
fig, axes = plt.subplots(2, 2, figsize=(11, 7), sharex=True)
for row, (name, rows) in zip(axes, results.items()):
    for evaluator, points in rows.items():
        T, time, memory = zip(*points)
        style = dict(color=COLOURS[evaluator], marker="o", ms=4, lw=1.6, label=evaluator)
        row[0].loglog(T, time, **style)
        row[1].loglog(T, np.maximum(memory, 1e-2), **style)
    row[0].set(title=f"{name}: forward + backward", ylabel="ms")
    row[1].set(title=f"{name}: temporary memory", ylabel="MB")
    row[0].legend(frameon=False, fontsize=8)
for axis in axes.flat:
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xticks(LENGTHS, [str(T) for T in LENGTHS])
    axis.minorticks_off()
for axis in axes[1]:
    axis.set_xlabel("T")
plt.tight_layout()
plt.show()

# %%
T = LENGTHS[-1]
for name, rows in results.items():
    print(f"{name} at T = {T}, batch and heads as above ({jax.default_backend()}):")
    for evaluator, points in rows.items():
        at = {t: (ms, mb) for t, ms, mb in points}
        if T in at:
            print(f"  {evaluator:12s} {at[T][0]:9.2f} ms {at[T][1]:9.1f} MB")

# %% [markdown]
# ## Which one runs, and why
#
# Nothing is tuned at call time: a small table chooses by device and length, and gives the reason.

# %%
print(OPS["gated_delta_rule"].explain(4096))
print(OPS["linear_scan"].explain(4096))
