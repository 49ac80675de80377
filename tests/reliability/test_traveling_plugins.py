"""A plugin travels with its run: moved, renamed or copied to another machine, the run finds it."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import rpat_cli as rpat
from rpat_cli.cli.app import app
from rpat_cli.data import DATASETS
from rpat_cli.errors import ConfigError, RunFolderError
from rpat_cli.methods import METHODS
from rpat_cli.models import MODELS
from rpat_cli.recipe import plugins
from rpat_cli.recipe.layers import Layer, read_recipe, resolve
from rpat_cli.recipe.trust import trusting
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.registry import import_file
from rpat_cli.runs.checkpoints import saved_form

PLUGIN = """
from torch import nn
from rpat_cli.models import MODELS
from width_of_mine import WIDTH


def flat(channels, image_size, classes):
    from layers_of_mine.linear import linear
    first, last = linear(channels * image_size**2, WIDTH), linear(WIDTH, classes)
    return nn.Sequential(nn.Flatten(), first, last)


MODELS.add("flat-net", flat)
"""
SMALL: dict[str, Any] = {
    "data": {"name": "fashion-mini", "val_size": 100},
    "model": "flat-net",
    "method": "standard",
    "epochs": 2,
    "eval": ["clean"],
    "validation": {"steps": 1},
}


def write_plugin(folder: Path) -> Path:
    folder.mkdir()
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "width_of_mine.py").write_text("WIDTH = 8\n")
    (folder / "layers_of_mine").mkdir()
    (folder / "layers_of_mine" / "__init__.py").write_text("")
    (folder / "layers_of_mine" / "linear.py").write_text(
        "from torch.nn import Linear\n\n\ndef linear(a, b):\n    return Linear(a, b)\n"
    )
    (folder / "unrelated.py").write_text("1 / 0\n")
    return folder / "mine.py"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process, which has loaded no plugin."""
    for table in (MODELS, METHODS, DATASETS):
        ours = {name: entry for name, entry in table._entries.items() if isinstance(entry, str)}
        monkeypatch.setattr(table, "_entries", {**ours, **_built_in(table)})
    monkeypatch.setattr(plugins, "_loaded", {})
    for name in list(sys.modules):
        if name.startswith(("rpat_plugin_mine", "width_of_mine", "layers_of_mine")):
            monkeypatch.delitem(sys.modules, name)


def _built_in(table: Any) -> dict[str, Any]:
    return {
        name: entry
        for name, entry in table._entries.items()
        if not str(getattr(entry, "__module__", "")).startswith("rpat_plugin_")
    }


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a plugin, stopped after the first of two epochs; the plugin's own folder is gone
    since."""
    with pytest.MonkeyPatch.context() as patch:
        forget(patch)
        folder = tmp_path_factory.mktemp("lab")
        patch.chdir(folder)
        source = write_plugin(folder / "own")
        arguments = ["--plugin", source, "--model", "flat-net", "--method", "standard"]
        arguments += ["--epochs", "2", "--eval", "clean", "--val-size", "100", "--jobs", "1"]
        arguments += ["--set", "validation.steps=1", "--stop-after", "1", "--out", "run", "-q"]
        command("train", *arguments)
        shutil.move(folder / "own", folder / "elsewhere")
        return folder / "run"


def command(*arguments: Any) -> None:
    app([str(argument) for argument in arguments], prog_name="rpat", standalone_mode=False)


@pytest.fixture
def moved(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run as somebody else gets it."""
    forget(monkeypatch)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "received")
    return tmp_path / "received"


def evaluate(target: Path | str, *more: Any, attack: str = "clean") -> None:
    options = ("--checkpoint", "last", "--limit", "20", "--quiet", "--jobs", "1")
    command("eval", target, "--attack", attack, *options, *more)


def test_the_run_holds_the_plugin_and_what_it_imports(trained: Path) -> None:
    copies = trained / "plugins"
    files = sorted(file.relative_to(copies).as_posix() for file in copies.rglob("*.py"))
    assert files == [
        "layers_of_mine/__init__.py",
        "layers_of_mine/linear.py",
        "mine.py",
        "width_of_mine.py",
    ]
    assert (copies / "mine.py").read_text() == PLUGIN
    (named,) = yaml.safe_load((trained / "recipe.yaml").read_text())["plugins"]
    assert named.startswith("plugins/mine.py#sha256=")
    last = torch.load(trained / "checkpoints" / "last.pt", weights_only=True)
    assert last["recipe"]["plugins"] == [named]
    assert "--trust" in (trained / "recipe.yaml").read_text().splitlines()[0]


def test_without_an_answer_it_is_refused_by_name(moved: Path) -> None:
    with pytest.raises(ConfigError, match=r"received/plugins/mine\.py.*--plugin FILE.*--trust"):
        evaluate(moved)


def test_a_moved_run_is_evaluated_with_trust(moved: Path) -> None:
    evaluate(moved, "--trust")
    assert list((moved / "evals").glob("*.json"))


def test_a_moved_run_is_evaluated_with_the_users_own_copy(moved: Path, trained: Path) -> None:
    own = trained.parent / "elsewhere" / "mine.py"
    shutil.rmtree(moved / "plugins")
    evaluate(moved, "--plugin", own)


