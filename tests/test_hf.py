"""Checkpoints of the transformers library: their logits, gradients and streams, there and back.

Every model folder found in the folder that SEQJAX_GOLDENS names (hf/ in it) is a test; the rest
writes the checkpoints it needs.
"""

import json
import os
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from seqjax.answers.classes import Classes
from seqjax.answers.inputs import Tokens
from seqjax.hf import Decoder, describe, read, write
from seqjax.hf.folder import collect, expected, skeleton
from seqjax.hf.tensors import rules
from seqjax.stacks.config import ModelConfig
from seqjax.tasks.task import Spec
from seqjax.tools import cli
from seqjax.train.generate import generate
from seqjax.train.imported import load, store

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("SEQJAX_GOLDENS", ROOT.parent / "shared" / "goldens")) / "hf"
MAMBA = dict(
    model_type="mamba", hidden_size=4, intermediate_size=8, state_size=2, time_step_rank=1,
    conv_kernel=2, num_hidden_layers=2, vocab_size=7, tie_word_embeddings=True,
)  # fmt: skip
ZAMBA = dict(
    model_type="zamba", hidden_size=4, intermediate_size=6, mamba_d_state=2, mamba_d_conv=2,
    mamba_dt_rank=1, mamba_expand=2, n_mamba_heads=2, num_attention_heads=2, num_hidden_layers=4,
    attn_layer_period=2, attn_layer_offset=0, vocab_size=7, hidden_act="gelu",
    max_position_embeddings=16,
)  # fmt: skip
MIXTURE = dict(
    model_type="jamba", hidden_size=4, intermediate_size=6, mamba_d_state=2, mamba_d_conv=2,
    mamba_dt_rank=1, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=0,
    num_experts=3, num_experts_per_tok=2, vocab_size=7, max_position_embeddings=8,
)  # fmt: skip


def models():
    found = sorted(FOLDER.glob("*/io.npz")) if FOLDER.is_dir() else []
    if not found:
        reason = f"no goldens: {FOLDER} is missing or empty (set SEQJAX_GOLDENS)"
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path.parent, id=path.parent.name) for path in found]


def numbers(folder):
    io = dict(np.load(folder / "io.npz", allow_pickle=False))
    return io, json.loads(str(io.pop("meta")))


def in_float64(checkpoint):
    checkpoint.model.compute = jnp.dtype(jnp.float64)
    return checkpoint.model


@pytest.mark.share(1)
@pytest.mark.parametrize("folder", models())
def test_logits_are_the_stored_ones_at_once_and_one_by_one(folder):
    io, meta = numbers(folder)
    graph, params = nnx.split(in_float64(read(folder, context=32)))
    tokens = jnp.asarray(io["in_input_ids"])
    run = jax.jit(lambda params, tokens, h: nnx.merge(graph, params)(tokens, h))
    whole, last = run(params, tokens, None)
    # the reference computes in float32: it is as far from its own float64 as this says
    noise = meta["verification"]["f64_vs_f32_maxabs"] or 0.0
    np.testing.assert_allclose(whole, io["out_logits"], atol=5e-6 + 2 * noise)
    np.testing.assert_allclose(next_token_loss(whole, tokens), io["out_loss_next_token"], rtol=1e-5)

    h, steps = nnx.merge(graph, params).start(len(tokens)), []
    for t in range(tokens.shape[1]):
        y, h = run(params, tokens[:, t : t + 1], h)
        steps.append(y)
    streamed = jnp.concatenate(steps, axis=1)
    np.testing.assert_allclose(streamed, whole, atol=1e-9)
    assert jax.tree.structure(h) == jax.tree.structure(last)
    differ = meta["verification"]["decode_vs_full_maxabs"]
    if "out_logits_decode" in io and differ < 1e-3:  # where the reference streams what it computes
        bound = 5e-6 + 2 * max(differ, noise)
        np.testing.assert_allclose(streamed, io["out_logits_decode"], atol=bound)


