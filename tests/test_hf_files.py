"""Folders of checkpoints: which files are read, hostile ones, and what is written where."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hf_published import PUBLISHED
from safetensors.numpy import save_file
from test_hf import MAMBA, checkpoint, same, tensors

from seqjax.core.common import printable
from seqjax.hf import read, write
from seqjax.tools import cli
from seqjax.train.generate import generate
from seqjax.train.imported import load, store

INDEX = "model.safetensors.index.json"
EMBED, NORM = "backbone.embeddings.weight", "backbone.norm_f.weight"


def in_parts(folder, homes=None, **changed):
    """MAMBA in two files and their index; homes: what the index lists instead of the truth."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(MAMBA))
    content, names = tensors(MAMBA), sorted(tensors(MAMBA))
    truth = {n: "a.safetensors" if n in names[:5] else "b.safetensors" for n in names}
    for file in ("a.safetensors", "b.safetensors"):
        save_file({n: content[n] for n in names if truth[n] == file}, folder / file)
    index = {"metadata": {}, "weight_map": {**truth, **(homes or {})}, **changed}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def mistake(folder, capsys, command="import", *options):
    """The one line on stderr of a command that ends with status 2."""
    capsys.readouterr()
    assert cli.main([command, str(folder), *options]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("seqjax: ") and said.err.count("\n") == 1
    return said.err


def test_the_index_decides_and_stray_files_are_not_read(tmp_path):
    wrong = {n: t + 1 for n, t in tensors(MAMBA).items()}
    for folder in (in_parts(tmp_path / "parts"), checkpoint(tmp_path / "one")):
        save_file(wrong, folder / "z.safetensors")
        found = read(folder)
        np.testing.assert_array_equal(found.model.embed.table[...], tensors(MAMBA)[EMBED])
        assert "files that are not read: z.safetensors" in found.summary()
    save_file(wrong, tmp_path / "parts" / "model.safetensors")  # in no index either
    assert read(tmp_path / "parts").unread == ["model.safetensors", "z.safetensors"]
    (tmp_path / "one" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no model.safetensors .*\(it has z.safetensors\)"):
        read(tmp_path / "one")


def test_a_tensor_is_in_one_file_and_where_the_index_lists_it(tmp_path):
    folder = in_parts(tmp_path / "twice")
    again = {n: t for n, t in tensors(MAMBA).items() if n >= sorted(tensors(MAMBA))[4]}
    save_file(again, folder / "b.safetensors")
    with pytest.raises(ValueError, match="1 tensors are in two files: .* in a.saf.* and b.saf"):
        read(folder)
    folder = in_parts(tmp_path / "astray", {NORM: "a.safetensors", "other": "b.safetensors"})
    with pytest.raises(ValueError, match="lists 2 tensors where they are not: .*norm_f.* in a.saf"):
        read(folder)


@pytest.mark.parametrize(
    "name", ["../b.safetensors", "/b.safetensors", "..", "x/b", "", "\x1b[2J", 7]
)
def test_an_index_lists_names_and_never_paths(name, tmp_path, capsys):
    save_file(tensors(MAMBA), tmp_path / "b.safetensors")  # what a path would reach
    said = mistake(in_parts(tmp_path / "in", {NORM: name}), capsys)
    assert "it has to be a plain name" in said and "\x1b" not in said


def damaged(folder, how):
    """A checkpoint with this damage."""
    checkpoint(folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole = weights.read_bytes()
    match how:
        case int():
            weights.write_bytes(whole[:how])
        case "header of 1e12 bytes":
            weights.write_bytes((10**12).to_bytes(8, "little") + whole[8:])
        case "a tensor of 1e12 numbers":
            header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}'
            weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        case "integers":
            save_file({n: t.astype(np.int8) for n, t in tensors(MAMBA).items()}, weights)
        case "a folder":
            weights.unlink()
            weights.mkdir()
        case "a link to itself":
            weights.unlink()
            weights.symlink_to(weights)
        case "config links to itself":
            config.unlink()
            config.symlink_to(config)
        case "index links to itself":
            (folder / INDEX).symlink_to(folder / INDEX)
        case "names a file that is not there":
            (folder / INDEX).write_text(json.dumps({"weight_map": {NORM: "lost.safetensors"}}))
        case "index is a list":
            (folder / INDEX).write_text("[]")
        case "index without a map":
            (folder / INDEX).write_text('{"weight_map": ["a.safetensors"]}')
        case "config is a list":
            config.write_text(json.dumps([MAMBA]))
        case "config is deep":
            config.write_text("[" * 10**5)
        case "config is no text":
            config.write_bytes(b"\xff\xfe{}")
        case "config of 1e12":
            config.write_text(json.dumps({**MAMBA, "num_hidden_layers": 10**12}))
    return folder


@pytest.mark.parametrize(
    "how, message",
    [
        (0, "is damaged or cut off"),
        (7, "is damaged or cut off"),
        (200, "is damaged or cut off"),
        (-1, "is damaged or cut off"),
        ("header of 1e12 bytes", "is damaged or cut off"),
        ("a tensor of 1e12 numbers", "is damaged or cut off"),
        ("integers", "is stored as I8; only F64, F32, F16, BF16, I64 are read"),
        ("a folder", "there is no model.safetensors in"),
        ("a link to itself", "there is no model.safetensors in"),
        ("config links to itself", "has no config.json"),
        ("index links to itself", "cannot be read: Too many levels"),
        ("names a file that is not there", "lists files that are not there: lost.safetensors"),
        ("index is a list", "has to hold a weight_map, not a list"),
        ("index without a map", "has no weight_map from tensors to files"),
        ("config is a list", "has to hold the fields of a config, not a list"),
        ("config is deep", "config.json is no JSON"),
        ("config is no text", "config.json is no JSON"),
        ("config of 1e12", "has to be an integer from 1 to"),
    ],
)
def test_damage_is_one_line_before_any_work(how, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert message in mistake(damaged(tmp_path / "in", how), capsys, "import", "--out", str(out))
    assert not out.exists() and not list(tmp_path.glob(".partial*"))


def test_control_bytes_do_not_reach_the_terminal(tmp_path, capsys):
    name = "a\x1b]0;title\x07\nseqjax: forged\x9b2J\u202e"
    said = mistake(checkpoint(tmp_path, **{name: np.zeros(1, np.float32)}), capsys)
    assert r"1 unknown: a\x1b]0;title\x07\nseqjax: forged\x9b2J\u202e" in said
    (tmp_path / "config.json").write_text(json.dumps({**MAMBA, "\x1b[2J": "\x1b[2J"}))
    assert r"\x1b[2J = '\x1b[2J'" in mistake(tmp_path, capsys)


def test_printable_keeps_text_and_escapes_the_rest():
    assert printable("tabs\tand\nlines, ä, 漢\u3000字, 🙂") == "tabs\tand\nlines, ä, 漢\u3000字, 🙂"
    assert printable("a\nb", keep="") == r"a\nb"
    assert printable("\x00\r\x7f\x85\u2028\ud800") == r"\x00\r\x7f\x85\u2028\ud800"
    low = printable("".join(map(chr, range(0x300))))
    assert not [c for c in low if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)]


# ---- writing -------------------------------------------------------------------------------------


def test_what_goes_with_the_weights_goes_along(tmp_path, capsys):
    """As in a cache of the hub: the files are links to blobs elsewhere."""
    folder, blobs = checkpoint(tmp_path / "in"), tmp_path / "blobs"
    blobs.mkdir()
    beside = {"generation_config.json": b'{"eos_token_id": 2}', "tokenizer.json": b"{\r\n}",
              "tokenizer.model": bytes(range(256)), "chat_template.jinja": b"{{ x }}"}  # fmt: skip
    for name, content in beside.items():
        (blobs / name).write_bytes(content)
        (folder / name).symlink_to(blobs / name)
    (folder / "notes.txt").write_text("not ours to carry")
    assert cli.main(["import", str(folder), "--out", str(tmp_path / "ours")]) == 0
    assert cli.main(["export", str(tmp_path / "ours"), "--out", str(tmp_path / "out")]) == 0
    same(folder, tmp_path / "out")
    found = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if not p.is_symlink()}
    assert found.keys() == {*beside, "config.json", "model.safetensors"}
    assert all(found[name] == content for name, content in beside.items())


def test_one_part_with_an_index_keeps_it(tmp_path):
    folder = checkpoint(tmp_path / "in")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    homes = dict.fromkeys(tensors(MAMBA), "model-00001-of-00001.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": homes}))
    write(read(folder), tmp_path / "out")
    assert read(tmp_path / "out").files.keys() == {"model-00001-of-00001.safetensors"}