def test_the_users_copy_may_have_another_name(moved: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent / "elsewhere", tmp_path / "mine")
    (tmp_path / "mine" / "mine.py").rename(tmp_path / "mine" / "renamed.py")
    evaluate(moved, "--plugin", tmp_path / "mine" / "renamed.py")


def test_a_moved_run_is_resumed(moved: Path) -> None:
    command("train", "--resume", moved, "--quiet", "--jobs", "1", "--trust")
    assert (moved / "report.json").exists()


def test_a_moved_run_is_resumed_with_the_users_own_copy(moved: Path, trained: Path) -> None:
    own = trained.parent / "elsewhere" / "mine.py"
    command("train", "--resume", moved, "--quiet", "--jobs", "1", "--plugin", own)
    assert (moved / "report.json").exists()
    assert [path.name for path in (moved / "plugins").rglob("mine.py")] == ["mine.py"]


def test_a_moved_run_is_repeated(moved: Path) -> None:
    with trusting(everything=True):
        recipe = resolve(read_recipe(moved / "recipe.yaml"))
    assert recipe.plugins == [str((moved / "plugins" / "mine.py").resolve())]


def test_images_are_made_on_a_moved_run(moved: Path) -> None:
    evaluate(moved, "--trust", attack=f"transfer:{moved}/checkpoints/last.pt@fgsm")


def test_a_checkpoint_alone_is_evaluated_with_the_users_copy(
    moved: Path, trained: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone" / "model.pt"
    alone.parent.mkdir()
    shutil.copy(moved / "checkpoints" / "last.pt", alone)
    with pytest.raises(ConfigError, match=r"model\.pt.*plugins/mine\.py"):
        evaluate(alone, "--trust")
    evaluate(alone, "--plugin", trained.parent / "elsewhere" / "mine.py")


def test_an_altered_copy_is_found_out(moved: Path) -> None:
    with (moved / "plugins" / "mine.py").open("a") as file:
        file.write("\nraise SystemExit('not the file that was trained with')\n")
    with pytest.raises(ConfigError, match=r"mine\.py is not the file that was used"):
        evaluate(moved, "--trust")


def test_python_names_the_plugin_too(moved: Path, trained: Path) -> None:
    own = trained.parent / "elsewhere" / "mine.py"
    assert rpat.load_model(moved, "last", plugins=[str(own)]).architecture.name == "flat-net"


def test_the_trials_of_a_sweep_run_the_plugin_that_the_sweep_may_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = write_plugin(tmp_path / "own")
    recipe = {**SMALL, "epochs": 1, "plugins": ["mine.py"]}
    recipe["validation"] = {"steps": 1, "limit": 20}
    sweep = {"recipe": recipe, "grid": {"batch_size": [250]}, "engine": "local"}
    (tmp_path / "own" / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    command("sweep", "own/sweep.yaml", "--out", "swept", "--quiet", "--plugin", own)
    (run,) = (tmp_path / "swept" / "trials").glob("*/run")
    assert (run / "report.json").exists()
    assert (run / "plugins" / "mine.py").exists()


def test_two_plugins_of_one_name_are_both_kept(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "mine.py"
        file.write_text(f"# {name}\nimport part_of_mine\nKEPT = part_of_mine.NAME\n")
        (tmp_path / name / "part_of_mine.py").write_text(f"NAME = {name!r}\n")
        files.append(str(file))
    recipe = resolve([Layer("--plugin", {"plugins": files}, by_user=True)])
    modules = list(plugins._loaded.values())
    assert [module.KEPT for module in modules] == ["a", "b"]  # each its own neighbor
    folder = RunFolder(tmp_path / "run")
    for _ in range(2):  # the second time changes nothing
        saved = saved_form(recipe, folder).plugins
        assert [name.partition("#")[0] for name in saved] == [
            "plugins/mine.py",
            "plugins/2/mine.py",
        ]
    assert (folder.path / "plugins" / "2" / "part_of_mine.py").read_text() == "NAME = 'b'\n"
    assert len(list(folder.path.rglob("*.py"))) == 4


def test_a_link_in_the_run_folder_is_not_followed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("# linked\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / "plugins").symlink_to(outside)
    recipe = resolve([Layer("--plugin", {"plugins": [str(file)]}, by_user=True)])
    with pytest.raises(RunFolderError, match="is a link"):
        saved_form(recipe, run)
    (run.path / "plugins").unlink()
    (run.path / "plugins").mkdir()
    (run.path / "plugins" / "mine.py").symlink_to(outside / "made.py")
    assert saved_form(recipe, run).plugins[0].startswith("plugins/2/mine.py")
    assert not list(outside.iterdir())


def test_a_neighbor_hides_no_library_and_not_that_of_another_folder(tmp_path: Path) -> None:
    for name in ("a", "b", "a"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "json.py").write_text("raise RuntimeError('this is not json')\n")
        (folder / "neighbor_here.py").write_text(f"NAME = {name!r}\n")
        (folder / "main_here.py").write_text(
            "import json, neighbor_here\njson.dumps({})\nNAME = neighbor_here.NAME\n"
        )
        module = import_file(folder / "main_here.py", f"main_here_{name}")
        assert name == module.NAME