@pytest.mark.thorough  # as many compilations as models
@pytest.mark.parametrize("folder", models())
def test_gradients_are_the_stored_ones(folder):
    io, meta = numbers(folder)
    checkpoint = read(folder, context=32)
    graph, params, rest = nnx.split(in_float64(checkpoint), nnx.Param, ...)
    tokens = jnp.asarray(io["in_input_ids"])

    @jax.jit
    @jax.grad
    def gradient(params):
        return next_token_loss(nnx.merge(graph, params, rest)(tokens)[0], tokens)

    zeros = jax.tree.map(jnp.zeros_like, rest)  # what is not trained
    grads = nnx.merge(graph, gradient(params), zeros)
    norms = {n: np.linalg.norm(g) for n, g in collect(grads, checkpoint.description).items()}
    stored = meta["grad_norms"]
    total = [np.linalg.norm(list(some.values())) for some in (norms, stored)]
    np.testing.assert_allclose(*total, rtol=1e-4)
    for name in set(norms) & set(stored):  # the library names some modules otherwise in files
        np.testing.assert_allclose(norms[name], stored[name], rtol=1e-3, atol=1e-5, err_msg=name)


def next_token_loss(logits, tokens):
    right = jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], axis=2)
    return -jnp.mean(right)


@pytest.mark.share(4)
@pytest.mark.parametrize("folder", models())
def test_what_is_written_is_what_was_read(folder, tmp_path):
    write(read(folder), tmp_path)
    same(folder, tmp_path)
    copy = tmp_path / "ours"
    store(read(folder), copy)
    write(load(copy), tmp_path / "back")
    same(folder, tmp_path / "back")


def same(one, other):
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes(), name
    a, b = (json.loads((folder / "config.json").read_text()) for folder in (one, other))
    assert a == b


# ---- checkpoints made here -----------------------------------------------------------------------


def tensors(config, seed=0):
    """Random tensors under the names and in the shapes of a config."""
    return dict(_tensors(json.dumps(config), seed))


@cache
def _tensors(config, seed):
    description = describe(json.loads(config))
    model, rng = skeleton(description), np.random.default_rng(seed)
    table = list(rules(model, description.table()))
    shapes = expected(model, table)
    found = {n: 0.3 * rng.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}
    follow = [dict(zip(rule.theirs, rule.give([]))) for rule in table if not rule.ours]
    constants = {n: a for some in follow for n, a in some.items()}
    whole = {n: a for n, a in constants.items() if a.dtype.kind == "i"}
    return found | {n: a.astype(np.float32) for n, a in constants.items()} | whole


def checkpoint(folder, config=MAMBA, **changed):
    """A folder with random tensors, some of them changed, or left out by None."""
    folder.mkdir(exist_ok=True)
    content = {n: t for n, t in {**tensors(config), **changed}.items() if t is not None}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_tensors_that_are_missing_unknown_or_misshapen_are_listed(tmp_path):
    folder = checkpoint(
        tmp_path,
        **{
            "backbone.norm_f.weight": None,
            "backbone.layers.1.mixer.D": None,
            "backbone.layers.0.mixer.E": np.zeros(3, np.float32),
            "backbone.embeddings.weight": np.zeros((6, 4), np.float32),
        },
    )
    with pytest.raises(ValueError) as error:
        read(folder)
    told = str(error.value)
    assert "2 missing: backbone.layers.1.mixer.D, backbone.norm_f.weight" in told
    assert "1 unknown: backbone.layers.0.mixer.E" in told
    assert "backbone.embeddings.weight is [6, 4], expected [7, 4]" in told


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(model_type="mambo"), "unknown model_type 'mambo'; did you mean 'mamba'"),
        (dict(use_rope=True), "may change the meaning and are not understood: use_rope = True"),
        (dict(hidden_act="gelu"), "hidden_act = 'gelu' is not supported"),
        (dict(hidden_size=None), "lacks 'hidden_size'"),
    ],
)
def test_configs_that_are_not_understood_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        describe({**MAMBA, **change})


