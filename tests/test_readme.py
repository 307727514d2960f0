"""What README.md shows is run here, in order, in one namespace."""

import re
import shlex
from pathlib import Path

import jax

from seqjax.tools import cli
from seqjax.train.record import read_metrics
from seqjax.zoo import LAYERS, own

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_example_trains_and_streams(tmp_path, monkeypatch):
    """The file and the commands of the README, as a user would run them: in float32."""
    monkeypatch.chdir(tmp_path)
    text = README.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    assert len(blocks[0].splitlines()) <= 37, "the first example is to stay short"
    (tmp_path / "leaky.py").write_text(blocks[0])
    shell = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    commands = [shlex.split(line, comments=True)[2:] for line in shell.splitlines()]
    assert [command[0] for command in commands] == ["train", "eval", "check", "train"]
    namespace: dict = {}
    standard = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with jax.enable_x64(False), standard[0], standard[1]:
        try:
            for command in commands:
                tiny = ["--tiny"] if command[1] == "mqar" else []
                assert cli.main(command + tiny) == 0, command
            for block in blocks:
                exec(compile(block, "README.md", "exec"), namespace)
        finally:
            LAYERS.pop("leaky", None)
            own.BROUGHT.clear()
    rows = read_metrics(tmp_path / "runs" / "leaky")
    assert rows[-1]["validation_accuracy"] > 0.9, "parity; chance is 0.5"
    assert (tmp_path / "runs" / "leaky" / "loss.png").exists()
    assert namespace["y"].shape == (2, 100, 8)


def test_commands_exist():
    page = (README.parent / "docs" / "command_line.md").read_text()
    named = set(re.findall(r"^seqjax (\w+)", page, re.MULTILINE))
    assert named == set(cli.COMMANDS), "the page and `seqjax --help` name the same commands"
    assert set(re.findall(r"^seqjax (\w+)", README.read_text(), re.MULTILINE)) <= named
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
