"""What a training would cost, without training."""

from pathlib import Path

import pytest
import torch
from helpers import load_recipe

from rpat_cli.errors import CheckpointError, ConfigError, DataError, RunFolderError
from rpat_cli.models.base import build_network
from rpat_cli.recipe.trust import trusting
from rpat_cli.runs.estimate import dry_run
from rpat_cli.runs.train import train_run

QUICK = ["batch_size=8", "attack.steps=2"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("settings", "forward", "backward"),
    [
        (["method=standard"], 1, 1),
        (["method=pgd"], 3, 3),
        (["method=pgd", "ra=true"], 5, 5),
        (["method=trades"], 5, 4),  # the attack's target f(x) is in eval mode and needs no gradient
        (
            ["method=rebat"],
            4,
            3,
        ),  # the teacher's pass, which only the epochs after the start of averaging have
        (["method=pgd", "ra.start_epoch=1", "epochs=2"], 5, 5),
        (["method=pgd", "accumulate=2"], 6, 6),
    ],
)
def test_passes_are_counted_with_everything_on(
    settings: list[str], forward: int, backward: int
) -> None:
    took = dry_run(load_recipe([], [*QUICK, *settings]))
    assert (took.forward, took.backward) == (forward, backward)


def test_the_embedded_images_are_used_and_nothing_is_written(tmp_path: Path) -> None:
    took = dry_run(load_recipe([], [*QUICK, "epochs=3", "data.val_size=400"]))
    assert took.real_data
    assert (took.steps_per_epoch, took.steps) == (200, 600)  # 1600 training images
    assert took.seconds > took.steps * took.seconds_per_step > 0  # validation comes on top
    assert took.peak_memory > 2**20
    assert took.run_dir.parent == Path("runs")
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_is_not_here_is_stood_in_for(tmp_path: Path) -> None:
    settings = [
        "data=cifar10",
        "data.download=true",
        "data.root=none",
        "model=small-cnn",
        "data.val_size=0.1",
    ]
    took = dry_run(load_recipe([], [*QUICK, *settings, "accumulate=1"]))
    assert not took.real_data
    assert took.steps_per_epoch == 45_000 // 8
    assert not list(tmp_path.iterdir())


def test_two_views_make_passes_of_twice_as_many_images() -> None:
    assert dry_run(load_recipe([], [*QUICK, "method=consistency"])).images_per_pass == 16


def test_what_would_stop_the_training_stops_the_dry_run(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    with pytest.raises(RunFolderError, match="exists already"):
        dry_run(load_recipe([], QUICK), Path("taken"))
    with pytest.raises(DataError, match="no images"):
        dry_run(load_recipe([], [*QUICK, "data=imagefolder"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["init=absent"], "init: absent does not exist"),
        (["init=a.pt"], "init: there is no a.pt"),
        (
            ["data=cifar10", "init=robustbench:cifar10/Linf/Carmon2019Unlabeled"],
            "init: .*in any of",
        ),
        (["init=torchvision:resnet18@WRONG"], "unknown weights"),
        (["init=five.pt", "model=vgg16"], "do not fit"),
        (["method=rslad", "method.teacher=absent"], "method.teacher: absent does not exist"),
        (
            ["method=hat", "method.helper=robustbench:Carmon2019Unlabeled"],
            "method.helper: .*in any of",
        ),
    ],
)
def test_a_start_or_teacher_that_cannot_be_had_stops_both(
    tmp_path: Path, settings: list[str], message: str
) -> None:
    """Before there is a run folder."""
    network = build_network("small-cnn", (3, 32, 32), 5)
    torch.save(network.state_dict(), tmp_path / "five.pt")
    recipe = load_recipe([], [*QUICK, *settings])
    for begin in (dry_run, train_run):
        with pytest.raises((ConfigError, CheckpointError), match=message):
            begin(recipe)
    assert not Path("runs").exists()


def test_a_dry_run_downloads_no_teacher() -> None:
    pytest.importorskip("huggingface_hub")
    name = "hf:nobody/nothing"
    recipe = load_recipe([], [*QUICK, "method=rslad", f"method.teacher={name}", f"init={name}"])
    with trusting(files=[name]), pytest.raises(ConfigError) as caught:
        dry_run(recipe)
    (problem,) = caught.value.problems  # with another start the cost is the same
    assert problem.key == "method.teacher"
    assert "without it the cost cannot be measured. The training downloads it." in str(problem)


def test_a_start_that_nobody_has_named_is_refused_by_its_whole_name() -> None:
    name = "torchvision:vgg19_bn@IMAGENET1K_V1"
    with pytest.raises(ConfigError, match=f"^init: wants to download the .* of {name}, which"):
        dry_run(load_recipe([], [*QUICK, f"init={name}"]))


def test_a_teacher_may_be_a_file_of_other_code(tmp_path: Path) -> None:
    """Which does not say what data it is for: the recipe does."""
    torch.save(build_network("small-cnn", (1, 28, 28), 10).state_dict(), tmp_path / "teacher.pt")
    settings = ["method=rslad", "method.teacher=teacher.pt", "model=small-cnn"]
    assert dry_run(load_recipe([], [*QUICK, *settings])).forward > 0
