"""The table of commands, and what `import seqjax` gives."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import seqjax
from seqjax.tools import cli

PROGRAM = """
import sys
from seqjax.tools.cli import main
status = main(sys.argv[1:])
print(sorted({"jax", "flax", "optax", "numpy", "tyro", "rich", "matplotlib"} & set(sys.modules)))
sys.exit(status)
"""


@pytest.mark.parametrize("words, shown", [
    ([], "usage: seqjax COMMAND"), (["--help"], "selfcheck"),
    (["--version"], f"seqjax {seqjax.__version__} (jax "),
])  # fmt: skip
def test_help_and_version_import_nothing_heavy(words, shown):
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True)
    assert done.returncode == 0 and shown in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there(name):
    function = cli.COMMANDS[name].function
    assert callable(function)
    if not cli.COMMANDS[name].named:
        assert function.__doc__, f"seqjax {name} --help would be empty"


def test_a_command_with_a_typo(capsys):
    assert cli.main(["trian", "parity"]) == 2
    assert capsys.readouterr().err.startswith("seqjax: unknown command 'trian'; did you mean 't")


def for_types():
    """name -> module and name there, of the imports that only type checkers read."""
    (block,) = (node for node in ast.parse(Path(seqjax.__file__).read_text()).body
                if isinstance(node, ast.If))  # fmt: skip
    return {alias.asname: (node.module, alias.name)
            for node in block.body if isinstance(node, ast.ImportFrom)
            for alias in node.names}  # fmt: skip


def test_names_are_those_that_type_checkers_read():
    typed = for_types()
    packages = {name for name, (module, _) in typed.items() if module == "seqjax"}
    assert set(typed) - packages == set(seqjax.HOMES)
    assert set(typed) <= set(dir(seqjax))
    for name, (module, there) in typed.items():
        found = getattr(seqjax, name)
        if name in packages:
            assert found is sys.modules[f"seqjax.{name}"], f"{name} is a package"
        else:
            assert found is getattr(sys.modules[module], there)
    with pytest.raises(AttributeError, match="no attribute 'liner_scan'"):
        seqjax.liner_scan  # noqa: B018


def test_no_function_hides_a_package():
    folder = Path(seqjax.__file__).parent
    assert not {path.name for path in folder.iterdir() if path.is_dir()} & set(seqjax.HOMES)
