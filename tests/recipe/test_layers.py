"""Layers, mistakes and the round trip of recipes."""

from pathlib import Path

import pytest
from helpers import load_recipe

from rpat_cli.calls.options import layers_from
from rpat_cli.errors import ConfigError
from rpat_cli.methods import METHODS
from rpat_cli.methods.robust_perception import RobustPerception
from rpat_cli.recipe.layers import Layer, flag_layers, layers_of, read_yaml, resolve, to_yaml


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def messages(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [str(problem) for problem in error.value.problems]


def test_each_layer_overrides_the_one_before(tmp_path: Path) -> None:
    assert load_recipe().epochs != 110  # the data set's default is above the general one
    first, second = (
        write(tmp_path, "epochs: 7\nbatch_size: 7\nseed: 7"),
        write(tmp_path, "batch_size: 8\nseed: 8", "b.yaml"),
    )
    recipe = load_recipe(
        [first, second], ["seed=9", "optimizer.lr=1/4"], {"--seed": (("seed",), "10")}
    )
    assert (recipe.epochs, recipe.batch_size, recipe.seed, recipe.optimizer.lr) == (7, 8, 10, 0.25)


def test_short_and_long_forms_mean_the_same() -> None:
    short = resolve(
        [Layer("s", {"method": "trades", "ra": True, "data": "fashion-mini", "schedule": "cosine"})]
    )
    long = resolve(
        [
            Layer(
                "l",
                {
                    "method": {"name": "trades"},
                    "ra": {},
                    "data": {"name": "fashion-mini"},
                    "schedule": {"name": "cosine"},
                },
            )
        ]
    )
    assert short == long
    assert short.method.options["beta"] == 6.0


def test_a_later_layer_keeps_hyper_parameters_of_the_same_method_and_drops_those_of_another() -> (
    None
):
    base = Layer("base", {"method": {"name": "trades", "beta": 3}})
    assert resolve([base, Layer("flag", {"method": "trades"})]).method.options["beta"] == 3.0
    assert resolve([base, Layer("flag", {"method": "pgd"})]).method.options == {}
    with pytest.raises(ConfigError, match="method.beta: unknown key"):
        resolve([Layer("base", {"method": {"name": "pgd", "beta": 3}})])


def test_settings_that_the_user_gives_are_of_the_method_that_they_name() -> None:
    """In either order: `--method` is a flag, and flags lie over `--set`."""
    flags = {"--method": (("method",), "trades"), "--schedule": (("schedule",), "cosine")}
    recipe = resolve(layers_of(assignments=["method.beta=1.5", "schedule.per=epoch"], flags=flags))
    assert (recipe.method.options["beta"], recipe.schedule.options["per"]) == (1.5, "epoch")
    keys = {"method": ("method",)}
    layers = layers_from({"method": "trades"}, keys, {"method.beta": 2.5}, "train")
    assert resolve(layers).method.options["beta"] == 2.5
    other = resolve(layers_of(assignments=["method=mart", "method.beta=3"], flags=flags))
    assert (other.method.name, other.method.options["beta"]) == ("trades", 6)
    with pytest.raises(ConfigError, match=r"method\.beta"):
        resolve(layers_of(assignments=["method.beta=3"], flags={"--method": (("method",), "pgd")}))


@pytest.mark.parametrize(
    ("data", "norm", "eps", "step"),
    [
        ("cifar10", "Linf", 8 / 255, 2 / 255),
        ("cifar10", "L2", 128 / 255, 15 / 255),
        ("cifar10", "L1", 2000 / 255, 400 / 255),
        ("fashion-mini", "Linf", 0.1, 0.025),
    ],
)
def test_threat_and_step_follow_data_set_and_norm(
    data: str, norm: str, eps: float, step: float
) -> None:
    recipe = resolve([Layer("flags", {"data": data, "threat": {"norm": norm}})])
    assert recipe.threat.eps == pytest.approx(eps)
    assert recipe.attack.step_size == pytest.approx(step)


def test_step_size_follows_a_given_eps() -> None:
    assert resolve(
        [Layer("f", {"data": "cifar10", "threat": {"eps": "4/255"}})]
    ).attack.step_size == pytest.approx(1 / 255)


def test_attack_details_follow_the_method_unless_given() -> None:
    assert resolve([Layer("f", {"method": "trades"})]).attack.start == "gaussian"
    assert resolve([Layer("f", {"method": "rebat"})]).attack.bn_mode == "train"
    assert (
        resolve([Layer("f", {"method": "trades", "attack": {"start": "zero"}})]).attack.start
        == "zero"
    )
    assert resolve([Layer("f", {"method": "noise"})]).attack.steps == 0
    with pytest.raises(ConfigError, match="'noise' takes no attack steps"):
        resolve([Layer("f", {"method": "noise", "attack": {"steps": 5}})])


def test_all_mistakes_are_listed_at_once_each_with_its_place(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "epoch: 3\nbatch_size: -1\nmethod:\n  name: trades\n  betta: 2\nthreat: {norm: Linff}\n",
    )
    with pytest.raises(ConfigError) as error:
        load_recipe(
            [path],
            ["optimizer.lrr=1"],
            {"--model": (("model",), "resnet81"), "--eps": (("threat", "eps"), "8/x")},
        )
    message = "\n".join(messages(error))
    assert len(error.value.problems) == 7
    assert f"{path}:1: epoch: unknown key. Did you mean 'epochs'?" in message
    assert f"{path}:2: batch_size: -1: should be greater than or equal to 1" in message
    assert f"{path}:5: method.betta: unknown key. Did you mean 'beta'? Allowed: beta, " in message
    assert f"{path}:6: threat.norm: 'Linff': should be 'Linf', 'L2' or 'L1'" in message
    assert "--set optimizer.lrr=1: optimizer.lrr: unknown key. Did you mean 'lr'?" in message
    assert "--model: model: unknown model 'resnet81'. Did you mean 'resnet18'?" in message
    assert "--eps: threat.eps: '8/x': must be a number such as 0.5, 1e-3 or 8/255" in message
    assert error.value.exit_code == 2


@pytest.mark.parametrize("name", METHODS)
def test_a_mistyped_hyper_parameter_of_any_method_names_the_right_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"method\.nonsense: unknown key"):
        resolve([Layer("f", {"method": {"name": name, "nonsense": 1}})])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "a recipe is a mapping"),
        ("seed: 1\nepochs: [3\nlr: 1\n", "recipe.yaml:3: is not valid YAML: expected ',' or ']'"),
        ("seed: 1\nepochs: [3\nlr: 1\n", "while parsing a flow sequence that begins in line 2."),
        ("epochs: ten\n", "epochs: 'ten': should be a valid integer"),
        ("optimizer: 3\n", "optimizer: 3: should be a mapping of keys to values"),
        (
            "method: {name: pgd, beta: 6}\n",
            "method.beta: unknown key. The method 'pgd' takes no settings.",
        ),
        ("epochs: 1\nepochs: 2\n", "recipe.yaml:2: epochs: duplicate key"),
        ("ra: sometimes\n", "must be true, false, or a mapping"),
        ("data: {val_size: 10.5}\n", "whole number of images"),
        ("eval: [pgd-20, pdg-20]\n", "unknown attack 'pdg'"),
        ("data: {augment: [flipp]}\n", "unknown augmentation 'flipp'"),
    ],
)
def test_each_broken_file_has_its_own_message(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe([write(tmp_path, text)])
    assert message in str(error.value)
    assert "unable to parse" not in str(error.value)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "epochs: 1")
    with pytest.raises(ConfigError, match=r"no such recipe file.*Did you mean 'recipe.yaml'"):
        read_yaml(tmp_path / "recipes.yaml")