def test_nothing_is_overwritten(tmp_path, capsys):
    folder, ours = checkpoint(tmp_path / "in"), tmp_path / "ours"
    assert cli.main(["import", str(folder), "--out", str(ours)]) == 0
    full, target = tmp_path / "full", tmp_path / "target"
    full.mkdir()
    (full / "thesis.txt").write_text("years")
    target.mkdir()
    link, file = tmp_path / "link", full / "thesis.txt"
    link.symlink_to(target)
    for source, command in ((ours, "export"), (folder, "import")):
        options = (command, "--out")
        assert "is not empty, and nothing is overwritten" in mistake(
            source, capsys, *options, str(full)
        )
        assert "is a symbolic link" in mistake(source, capsys, *options, str(link))
        assert "is a file" in mistake(source, capsys, *options, str(file))
    assert [p.name for p in full.iterdir()] == ["thesis.txt"] and not list(target.iterdir())
    assert file.read_text() == "years" and not list(tmp_path.glob(".partial*"))
    assert cli.main(["export", str(ours), "--out", str(target)]) == 0  # an empty one is fine
    same(folder, target)
    write(load(ours), tmp_path / "new")
    for folder in (target, tmp_path / "new"):  # as the user's other files are, not for one alone
        assert folder.stat().st_mode == full.stat().st_mode
        modes = {path.stat().st_mode for path in folder.iterdir()}
        assert modes == {file.stat().st_mode}


