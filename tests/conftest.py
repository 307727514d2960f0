"""Tests run in float64, with strict promotion, no implicit broadcasting of rank, no warnings."""

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

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_ran = itertools.count(1)


def pytest_configure(config):
    config.addinivalue_line("markers", "thorough: for `make test-all`, SEQJAX_TEST_ALL=1")


def pytest_runtest_setup(item):
    """What `make test` leaves out: thorough tests; past SEQJAX_TEST_UNTIL (of the clock) all."""
    if item.get_closest_marker("thorough") and os.environ.get("SEQJAX_TEST_ALL") != "1":
        pytest.skip("what it adds is for `make test-all` (SEQJAX_TEST_ALL=1)")
    if time.time() > float(os.environ.get("SEQJAX_TEST_UNTIL", "inf")):
        pytest.skip("the time given is up (SEQJAX_TEST_UNTIL)")


@pytest.fixture(autouse=True)
def forget_programs():
    """A compiled program holds memory maps, of which a process may have 65530: XLA aborts there."""
    yield
    if next(_ran) % 40 == 0:
        jax.clear_caches()
