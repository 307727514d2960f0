# ruff: noqa: E501, for lines of a compiled program
"""What is counted of a program is what a hand counts, and what is printed is of the config."""

import json
import re
from dataclasses import replace
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from seqjax.tools import chips, plan
from seqjax.tools.cli import main
from seqjax.tools.hlo import Program
from seqjax.tools.instructions import nbytes
from seqjax.train.config import Config

TEXT = """HloModule jit_f, is_scheduled=true, num_partitions=8

FileNames
1 "/somewhere/seqjax/ops/a.py"

FileLocations
1 {file_name_id=1 function_name_id=1 line=12 end_line=12 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

%all-reduce-scatter.1 (input_0: f32[8,16]) -> f32[2,16] {
  %input_0 = f32[8,16]{1,0} parameter(0)
  %all-reduce.1 = f32[8,16]{1,0} all-reduce(%input_0), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%sum
  ROOT %slice.1 = f32[2,16]{1,0} slice(%all-reduce.1), slice={[0:2], [0:16]}
}

%gather.1 (p: bf16[2,4]) -> bf16[8,4] {
  %p = bf16[2,4]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[8,4]{1,0} all-gather(%p), replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
}

%gather.2 (p: bf16[2,4]) -> bf16[8,4] {
  %p = bf16[2,4]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[8,4]{1,0} all-gather(%p), replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%written (p: f32[5,8,16], q: f32[1,8,16], n: s32[]) -> f32[5,8,16] {
  %p = f32[5,8,16]{2,1,0} parameter(0)
  %q = f32[1,8,16]{2,1,0} parameter(1)
  %n = s32[] parameter(2)
  ROOT %update = f32[5,8,16]{2,1,0} dynamic-update-slice(%p, %q, %n, %n, %n)
}

%body (s: (s32[], f32[8,16], f32[5,8,16])) -> (s32[], f32[8,16], f32[5,8,16]) {
  %s = (s32[], f32[8,16]{1,0}, f32[5,8,16]{2,1,0}) parameter(0)
  %n = s32[] get-tuple-element(%s), index=0
  %x = f32[8,16]{1,0} get-tuple-element(%s), index=1
  %ys = f32[5,8,16]{2,1,0} get-tuple-element(%s), index=2
  %W = f32[16,16]{1,0} constant({...})
  %y = f32[8,16]{1,0} dot(%x, %W), lhs_contracting_dims={1}, rhs_contracting_dims={0}, operand_precision={highest,highest}, metadata={op_name="jit(f)/jvp(g)/while/body/dot_general" stack_frame_id=1}
  %z = f32[2,16]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
  %b = f32[1,8,16]{2,1,0} bitcast(%y)
  %new = f32[5,8,16]{2,1,0} fusion(%ys, %b, %n), kind=kLoop, calls=%written
  ROOT %t = (s32[], f32[8,16]{1,0}, f32[5,8,16]{2,1,0}) tuple(%n, %y, %new)
}

%condition (s: (s32[], f32[8,16], f32[5,8,16])) -> pred[] {
  %s = (s32[], f32[8,16]{1,0}, f32[5,8,16]{2,1,0}) parameter(0)
  %n = s32[] get-tuple-element(%s), index=0
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%n, %five), direction=LT
}

ENTRY %main (x: f32[8,16], p: bf16[2,4]) -> f32[8,16] {
  %x = f32[8,16]{1,0} parameter(0)
  %p = bf16[2,4]{1,0} parameter(1)
  %a = f32[2,3,4]{2,1,0} parameter(2)
  %c = f32[2,4,8]{2,1,0} parameter(3)
  %first = bf16[8,4]{1,0} fusion(%p), kind=kCustom, calls=%gather.1
  %second = bf16[8,4]{1,0} fusion(%p), kind=kCustom, calls=%gather.2
  %w = (s32[], f32[8,16]{1,0}, f32[5,8,16]{2,1,0}) while(%start), condition=%condition, body=%body
  %images = f32[2,3,8]{2,1,0} convolution(%a, %c), window={size=2 stride=1 lhs_dilate=2}, dim_labels=0bf_0io->0bf
  ROOT %out = f32[8,16]{1,0} get-tuple-element(%w), index=1
}
"""


def of(name):
    (one,) = [one for one in Program(TEXT).work() if one.name == name]
    return one


def test_loops_run_as_often_as_their_counter_is_compared_with():
    dot = of("y")
    assert (dot.times, dot.products, dot.exact) == (5, 2 * 8 * 16 * 16, True)
    assert dot.bytes == 4 * (2 * 8 * 16 + 16 * 16)


def test_what_is_written_into_an_array_is_the_part_that_changes():
    new = of("new")
    assert new.bytes == 4 * (2 * 8 * 16 + 1)  # the part, read and written, and where it goes


def test_collectives_send_what_rings_do():
    scattered, first, second = of("z"), of("first"), of("second")
    assert (scattered.collective, scattered.devices) == ("reduce-scatter", 4)
    assert scattered.sent == 4 * 8 * 16 * 3 / 4 and scattered.times == 5
    assert (first.collective, first.devices, first.sent) == ("all-gather", 4, 3 * 2 * 2 * 4)
    assert second.collective == ""  # the same one goes on


def test_a_product_in_a_batch_that_is_written_as_a_convolution_has_no_holes():
    """TPUs have batches as spatial axes: of the kernel's places each output sees one."""
    one = of("images")
    assert one.products == 2 * 2 * 3 * 8 * 4


def test_tiles_are_whole_and_other_memories_are_not_held():
    shape = "bf16[3,100]{1,0:T(8,128)(2,1)}"
    assert nbytes(shape) == 600 and nbytes(shape, held=True) == 2 * 8 * 128
    assert nbytes("f32[4]{0:T(128)S(1)}", held=True) == 0
    assert nbytes("(f32[4]{0}, /*index=1*/pred[2,3]{1,0})") == 22


