"""The configs of released models: every field is used, ignored or refused, and all are read."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hf_published import PUBLISHED
from safetensors.numpy import save_file
from test_hf import MAMBA, MIXTURE, checkpoint, in_float64, same, tensors

from seqjax.hf import ARCHITECTURES, describe, read, write
from seqjax.train.imported import load, store

GLM = PUBLISHED["glm-5.3-flash"]["text_config"]
KDA = PUBLISHED["kimi-linear-48b-a3b"]["linear_attn_config"]
# used, but of no weight in a model of these sizes, and why
ONLY_ELSEWHERE = {
    "hidden_ratio": "of flash-linear-attention: at this size 256 inner features, whatever it is",
    "max_position_embeddings": "bounds the context, which is at most 4096 anyway",
    "safe_gate": "a lower bound of the decays is given: this one is not taken",
    "model_max_length": "bounds the context, which is at most 4096 anyway",
}


@pytest.mark.share(6)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read(name, tmp_path):
    config = PUBLISHED[name]
    checkpoint(tmp_path / "in", config)
    found = read(tmp_path / "in")
    assert found.model.outputs.count == flat(config).get("vocab_size", 11)
    write(found, tmp_path / "out")
    same(tmp_path / "in", tmp_path / "out")


@pytest.mark.thorough
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_stream_finite_logits(name, tmp_path):
    graph, params = nnx.split(in_float64(read(checkpoint(tmp_path, PUBLISHED[name]))))
    run = jax.jit(lambda params, tokens, h: nnx.merge(graph, params)(tokens, h))
    tokens, h = jnp.array([[3, 1, 4, 1, 5]]), nnx.merge(graph, params).start(1)
    whole = run(params, tokens, None)[0]
    assert np.isfinite(whole).all() and np.std(whole) > 1e-4
    for t in range(5):
        y, h = run(params, tokens[:, t : t + 1], h)
        np.testing.assert_allclose(y[:, 0], whole[:, t], atol=1e-9)


def test_every_architecture_has_a_published_config():
    assert {config["model_type"] for config in PUBLISHED.values()} == set(ARCHITECTURES)


def others(value):
    """Values of the same kind that are not `value`."""
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1, 2 * value + 3, 0.5]
        case str():
            return ["relu", "another"]
        case list():
            return [value[::-1], value[:-1], [*value, *value], [0], ["attention", "recurrent"]]
    return [{}, {"rope_theta": 7.0}, {"another": 1}]


def meaning(config):
    """All of the description, the reasons of ignored fields apart; an error where it is refused."""
    try:
        description = describe(config)
    except ValueError as error:
        return f"refused: {error}"
    return repr({name: v for name, v in vars(description).items() if name != "ignored"})


def flat(config, ignored=(), at=""):
    """The fields of a config, and those of the objects in it that are read, with dots."""
    found = {}
    for name, value in config.items():
        if isinstance(value, dict) and at + name not in ignored:
            found |= flat(value, ignored, f"{at}{name}.")
        elif value is not None:
            found[at + name] = value
    return found


def changed(config, field, *value):
    """The config with another value of a field, or without it."""
    name, _, below = field.partition(".")
    if below:
        return {**config, name: changed(config[name], below, *value)}
    rest = {n: v for n, v in config.items() if n != name}
    return {**rest, name: value[0]} if value else rest


@pytest.mark.parametrize("name", PUBLISHED)
def test_ignored_fields_change_nothing_and_used_ones_do(name):
    config = PUBLISHED[name]
    ignored, whole = describe(config).ignored, meaning(config)
    given = flat(config, ignored)
    assert set(ignored) <= set(given)
    for field in ignored:
        assert meaning(changed(config, field, "another")) == whole, field
        assert meaning(changed(config, field)) == whole, field
    for field in set(given) - set(ignored):
        if field.rpartition(".")[2] not in ONLY_ELSEWHERE:
            found = {meaning(changed(config, field, value)) for value in others(given[field])}
            assert found != {whole}, f"{field} is said to be used, and changes nothing"


@pytest.mark.parametrize(
    "model, change, message",
    [
        ("qwen3-next-80b-a3b", dict(use_sliding_window=True), "attention sees a window"),
        ("recurrentgemma-2b", dict(embeddings_scale_by_sqrt_dim=False), "multiplied by sqrt"),
        ("recurrentgemma-2b", dict(block_types=["recurrent"]), "kinds of blocks, as block_types"),
        ("granite-4.0-h-tiny", dict(normalization_function="layernorm"), "norm of every block"),
        ("granite-4.0-h-tiny", dict(layer_types=["mamba", "gru"]), "unknown kind of block .*'gru'"),
        ("granite-4.0-h-tiny", dict(layer_types=["mamba"]), "has to name 2 blocks"),
        ("xlstm-7b", dict(add_qk_norm=True), "norms of the queries and keys"),
        ("xlstm-7b", dict(hidden_size=16), "it must equal embedding_dim"),
        ("kimi-linear-48b-a3b", dict(mla_use_nope=False), "attention has no positions"),
        ("kimi-linear-48b-a3b", dict(linear_attn_config={"num_heads": 10**12}), "has to be an int"),
        ("kimi-linear-48b-a3b", dict(linear_attn_config={"window": 1, **KDA}), "window = 1"),
        ("kimi-linear-48b-a3b", dict(linear_attn_config={**KDA, "kda_layers": []}), "not in full"),
        ("olmo-hybrid-7b", dict(rope_parameters=None), "documents it as no positions"),
        ("lfm2-1.2b", dict(use_pos_enc=False), "attention has positions"),
        ("lfm2-1.2b", dict(quantization_config={"bits": 4}), "stored in fewer bits"),
        ("minimax-text-01", dict(shared_intermediate_size=8), "a shared expert"),
        ("falcon-h1-0.5b", dict(attn_layer_indices=[0]), "the blocks that have attention"),
        ("jamba-v0.1", dict(mamba_inner_layernorms=False), "norms on the time step"),
        ("jamba-v0.1", dict(num_attention_heads="2"), "has to be an integer from 1"),
        ("jamba-v0.1", dict(num_hidden_layers=10**12), "has to be an integer from 1"),
        ("jamba-v0.1", dict(hidden_size=10**12), "has to be an integer from 1"),
        ("jamba-v0.1", dict(hidden_size=0), "has to be an integer from 1"),
        ("jamba-v0.1", dict(rms_norm_eps="small"), "has to be a number"),
        ("jamba-v0.1", dict(tie_word_embeddings="no"), "has to be true or false"),
        ("bamba-9b", dict(rope_theta="high"), "has to be a number"),
        ("zamba-7b-v1", dict(layers_block_type=["mamba"] * 4), "there is nothing shared"),
        ("gla-1.3b-100b", dict(attnres_block_size=2), "attend over residuals"),
        ("gla-1.3b-100b", dict(attn={"layers": [9], "num_heads": 2}), "different ones of 0 to 1"),
        ("gla-1.3b-100b", dict(attn=[{"layers": [0]}]), "lacks 'num_heads'"),
        ("gla-1.3b-100b", dict(attn={"layers": [0], "num_heads": 2, "nope": 1}), "nope = 1"),
        ("gla-1.3b-100b", dict(expand_k=0.3), "have to be a whole number"),
        ("delta_net-1.3b-100b", dict(qk_norm="max"), "unknown qk_norm: 'max'"),
        ("rwkv7-goose-world-1.5b", dict(value_dim=16), "as wide as the features"),
        ("linear_attn-1.3b", dict(norm_feature_map=True), "divided by the sum of their weights"),
        ("linear_attn-1.3b", dict(tie_feature_map_qk=True), "queries and keys share a map"),
        ("linear_attn-1.3b", dict(feature_map="rebased"), "unknown feature_map: 'rebased'"),
        ("mamba-130m", dict(model_type="mamba3"), "mamba3 is not read: its kernels"),
        ("mamba-130m", dict(model_type=["mamba"]), "unknown model_type"),
        ("glm-5.3-flash", dict(text_config={**GLM, "index_topk": 3}), "= 2 has to divide it"),
        ("glm-5.3-flash", dict(text_config={**GLM, "indexer_types": ["shared"] * 3}), "chose"),
        ("qwen4_exp_text", dict(indexer_kv_heads=2), "keys of the indexer; only 1"),
        ("qwen4_exp_text", dict(indexer_budget=5), "indexer_compress_ratio = 2 has to divide it"),
        ("qwen4_exp_text", dict(indexer_n_heads=None), "lacks 'indexer_n_heads'"),
        ("qwen4_exp-options", dict(ple_layer_ids=[2]), "blocks with the recurrence, from 1 on"),
        ("qwen4_exp-options", dict(eos_token_id=[]), "stands a token below 13"),
        ("qwen4_exp-options", dict(ngram_vocab_size_base=2**30), "tables have at least so many"),
        ("qwen4_exp-options", dict(output_gate_type="relu"), "unknown output_gate_type: 'relu'"),
        ("zaya1-8b", dict(num_experts_per_tok=2), "the experts of a token"),
        ("zaya1-8b", dict(layer_types=["hybrid_sliding"] * 3), "see a window, and none is given"),
        ("inkling-options", dict(q_bias=True), "queries have a bias"),
        ("inkling2-options", dict(scoring_func="relu"), "the scores of experts"),
        ("inkling2_loop-options", dict(loop_layer_index_end=5), "from 1 to 5 are run again"),
        ("inkling-options", dict(n_shared_experts=0), "has to be an integer from 1"),
        ("minimax-text-01-own", dict(attn_type_list=[0, 2, 1]), "unknown kind of block"),
        ("plamo-2-1b", dict(image_token_id=5), "the model sees images"),
    ],
)
def test_values_that_are_not_computed_are_refused_with_their_meaning(model, change, message):
    with pytest.raises(ValueError, match=message):
        describe({**PUBLISHED[model], **change})


def test_fields_that_decide_in_released_configs():
    xlstm = PUBLISHED["xlstm-7b"]
    assert len(describe({**xlstm, "num_hidden_layers": 32}).branches) == 2 * xlstm["num_blocks"]
    released = PUBLISHED["recurrentgemma-2b"]
    kinds = [branch.names for branch in describe(released).branches][::2]
    turned = {**released, "_block_types": ["attention", "recurrent", "recurrent"]}
    assert [b.names for b in describe(turned).branches][::2] == kinds[-1:] + kinds[:-1]
    attend = describe({**PUBLISHED["minimax-text-01"], "rotary_dim": 2}).branches[2].layer
    assert attend.keywords["rotary_fraction"] == 0.5 and attend.keywords["base"] == 1e7
    bare = {n: v for n, v in PUBLISHED["lfm2-1.2b"].items() if n not in ("theta", "rope_theta")}
    assert describe(bare).branches[2].layer.keywords["base"] == 1e6  # its own default
    olmo = describe(PUBLISHED["olmo-hybrid-7b"]).branches[2].layer
    assert olmo.keywords["rotary_fraction"] == 0.0
    nulled = {**PUBLISHED["olmo-hybrid-7b"], "rope_theta": None}
    del nulled["rope_parameters"]
    assert describe(nulled).branches[2].layer.keywords["rotary_fraction"] == 0.0


def test_convolutions_that_were_cut_in_equal_parts(tmp_path):
    """Queries and keys have 6 channels, values 12; the file has three times 8."""
    config = PUBLISHED["olmo-hybrid-7b"]
    found = tensors(config)
    at = "model.layers.0.linear_attn.{}_conv1d.weight"
    whole = np.concatenate([found[at.format(c)] for c in "qkv"])
    thirds = dict(zip(map(at.format, "qkv"), np.split(whole, 3)))
    sized, cut = checkpoint(tmp_path / "a", config), checkpoint(tmp_path / "b", config, **thirds)
    other = read(cut)
    one, two = (jax.tree.leaves(nnx.state(model)) for model in (read(sized).model, other.model))
    assert len(one) == len(two) and all(np.array_equal(a, b) for a, b in zip(one, two))
    store(other, tmp_path / "ours")
    write(load(tmp_path / "ours"), tmp_path / "out")
    same(cut, tmp_path / "out")
    lost = {**thirds, at.format("q"): thirds[at.format("q")][:5]}
    with pytest.raises(ValueError, match=r"q_conv1d.weight is \[5, 1, 4\], expected \[6, 1, 4\]"):
        read(checkpoint(tmp_path / "c", config, **lost))


def test_tensors_that_no_logit_needs_are_kept_for_export(tmp_path):
    extra = {"mtp.fc.weight": np.ones((2, 3), np.float16), "mtp.norm.weight": np.ones(3)}
    folder = checkpoint(tmp_path / "in", PUBLISHED["qwen3-next-80b-a3b"], **extra)
    found = read(folder)
    assert "no logit needs, kept for export: mtp.fc.weight, mtp.norm.weight" in found.summary()
    store(found, tmp_path / "ours")
    write(load(tmp_path / "ours"), tmp_path / "out")
    same(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="1 unknown: mtp.fc.weight"):
        read(checkpoint(tmp_path / "mamba", MAMBA, **{"mtp.fc.weight": extra["mtp.fc.weight"]}))


def test_whole_numbers_that_follow_from_the_config_are_kept_to_the_last_one(tmp_path):
    config = PUBLISHED["qwen4_exp-options"]
    folder = checkpoint(tmp_path / "in", config)
    found = read(folder)
    at = "model.layers.0.ple.ple_embedding.layer_multipliers"
    numbers = found.constants[at]
    assert numbers.dtype == np.int64 and numbers.max() > 2**53
    store(found, tmp_path / "ours")
    write(load(tmp_path / "ours"), tmp_path / "out")
    same(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="layer_multipliers should follow from the config"):
        read(checkpoint(tmp_path / "other", config, **{at: numbers + 2}))
    norm = "model.layers.0.linear_attn.dt_bias"
    whole = {norm: np.ones(2, np.int64)}
    with pytest.raises(ValueError, match="dt_bias is stored as whole numbers, which no weights"):
        read(checkpoint(tmp_path / "whole", config, **whole))


def test_a_tied_head_may_be_stored_too(tmp_path):
    embed = tensors(MAMBA)["backbone.embeddings.weight"]
    folder = checkpoint(tmp_path / "in", MAMBA, **{"lm_head.weight": embed})
    found = read(folder)
    assert found.model.head.kernel is None
    write(found, tmp_path / "out")
    same(folder, tmp_path / "out")
    table = found.model.embed.table
    table.set_value(table.get_value() + 1)  # as training does
    write(found, tmp_path / "trained")
    again = read(tmp_path / "trained")  # the copy follows
    np.testing.assert_array_equal(again.model.embed.table[...], embed + 1)
    with pytest.raises(ValueError, match="other numbers than .* tie_word_embeddings to false"):
        read(checkpoint(tmp_path / "other", MAMBA, **{"lm_head.weight": embed + 1}))
    untied = {**MAMBA, "tie_word_embeddings": False}
    read(checkpoint(tmp_path / "untied", untied, **{"lm_head.weight": embed + 1}))


def test_the_summary_names_what_was_ignored(tmp_path):
    config = {**PUBLISHED["mamba-codestral-7b"]}
    lines = read(checkpoint(tmp_path, config)).summary().splitlines()
    assert lines[0].startswith("mamba2: 2 branches, ")
    told = {line.split(": ")[0].strip(): line.split(": ")[1].split(", ") for line in lines[1:]}
    unread = "ignored in config.json, not read by the reference"
    assert told[unread] == ["intermediate_size", "norm_before_gate", "rms_norm", "time_step_rank"]
    assert sorted(sum(told.values(), [])) == sorted(describe(config).ignored)


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "num_hidden_layers"])
def test_sizes_beyond_what_is_stored_are_refused_at_once(field, tmp_path):
    folder = checkpoint(tmp_path, MIXTURE)
    for size in (10**12, 2**31 - 1, 10**6):
        (folder / "config.json").write_text(json.dumps({**MIXTURE, field: size}))
        with pytest.raises(ValueError, match=f"{field} = {size} is not supported"):
            read(folder)
    for field, value in (("mamba_expand", -1), ("num_attention_heads", 3), ("mamba_expand", [2])):
        (folder / "config.json").write_text(json.dumps({**MIXTURE, field: value}))
        with pytest.raises(ValueError):  # whatever a layer makes of it
            read(folder)
    # each of them fits, all together do not
    wide = {**MIXTURE, "hidden_size": 400, "intermediate_size": 400, "num_experts": 400}
    (folder / "config.json").write_text(json.dumps(wide))
    with pytest.raises(ValueError, match="numbers, and [0-9,]+ are stored"):
        read(folder)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    names = ["backbone.norm_f.weight", "backbone.layers.1.mixer.D"]
    bad = dict(zip(names, (np.full(4, np.nan, np.float32), np.full(8, np.inf, np.float32))))
    with pytest.raises(ValueError, match="2 of .* tensors have numbers that are NaN") as error:
        read(checkpoint(tmp_path / "some", MAMBA, **bad))
    assert all(name in str(error.value) for name in names)
    halves = {n: np.full(t.shape, np.nan, jnp.bfloat16) for n, t in tensors(MAMBA).items()}
    folder = checkpoint(tmp_path / "all")
    save_file(halves, folder / "model.safetensors")
    with pytest.raises(ValueError, match="NaN or infinite: backbone.embeddings.weight, "):
        read(folder)


def test_experts_and_prefixes_as_the_releases_of_qwen_have_them(tmp_path):
    """Experts in one tensor, and a text model under the name that it has beside a tower."""
    released = PUBLISHED["qwen3.5-35b-a3b"]
    saved = released["text_config"]
    one_by_one = tensors(saved)
    models = [read(checkpoint(tmp_path / "saved", saved)).model]
    gone = {n: None for n in tensors(released) if ".experts." in n}
    together = {n.replace("model.", "model.language_model.", 1): t for n, t in one_by_one.items()}
    together["lm_head.weight"] = one_by_one["lm_head.weight"]
    for i in range(2):
        at = f"model.language_model.layers.{i}.mlp.experts"
        gate, up, down = (
            np.stack([together.pop(f"{at}.{e}.{name}_proj.weight") for e in range(4)])
            for name in ("gate", "up", "down")
        )
        together[f"{at}.gate_up_proj"] = np.concatenate([gate, up], axis=1)
        together[f"{at}.down_proj"] = down
    absent = {n: None for n in one_by_one if n != "lm_head.weight"}
    for name, config, less in (("released", released, gone), ("text", saved, absent)):
        folder = checkpoint(tmp_path / name, config, **less, **together)
        found = read(folder)
        write(found, tmp_path / f"{name} out")
        same(folder, tmp_path / f"{name} out")
        models.append(found.model)
    first, *others = (jax.tree.leaves(nnx.state(model)) for model in models)
    for leaves in others:
        assert all(np.array_equal(a, b) for a, b in zip(first, leaves, strict=True))
