"""Tests run in float64, with strict promotion, no implicit broadcasting of rank, no warnings."""

import gc
import itertools
import os
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Several processes and several runs share what they compiled: compiling is most of the test time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("TFDS_DATA_DIR", str(ROOT / ".cache" / "tensorflow_datasets"))
# Programs of the tests run for a moment and compile for seconds: the cheapest code is the fastest.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
        # a third of the time to compile; 0.12 has only the dear ones, and dies of the flag
        *(["--xla_cpu_use_fusion_emitters=false"] if version("jax") < "0.11" else []),
    ]
)

import jax  # noqa: E402
import pytest  # noqa: E402

from seqjax.data import DataError  # noqa: E402

gc.set_threshold(50_000, 20, 20)  # traces are many small objects, and no garbage yet
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

FULL = os.environ.get("SEQJAX_TEST_ALL") == "1"
# jax.lax.custom_linear_solve loses the type inside vmap and jvp (docs/upstream.md)
NOT_CHECKED = {"mesa", "mesa_net"}  # inside shard_map
_ran = itertools.count(1)


def spread(found, kept):
    """At most `kept` of a list, the first and the last among them, in even steps."""
    kept = min(kept, len(found))
    return [found[round(i * (len(found) - 1) / max(1, kept - 1))] for i in range(kept)]


def pytest_configure(config):
    config.addinivalue_line("markers", "share(n): `make test` takes n of its cases, spread evenly")
    config.addinivalue_line("markers", "thorough: none of them: `make test-all`, SEQJAX_TEST_ALL=1")


@pytest.hookimpl(trylast=True)  # after -k
def pytest_collection_modifyitems(config, items):
    """However many cases a test grows to have, `make test` takes the share it is marked with.

    Which ones depends on what is collected: a case of a share, named alone, runs.
    """
    cases, left_out = {}, set()
    for item in items if not FULL else ():
        share = item.get_closest_marker("share")
        if item.get_closest_marker("thorough"):
            left_out.add(item)
        elif share:
            cases.setdefault((item.nodeid.partition("[")[0], *share.args), []).append(item)
    for (_, n), found in cases.items():
        left_out |= set(found) - set(spread(found, n))
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup():
    """Past SEQJAX_TEST_UNTIL (of the clock) nothing new is begun."""
    if time.time() > float(os.environ.get("SEQJAX_TEST_UNTIL", "inf")):
        pytest.skip("the time given is up (SEQJAX_TEST_UNTIL)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test whose raw files are absent is skipped, with the line that names them."""
    try:
        return (yield)
    except DataError as error:
        if str(error).startswith("no files of "):
            pytest.skip(str(error))
        raise


@pytest.fixture(autouse=True)
def forget_programs():
    """A compiled program holds memory maps, of which a process may have 65530: XLA aborts there."""
    yield
    if next(_ran) % 40 == 0:
        jax.clear_caches()