@pytest.mark.parametrize("name", ["../../escaped.safetensors", "{}/escaped.safetensors", "a/b"])
def test_names_in_an_imported_model_are_no_paths(name, tmp_path, capsys):
    """Somebody else's folder: what it calls its files leads out of the export."""
    found, ours = read(checkpoint(tmp_path / "in")), tmp_path / "ours"
    found.files = {name.format(tmp_path): found.files["model.safetensors"]}
    store(found, ours)
    said = mistake(ours, capsys, "export", "--out", str(tmp_path / "deep" / "out"))
    assert "it has to be a plain name" in said
    assert not list(tmp_path.rglob("escaped*")) and not (tmp_path / "deep").exists()


def test_a_write_that_fails_leaves_nothing(tmp_path):
    found = read(checkpoint(tmp_path / "in"))
    found.files["model.safetensors"]["unheard.of"] = "float32"
    with pytest.raises(KeyError, match="unheard.of"):
        write(found, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# ---- what was imported is used -------------------------------------------------------------------


def test_an_import_keeps_its_context(tmp_path, capsys):
    config = dict(PUBLISHED["granite-4.0-h-1b"], num_hidden_layers=1, layer_types=["attention"])
    config["max_position_embeddings"] = 8
    folder, ours = checkpoint(tmp_path / "in", config), tmp_path / "ours"
    assert cli.main(["import", str(folder), "--context", "4", "--out", str(ours)]) == 0
    assert "attention sees 4 tokens" in capsys.readouterr().out
    assert load(ours).model.context == 4 and load(ours, context=6).model.context == 6
    prompt = ["--prompt", "1 2 3 4 5", "--length", "2", "--temperature", "0"]
    assert "5 steps at once, but attention sees 4" in mistake(ours, capsys, "generate", *prompt)
    assert cli.main(["generate", str(ours), *prompt, "--context", "8"]) == 0
    assert len(capsys.readouterr().out.split()) == 7
    assert "from 1 to 8, got 9" in mistake(ours, capsys, "generate", *prompt, "--context", "9")
    assert "has no steps" in mistake(ours, capsys, "generate", *prompt, "--step", "2")
    write(load(ours), tmp_path / "out")
    same(folder, tmp_path / "out")


def test_nothing_is_written_with_logits_that_are_not_finite(tmp_path):
    model = read(checkpoint(tmp_path)).model
    scale = model.norm.weight
    scale.set_value(jnp.full_like(scale.get_value(), jnp.nan))
    with pytest.raises(
        FloatingPointError, match="answers to prompt 0 are not finite before step 0"
    ):
        generate(model, [[1, 2], [3]], 2, key=jax.random.key(0))
