"""The models that come with the package: they load, score what their cards have, and write."""

import re

import pytest

from scripts.pretrain import PLANS, measure
from seqjax.models import FOLDER, MODELS, find
from seqjax.tools import cli

MEGABYTES = 2  # of a model at most


@pytest.mark.share(1)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_scores_what_its_card_has(name):
    files = sum(path.stat().st_size for path in (FOLDER / name).iterdir())
    assert files < MEGABYTES * 1e6
    card = (FOLDER / name / "CARD.md").read_text()
    (row,) = re.findall(r"^\| sample \| (.*) \|$", card, re.MULTILINE)
    stated = {metric: float(value) for metric, value in re.findall(r"(\w+) (\S+)", row)}
    found = measure(name, PLANS[name].sample)
    assert set(stated) == set(found)
    for metric, value in found.items():
        assert abs(value - stated[metric]) < 0.01 * max(1, stated[metric]), (metric, value)


def test_names_of_models_are_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert set(PLANS) == set(MODELS)
    assert cli.main(["generate", "python", "--prompt", "import os\nimport s", "--length", "40",
                     "--temperature", "0"]) == 0  # fmt: skip
    written = capsys.readouterr().out
    assert written.startswith("import os\nimport sys\n"), written
    assert (
        cli.main(["eval", "permutations", "--batch", "2", "--length", "50", "--batches", "1"]) == 0
    )
    assert "baseline" in capsys.readouterr().out
    assert cli.main(["eval", "permutations", "--step", "3"]) == 2
    assert "the weights of one step" in capsys.readouterr().err
    argv = ["train", "state_tracking", "--task.options", "group=S3", "--from", "permutations"]
    assert cli.main([*argv, "--tiny", "--run", "tuned"]) == 0  # two steps, and as good as before
    assert "accuracy 1 " in capsys.readouterr().out
    assert cli.main(["generate", "pyhton"]) == 2
    assert "did you mean 'python'" in capsys.readouterr().err
    assert cli.main(["list", "--kind", "models"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in MODELS)
    (tmp_path / "python").mkdir()
    assert find("python").resolve() == tmp_path / "python"  # a run of that name comes first