def test_where_an_array_is_made_is_a_line_of_the_package():
    program = Program(TEXT)
    assert program.source(program.computations["body"].instructions["y"]) == (
        "dot_general (ops/a.py:12)"
    )


def test_a_compiled_step_by_hand():
    """Seven products and exchanges in a loop, which XLA's own analysis counts once."""
    mesh = jax.make_mesh((4,), ("d",), (jax.sharding.AxisType.Auto,))

    def step(x, W):
        return jnp.tanh(jax.lax.psum(x @ W, "d")), None

    def f(x, Ws):
        return jax.lax.scan(step, x, Ws)[0]

    run = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=(P(), P()), out_specs=P()))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 32), (7, 32, 32))]
    compiled = run.lower(*shapes).compile()
    work = list(Program(compiled.as_text()).work())
    assert sum(one.times * one.products for one in work) == 7 * 2 * 8 * 32 * 32
    assert sum(one.times * one.sent for one in work) == 7 * 2 * 3 / 4 * (4 * 8 * 32)
    assert {one.devices for one in work if one.collective} == {4}


TINY = ["state_tracking", "--model.layer", "min_gru", "--model.features", "8", "--task.batch", "4",
        "--task.length", "8", "--model.depth", "1"]  # fmt: skip


def test_a_plan_for_gpus(capsys):
    """Parameters are split over all devices where the config has no mesh."""
    assert main(["plan", *TINY, "--topology", "h100x4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mesh"] == "fsdp=4" and found["fits"]
    kinds = {one["kind"] for one in found["exchanges"]}
    assert "all-reduce" in kinds and {one["devices"] for one in found["exchanges"]} == {4}
    assert found["memory"]["peak"] >= found["memory"]["arguments"] > 4 * 3 * found["parameters"] / 4
    assert found["product_flops"] > 0 and found["step_ms"] > found["busy_ms"] > 0
    assert found["busy_ms"] >= max(found["compute_ms"], found["memory_ms"])


def test_what_does_not_fit_names_its_largest_buffers(capsys, monkeypatch):
    small = chips.CHIPS["h100"]._replace(memory=1e4)
    monkeypatch.setitem(chips.CHIPS, "h100", small)
    assert main(["plan", *TINY, "--topology", "h100x2", "--mesh.data", "2"]) == 1
    printed = capsys.readouterr().out
    assert "does not fit" in printed and "f32[" in printed and ".py:" in printed
    assert "mesh data=2" in printed and "2 virtual devices of cpu" in printed


@pytest.mark.thorough
def test_a_sweep_recommends_the_fastest_that_fits(capsys):
    assert main(["plan", *TINY, "--topology", "h100x2", "--sweep", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tried = {one["mesh"]: one["step_ms"] for one in found["tried"]}
    assert set(tried) == {"data=2", "fsdp=2", "tensor=2", "sequence=2"}
    assert found["best"]["step_ms"] == min(tried.values())


@pytest.mark.thorough
@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu, the extra tpu")
@pytest.mark.parametrize("layer, mesh", [("min_gru", "fsdp"), ("gated_deltanet", "tensor")])
def test_a_plan_for_tpus(layer, mesh, capsys):
    words = ["plan", *TINY, "--model.layer", layer, "--topology", "v5e:2x2", "--json"]
    assert main([*words, f"--mesh.{mesh}", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exchanges"] and found["memory"]["temporaries"] and found["product_flops"]
    assert (found["kernels"] > 0) == (layer == "min_gru")


def test_meshes_of_a_sweep_take_all_chips_and_divide_the_sizes():
    base = Config()
    config = replace(base, task=replace(base.task, batch=4, length=6))
    config = replace(config, model=replace(base.model, features=8))
    sizes = [(m.data, m.fsdp, m.tensor, m.sequence) for m in plan.meshes(config, 8)]
    assert all(a * b * c * d == 8 and 4 % (a * b) == 0 and 6 % d == 0 for a, b, c, d in sizes)
    assert sizes[0] == (1, 1, 8, 1) and len(set(sizes)) == len(sizes) > 4


@pytest.mark.parametrize(
    "words, error",
    [
        ([], "give --topology: a topology is a TPU's, as v5e:16x16"),
        (["--topology", "v5e"], "a topology is.*got 'v5e'"),
        (["--topology", "v55:2x2"], "chip of a topology 'v55'.*v5e"),
        (["--topology", "a100x8"], "chip of a topology 'a100'.*h100"),
        (["--topology", "h100x64"], "h100x64 is planned on 64 virtual devices, and jax began with"),
        (["--topology", "h100x4", "--mesh.data", "2"], "mesh data=2 takes 2 devices, and h100x4 has 4"),
        (["--topology", "h100x3"], "must divide task.batch=4, got 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_one_line(words, error, capsys):
    assert main(["plan", *TINY, *words]) == 2
    assert re.search(error, capsys.readouterr().err)


@pytest.mark.thorough
@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu, the extra tpu")
def test_a_mesh_that_does_not_lie_along_the_links_is_one_line(capsys):
    words = ["plan", *TINY, "--topology", "v5p:4x4x4", "--task.batch", "64"]
    assert main([*words, "--mesh.data", "2", "--mesh.fsdp", "32"]) == 2
    assert "mesh data=2, fsdp=32, tensor=1, sequence=1 does not lie" in capsys.readouterr().err


def test_without_the_compiler_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(chips, "find_spec", lambda name: None)
    assert main(["plan", *TINY, "--topology", "v5e:2x2"]) == 2
    assert "pip install 'seqjax[tpu]'" in capsys.readouterr().err
