"""The chips that a run may be planned for, and what compiles for them where there is none."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax

from seqjax.core.common import unknown


class Chip(NamedTuple):
    """Published figures of one device."""

    flops: float  # a second, of bfloat16 matrix products
    exact: float  # times longer that the same of float32 takes, at full precision
    memory: float  # bytes
    bandwidth: float  # of that memory, bytes a second
    links: float  # to other chips, one way, all together, bytes a second
    source: str


# A float32 product at full precision is six of bfloat16 on a TPU. To the compiler each of the two
# cores of a v4 is a device: half of what is published.
CHIPS = {
    "v4": Chip(137.5e12, 6, 16 * 2**30, 600e9, 150e9, "arXiv:2304.01433, table 4, half a chip"),
    "v5e": Chip(197e12, 6, 16 * 2**30, 800e9, 200e9, "cloud.google.com/tpu/docs/v5e"),
    "v5p": Chip(459e12, 6, 95 * 2**30, 2765e9, 600e9, "cloud.google.com/tpu/docs/v5p"),
    "v6e": Chip(918e12, 6, 32 * 2**30, 1600e9, 400e9, "cloud.google.com/tpu/docs/v6e"),
    "h100": Chip(989.4e12, 989.4 / 66.9, 80e9, 3350e9, 450e9, "H100 SXM5 data sheet, NVLink"),
}
FORMS = "a topology is a TPU's, as v5e:16x16 or v5p:8x8x8, or GPUs of one host, as h100x8"


class Target(NamedTuple):
    """What is compiled for."""

    name: str
    chip: Chip
    devices: Sequence[Any]
    stands_in: str = ""  # the platform that the program is compiled for, if it is another one


def target(topology: str) -> Target:
    """Raises ValueError for what is no topology, and for a compiler that is not installed."""
    one = re.fullmatch(r"(\w+):\d+(x\d+)*|(\w+)x(\d+)", topology)
    if one is None:
        raise ValueError(f"{FORMS}, got {topology!r}")
    kind = one[1] or one[3]
    known = [name for name in CHIPS if name.startswith("v") == bool(one[1])]
    if kind not in known:
        raise ValueError(f"{unknown('chip of a topology', kind, known)}; {FORMS}")
    if one[1]:
        return Target(topology, CHIPS[kind], _of_tpu(topology))
    return Target(topology, CHIPS[kind], _of_cpu(topology, int(one[4])), "cpu")


def _of_tpu(topology: str) -> Sequence[Any]:
    if find_spec("libtpu") is None:
        raise ValueError(
            f"{topology} needs the compiler for TPUs: pip install 'seqjax[tpu]' (no TPU is needed)"
        )
    # the library looks for no TPU, and for no other process that has one
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "none")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _here("cpu")
    from jax.experimental.topologies import get_topology_desc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return get_topology_desc(platform="tpu", topology_name=topology).devices
        except Exception as error:
            line = str(error).partition("\n")[0]
            raise ValueError(f"{topology} is no topology that libtpu knows: {line}") from error


def _of_cpu(topology: str, count: int) -> Sequence[Any]:
    """As many virtual devices of the CPU."""
    _here("cpu")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # jax runs already, as in a notebook
        pass
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ValueError(
            f"{topology} is planned on {count} virtual devices, and jax began with {len(devices)}: "
            "run it in a process of its own"
        )
    return devices[:count]


def _here(platform: str) -> None:
    """What is computed meanwhile is on this platform: no TPU is looked for."""
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", platform)