def test_damaged_folders_are_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="no config.json"):
        read(tmp_path)
    folder = checkpoint(tmp_path / "cut")
    whole = (folder / "model.safetensors").read_bytes()
    for cut in (whole[:-20], whole[:100], b""):
        (folder / "model.safetensors").write_bytes(cut)
        with pytest.raises(ValueError, match="model.safetensors is damaged or cut off"):
            read(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no .*safetensors"):
        read(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        read(folder)


def test_files_of_16_bits_and_in_several_parts_come_back_as_they_were(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(MAMBA))
    names = sorted(tensors(MAMBA))
    half = {n: t.astype(jnp.bfloat16) for n, t in tensors(MAMBA).items()}
    for part, some in enumerate((names[:5], names[5:])):
        save_file({n: half[n] for n in some}, folder / f"model-{part}.safetensors")
    home = {
        n: f"model-{part}.safetensors" for part in range(2) for n in (names[:5], names[5:])[part]
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": home}))
    write(read(folder), tmp_path / "out")
    for part in range(2):
        name = f"model-{part}.safetensors"
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"][names[0]] == "model-0.safetensors"
    assert set(index["weight_map"]) == set(names)


def test_a_context_is_what_attention_sees(tmp_path):
    folder = checkpoint(tmp_path, MIXTURE)
    assert read(folder).model.context == 8
    model = read(folder, context=4).model
    with pytest.raises(ValueError, match="6 steps at once, but attention sees 4"):
        model(jnp.zeros((1, 6), jnp.int32))
    with pytest.raises(ValueError, match="the model takes tokens, integers"):
        model(jnp.zeros((1, 3)))


def test_resets_and_masks_reach_every_layer(tmp_path):
    graph, params = nnx.split(in_float64(read(checkpoint(tmp_path, MIXTURE))))
    run = jax.jit(lambda *args, **flags: nnx.merge(graph, params)(*args, **flags)[0])
    tokens = jnp.arange(6)[None] % 7
    resets = jnp.zeros((1, 6), bool).at[0, 2].set(True)
    fresh = run(tokens[:, 2:])
    np.testing.assert_allclose(run(tokens, resets=resets)[:, 2:], fresh, atol=1e-9)
    mask = jnp.ones((1, 6), bool).at[0, :2].set(False)
    np.testing.assert_allclose(run(tokens, mask=mask)[:, 2:], fresh, atol=1e-9)


def test_commands(tmp_path, capsys):
    folder, ours, back = (tmp_path / name for name in ("theirs", "ours", "back"))
    checkpoint(folder)
    assert cli.main(["import", str(folder), "--out", str(ours)]) == 0
    assert "mamba: 2 branches" in capsys.readouterr().out
    assert cli.main(["export", str(ours), "--out", str(back)]) == 0
    same(folder, back)
    capsys.readouterr()
    say = ["generate", str(ours), "--prompt", "1 2 3", "--length", "4", "--temperature", "0"]
    assert cli.main(say) == 0
    out = [int(word) for word in capsys.readouterr().out.split()]
    assert out[:3] == [1, 2, 3] and len(out) == 7
    greedy = generate(read(folder).model, [[1, 2, 3]], 4, temperature=0)
    assert greedy[0].tolist() == out[3:]
    assert cli.main(["import", str(folder), "--out", str(ours)]) == 2
    assert cli.main(["export", str(folder), "--out", str(back)]) == 2


@pytest.mark.thorough
def test_a_model_without_a_head_returns_what_a_head_reads(tmp_path):
    whole = checkpoint(tmp_path / "whole", MIXTURE)
    content, tokens = tensors(MIXTURE), jnp.array([[3, 1, 4, 1]])
    head = content.pop("lm_head.weight")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text(json.dumps(MIXTURE))
    save_file({n.removeprefix("model."): t for n, t in content.items()}, bare / "model.safetensors")
    found = read(bare)
    assert "it has no head: it returns features" in found.summary()
    features = found.model(tokens)[0]
    assert features.shape == (1, 4, 4)
    np.testing.assert_allclose(features @ head.T, read(whole).model(tokens)[0], atol=1e-5)
    store(found, tmp_path / "ours")
    again = load(tmp_path / "ours")
    np.testing.assert_array_equal(again.model(tokens)[0], features)
    write(again, tmp_path / "out")
    same(bare, tmp_path / "out")

    task = Spec(Tokens(7), Classes(2, per_step=False))
    model = Decoder(found.description, ModelConfig(), task, rngs=nnx.Rngs(0))
    assert model(tokens)[0].shape == (1, 2)
    with pytest.raises(ValueError, match="1 missing: norm_f.weight"):  # as such, not all names
        read(checkpoint(tmp_path / "less", MAMBA, **shortened(MAMBA, "backbone.norm_f.weight")))
    tied = read(checkpoint(tmp_path / "tied", MAMBA, **shortened(MAMBA)))
    logits = read(checkpoint(tmp_path / "logits", MAMBA)).model(tokens)[0]
    np.testing.assert_array_equal(tied.model(tokens)[0], logits)  # the head is the embedding


def shortened(config, *left_out):
    """What changes tensors into those of a model without a head."""
    found = tensors(config)
    names = {n.partition(".")[2]: t for n, t in found.items() if n not in left_out}
    return dict.fromkeys(found) | names
