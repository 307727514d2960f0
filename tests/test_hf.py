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
from conftest import FULL
from flax import nnx
from safetensors.numpy import load_file, save_file

from seqjax.hf import describe, read, write
from seqjax.hf.folder import collect, expected, skeleton
from seqjax.hf.tensors import rules
from seqjax.tools import cli
from seqjax.train.generate import generate
from seqjax.train.imported import load, store

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("SEQJAX_GOLDENS", ROOT.parent / "shared" / "goldens")) / "hf"
MAMBA = dict(
    model_type="mamba", hidden_size=4, intermediate_size=8, state_size=2, time_step_rank=1,
    conv_kernel=2, num_hidden_layers=2, vocab_size=7, tie_word_embeddings=True,
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


@pytest.mark.share(3)
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


@pytest.mark.share(6)
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
    constants = {n: a.astype(np.float32) for some in follow for n, a in some.items()}
    return found | constants


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


ATTENTION = dict(
    hidden_size=4, intermediate_size=6, num_attention_heads=2, num_key_value_heads=1, vocab_size=7,
    max_position_embeddings=16,
)  # fmt: skip
BESIDE = dict(mamba_d_state=2, mamba_d_conv=2, mamba_n_heads=2, mamba_d_head=4, mamba_n_groups=2)
LINEAR = dict(
    linear_num_key_heads=1, linear_num_value_heads=2, linear_key_head_dim=2,
    linear_value_head_dim=3, linear_conv_kernel_dim=2,
)  # fmt: skip
BEYOND = {  # what no stored model has: experts, constants, biases, adapters
    "granite": dict(
        **ATTENTION, **BESIDE, model_type="granitemoehybrid", num_hidden_layers=2,
        layer_types=["mamba", "attention"], position_embedding_type="rope", num_local_experts=3,
        num_experts_per_tok=2, shared_intermediate_size=5, residual_multiplier=0.5,
        logits_scaling=2.0, embedding_multiplier=3.0, attention_multiplier=0.3,
    ),
    "falcon_h1": dict(
        **ATTENTION, **BESIDE, model_type="falcon_h1", num_hidden_layers=1, mamba_rms_norm=True,
        mamba_norm_before_gate=False, ssm_multipliers=[0.5, 1.5, 2.0, 0.7, 0.9], key_multiplier=0.4,
        mlp_multipliers=[0.8, 1.2], ssm_out_multiplier=0.6, attention_bias=True,
    ),
    "qwen3_next": dict(
        **ATTENTION, **LINEAR, model_type="qwen3_next", num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"], num_experts=3, num_experts_per_tok=2,
        moe_intermediate_size=3, shared_expert_intermediate_size=2, attention_bias=True,
    ),
    "kimi_linear": dict(
        model_type="kimi_linear", hidden_size=4, intermediate_size=6, num_attention_heads=2,
        vocab_size=7, num_hidden_layers=2, kv_lora_rank=3, q_lora_rank=2, qk_nope_head_dim=2,
        qk_rope_head_dim=1, v_head_dim=2, num_experts=4, num_experts_per_token=1,
        num_expert_group=2, moe_intermediate_size=3, num_shared_experts=2, linear_attn_config=dict(
            full_attn_layers=[2], kda_layers=[1], head_dim=2, num_heads=2, short_conv_kernel_size=2
        ),
    ),
    "zamba2": dict(
        **{**ATTENTION, "num_key_value_heads": 2}, model_type="zamba2", num_hidden_layers=3,
        n_mamba_heads=2, mamba_d_state=2, mamba_d_conv=2,
        layers_block_type=["hybrid", "hybrid", "hybrid"], num_mem_blocks=2, adapter_rank=2,
        use_shared_attention_adapter=True, add_bias_linear=True, hidden_act="gelu",
    ),
}  # fmt: skip


@pytest.mark.share(3)
@pytest.mark.parametrize("name", BEYOND)
def test_options_that_no_stored_model_has(name, tmp_path):
    folder = checkpoint(tmp_path / "in", BEYOND[name])
    write(read(folder), tmp_path / "out")
    same(folder, tmp_path / "out")
    model = in_float64(read(folder))
    if not FULL:
        tokens = jax.ShapeDtypeStruct((2, 3), jnp.int32)
        logits, _ = jax.eval_shape(lambda tokens: model(tokens), tokens)
        assert logits.shape == (2, 3, 7)
        return
    graph, params = nnx.split(model)
    run = jax.jit(lambda params, tokens, h: nnx.merge(graph, params)(tokens, h))
    tokens, h, steps = jnp.array([[3, 1, 4, 1]]), model.start(1), []
    whole, _ = run(params, tokens, h)
    for t in range(4):
        y, h = run(params, tokens[:, t : t + 1], h)
        steps.append(y)
    np.testing.assert_allclose(jnp.concatenate(steps, axis=1), whole, atol=1e-9)
    assert jnp.std(whole) > 1e-3


ZAMBA = dict(
    model_type="zamba", hidden_size=4, intermediate_size=6, mamba_d_state=2, mamba_d_conv=2,
    mamba_dt_rank=1, mamba_expand=2, n_mamba_heads=2, num_attention_heads=2, num_hidden_layers=4,
    attn_layer_period=2, attn_layer_offset=0, vocab_size=7, hidden_act="gelu",
    max_position_embeddings=16,
)  # fmt: skip


def test_zamba_is_its_equations(tmp_path):
    """No numbers are stored of it: the equations once more, one step after the other."""
    w = {n: t.astype(np.float64) for n, t in tensors(ZAMBA).items()}
    tokens = np.array([3, 1, 4, 1, 5])
    T, R, N, D = len(tokens), 1, 2, 4

    def rms(x, name):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5) * w[name + ".weight"]

    def silu(x):
        return x / (1 + np.exp(-x))

    def mamba(x, at):
        u, z = (x @ w[at + "in_proj.weight"].T).reshape(T, 2 * D, 2).transpose(2, 0, 1)
        taps = w[at + "conv1d.weight"][:, 0]
        before = np.concatenate([np.zeros((1, 2 * D)), u[:-1]])
        u = silu(before * taps[:, 0] + u * taps[:, 1] + w[at + "conv1d.bias"])
        y = np.zeros((T, 2, D))
        for head in range(2):
            own = u.reshape(T, 2, D)[:, head]
            delta, B, C = np.split(own @ w[at + "x_proj_weight"][head].T, [R, R + N], axis=1)
            dt = delta @ w[at + "dt_proj_weight"][head].T + w[at + "dt_proj_bias"][head]
            dt, A = np.logaddexp(0, dt), -np.exp(w[at + "A_log"][head])
            h = np.zeros((D, N))
            for t in range(T):
                h = np.exp(dt[t, :, None] * A) * h + (dt[t] * own[t])[:, None] * B[t]
                y[t, head] = h @ C[t] + w[at + "D"][head] * own[t]
        return (y.reshape(T, 2 * D) * silu(z)) @ w[at + "out_proj.weight"].T

    def shared(x, at):
        x = rms(x, at + "input_layernorm")
        q, k, v = ((x @ w[f"{at}self_attn.{c}_proj.weight"].T).reshape(T, 2, 4) for c in "qkv")
        scores = np.einsum("thk,shk->hts", q, k) / np.sqrt(4 / 2)
        p = np.exp(np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf))
        y = np.einsum("hts,shk->thk", p / p.sum(-1, keepdims=True), v).reshape(T, 8)
        y = rms(y @ w[at + "self_attn.o_proj.weight"].T, at + "pre_ff_layernorm")
        one, two, three = (w[f"{at}feed_forward.{n}_proj.weight"].T for n in ("gate", "up", "down"))
        return (np.asarray(jax.nn.gelu(y @ one, approximate=False)) * (y @ two)) @ three

    x = first = w["model.embed_tokens.weight"][tokens]
    for i, hybrid in enumerate((False, False, True, True)):
        at, u = f"model.layers.{i}.", x
        if hybrid:
            both = np.concatenate([x, first], axis=1)
            u = x + shared(both, "model.layers.2.shared_transf.") @ w[at + "linear.weight"].T
            at += "mamba_decoder."
        x = x + mamba(rms(u, at + "input_layernorm"), at + "mamba.")
    expected_ = rms(x, "model.final_layernorm") @ w["model.embed_tokens.weight"].T

    graph, params = nnx.split(in_float64(read(checkpoint(tmp_path, ZAMBA))))
    run = jax.jit(lambda params, tokens: nnx.merge(graph, params)(tokens)[0][0])
    np.testing.assert_allclose(run(params, jnp.asarray(tokens)[None]), expected_, atol=1e-9)
