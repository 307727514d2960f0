"""Compile every Pallas kernel for real chips on a machine that has none of them.

    python scripts/check_kernels.py v5e     # or v6e: needs jax[tpu], compiled by libtpu
    python scripts/check_kernels.py H100    # or H200: needs the CUDA plugin and ptxas

Interpret mode and `jax.export` do not see what only the chip's compiler refuses: memory that does
not fit, loads that are not aligned, registers that spill. This does. Nothing is executed.
`scripts/check_kernels.sh` makes the two environments and runs all four, each in a process of its
own since Mosaic compiles equal code once a process.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
import tempfile
import time
from pathlib import Path

# One line a case: kernel, arguments as dtype[shape], options. A kernel is the function of that
# name in seqjax/core/kernels/<name>_tpu.py and <name>_gpu.py.
CASES = [
    ("linear_scan", "f32[8,4096,1024] f32[8,4096,1024] f32[8,1024]", {}),
    ("linear_scan", "bf16[8,4096,1024] bf16[8,4096,1024] f32[8,1024]", {"reverse": True}),
    ("linear_scan", "c64[8,4096,1024] c64[8,4096,1024] c64[8,1024]", {"adjoint": True}),
    ("linear_scan", "f32[1,65536,2048] f32[1,65536,2048] f32[1,2048]", {}),
    ("linear_scan", "f32[1,65536,256] f32[1,65536,256] f32[1,256] bool[1,65536]", {}),
    ("linear_scan", "f32[1,1,256] f32[32,4096,256] f32[32,256] bool[32,4096]", {"adjoint": True}),
    ("linear_scan", "f32[3,1000,200] f32[3,1000,200] f32[3,200] bool[3,1000]", {"reverse": True}),
    ("linear_scan", "bf16[1,130,5] bf16[9,130,5] f32[9,5] bool[1,130]", {"adjoint": True}),
    (
        "linear_scan",
        "c64[9,1,1500] c64[9,300,1500] c64[9,1500] bool[9,300]",
        {"reverse": True, "adjoint": True},
    ),
    ("linear_scan", "c64[1,1,1] c64[1,1,1] c64[1,1]", {}),
]
DTYPES = {"f32": "float32", "bf16": "bfloat16", "c64": "complex64", "bool": "bool", "s32": "int32"}


def hopper(name: str, memory: int, bandwidth: int) -> dict:
    """The topology of one GPU with compute capability 9.0, as XLA reads it off a device."""
    text = f"""
        gpu_device_info {{
          cuda_compute_capability {{ major: 9 minor: 0 }}
          core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
          threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
          shared_memory_per_core: 233472 l2_cache_size: 52428800
          device_memory_size: {memory} memory_bandwidth: {bandwidth}
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 8 }}
        device_description_str: "{name}"
    """
    return {"topology_name": "", "topology": "1x1x1", "target_config": text}


TARGETS = {
    "v5e": ("tpu", {"topology_name": "v5e:2x2"}),
    "v6e": ("tpu", {"topology_name": "v6e:2x2"}),
    "H100": ("cuda", hopper("NVIDIA H100 80GB HBM3", 84_978_434_048, 3_352_320_000_000)),
    "H200": ("cuda", hopper("NVIDIA H200", 150_754_820_096, 4_915_200_000_000)),
}
SUFFIX = {"tpu": "tpu", "cuda": "gpu"}
ENVIRONMENT = {  # read by the plugins when they are loaded: no device is to be looked for
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "MOSAIC_GPU_DUMP_PTX": "1",
    "MOSAIC_GPU_DUMP_PTXAS": "1",
}


def load(kernel: str, platform: str):
    """The kernel's function, by file: importing `seqjax` would ask for all it depends on."""
    kernels = Path(__file__).parents[1] / "seqjax" / "core" / "kernels"
    return runpy.run_path(str(kernels / f"{kernel}_{SUFFIX[platform]}.py"))[kernel]


def hopper_code(folder: Path) -> str:
    """What ptxas said of the kernels dumped into `folder`, which is emptied."""
    ptx = [path.read_text() for path in folder.glob("*.ptx")]
    said = " ".join(path.read_text() for path in folder.glob("*.ptxas"))
    for path in folder.iterdir():
        path.unlink()
    if not ptx or any(".target sm_90a" not in text for text in ptx):
        raise RuntimeError("no PTX for sm_90a was generated")
    registers = max(int(n) for n in re.findall(r"Used (\d+) registers", said))
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", said))
    if spilled:
        raise RuntimeError(f"{spilled} bytes of registers spilled")
    return f"{len(ptx)} x sm_90a, {registers} registers, no spills"


def main(target: str) -> int:
    platform, description = TARGETS[target]
    with tempfile.TemporaryDirectory() as dumps:
        os.environ.update(ENVIRONMENT, MOSAIC_GPU_DUMP_TO=dumps)
        import jax
        from jax.experimental import topologies
        from jax.sharding import SingleDeviceSharding

        topology = topologies.get_topology_desc(platform=platform, **description)
        sharding = SingleDeviceSharding(topology.devices[0])
        failures = 0
        print(f"{target:75}{'options':17}{'seconds':9}result")
        for kernel, arguments, options in CASES:
            avals = [
                jax.ShapeDtypeStruct(
                    [int(n) for n in shape.split(",")], DTYPES[dtype], sharding=sharding
                )
                for dtype, shape in re.findall(r"(\w+)\[([\d,]+)\]", arguments)
            ]
            start = time.perf_counter()
            try:
                function = jax.jit(load(kernel, platform), static_argnames=tuple(options))
                function.lower(*avals, **options).compile()
                result = "ok" if platform == "tpu" else "ok, " + hopper_code(Path(dumps))
            except Exception as error:  # every case is tried; the reason is part of the table
                failures += 1
                result = "FAILED " + " ".join(str(error).split())[:400]
            seconds = time.perf_counter() - start
            words = f"{kernel + ' ' + arguments:75}{' '.join(options):17}{seconds:<9.2f}{result}"
            print(words, flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: check_kernels.py {' | '.join(TARGETS)}")
    sys.exit(main(sys.argv[1]))