def test_an_assignment_needs_an_equals_sign() -> None:
    with pytest.raises(ConfigError, match="not of the form key=value"):
        load_recipe([], ["epochs"])


def test_the_written_recipe_reads_back_as_the_same(tmp_path: Path) -> None:
    recipe = load_recipe(
        [],
        [
            "method=mart",
            "ra.weight=0.5",
            "consistency=true",
            "threat.norm=L2",
            "data.augment=[crop, {cutout: {size: 4}}]",
        ],
    )
    assert recipe.ra == RobustPerception(weight=0.5)
    assert recipe.model_dump()["ra"] == {
        "weight": 0.5,
        "mix": 0.5,
        "start_epoch": 0,
        "form": "mse",
    }
    path = write(tmp_path, to_yaml(recipe, "a header"))
    assert path.read_text().startswith("# a header\n")
    assert load_recipe([path]) == recipe


def test_flags_that_were_not_given_make_no_layer() -> None:
    assert flag_layers({"--seed": (("seed",), None)}) == []


def test_augmentations_from_a_flag() -> None:
    recipe = load_recipe([], [], {"--augment": (("data", "augment"), "crop, randaugment:n=1,m=5")})
    assert recipe.data.augment == ["crop", "randaugment:n=1,m=5"]
    assert load_recipe([], [], {"--augment": (("data", "augment"), "none")}).data.augment == []


# ---- extends


def test_a_file_lies_over_what_it_extends_and_a_shared_base_counts_once(tmp_path: Path) -> None:
    write(tmp_path, "epochs: 1\nseed: 1\nbatch_size: 1", "base.yaml")
    write(tmp_path, "extends: base.yaml\nepochs: 2\nseed: 2", "left.yaml")
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner", "extends: ../base.yaml\nlabel_smoothing: 0.1", "right.yaml")
    top = write(tmp_path, "extends: [left.yaml, inner/right.yaml]\nseed: 3")
    recipe = load_recipe([top])
    # Were the base laid again under right.yaml, its epochs would win over those of left.yaml.
    assert (recipe.epochs, recipe.seed, recipe.batch_size, recipe.label_smoothing) == (2, 3, 1, 0.1)


def test_another_method_drops_the_settings_of_the_one_it_extends(tmp_path: Path) -> None:
    write(tmp_path, "method: {name: trades, beta: 3}", "base.yaml")
    assert load_recipe([write(tmp_path, "extends: base.yaml\nmethod: pgd")]).method.options == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: recipe.yaml", "the files extend one another: recipe.yaml -> recipe.yaml"),
        (
            "extends: there.yaml",
            "the files extend one another: recipe.yaml -> there.yaml -> recipe.yaml",
        ),
        (
            "epochs: 2\nextends: quickstrat",
            "recipe.yaml:2: unknown recipe 'quickstrat'. Did you mean 'quickstart'?",
        ),
        ("extends: gone.yaml", "gone.yaml: there is no such recipe file"),
        (
            "extends: {a: 1}",
            "recipe.yaml:1: extends: {'a': 1}: should be one name or a list of names",
        ),
        ("extends: wrong.yaml", "wrong.yaml:1: epochs: -1"),
    ],
)
def test_mistakes_in_an_extended_file_name_that_file(
    tmp_path: Path, text: str, message: str
) -> None:
    write(tmp_path, "extends: recipe.yaml", "there.yaml")
    write(tmp_path, "epochs: -1", "wrong.yaml")
    with pytest.raises(ConfigError) as error:
        load_recipe([write(tmp_path, text)])
    assert message in str(error.value)
