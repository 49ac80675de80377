"""A user's own methods, regularizers, attacks, models and data sets."""

import sys
from dataclasses import fields
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from helpers import load_recipe

from rpat_cli.errors import ConfigError
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.models import MODELS
from rpat_cli.recipe import plugins
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.recipe.summary import summary
from rpat_cli.recipe.trust import trusting
from rpat_cli.runs import estimate as dry
from rpat_cli.runs.build import build_method
from rpat_cli.runs.new_run import run_name

EXAMPLE = '''"""Logit pairing (Kannan et al. 2018, arXiv 1803.06373), without its loss on x."""

from dataclasses import dataclass, replace

from torch.nn.functional import mse_loss

from rpat_cli.methods import METHODS
from rpat_cli.methods.declare import Needs
from rpat_cli.methods.pgd import adversarial_cross_entropy


@dataclass(frozen=True)
class LogitPairing(Needs):
    weight: float = 0.5

    def __call__(self, step):
        outcome = adversarial_cross_entropy(step)
        logits = step.model(step.x)
        pairing = self.weight * mse_loss(logits, outcome.logits_adv)
        return replace(outcome, terms=outcome.terms | {"pairing": pairing}, logits=logits)


METHODS.add("pairing", LogitPairing)
'''


SQUEEZING = '''"""Logit squeezing (Kannan et al. 2018, arXiv 1803.06373)."""

from dataclasses import dataclass

from rpat_cli.methods import REGULARIZERS
from rpat_cli.methods.declare import Needs


@dataclass(frozen=True)
class LogitSqueezing(Needs):
    weight: float = 0.5

    def __call__(self, step, outcome):
        return {"squeeze": self.weight * outcome.logits_adv.square().mean()}


REGULARIZERS.add("squeeze", LogitSqueezing)
'''


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for registry in (METHODS, REGULARIZERS, MODELS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.delitem(sys.modules, "rpat_pairing", raising=False)


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def flag(*paths: Path) -> dict[str, tuple[tuple[str, ...], list[str]]]:
    return {"--plugin": (("plugins",), [str(path) for path in paths])}


def test_a_method_of_ones_own_trains_with_everything_that_ours_train_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, EXAMPLE)
    recipe = load_recipe(
        [],
        ["method=pairing", "method.weight=2", "ra=true", "wa=true", "attack.steps=1"],
        flag(path),
    )
    assert recipe.method.options == {"weight": 2.0}
    assert recipe.plugins == [str(path)]
    monkeypatch.setattr(dry, "STEPS", 1)
    took = dry.dry_run(recipe)
    assert (took.forward, took.backward) == (
        4,
        4,
    )  # attack, f(x'), f(x), and f of the point between: f(x) is shared


@pytest.mark.parametrize("method", METHODS)
def test_a_regularizer_of_ones_own_is_a_key_of_the_recipe_and_goes_with_every_method(
    tmp_path: Path, method: str
) -> None:
    path = write(tmp_path, SQUEEZING)
    missing = [field.name for field in fields(METHODS[method]) if field.default == ""]
    learns_from = [f"method.{name}=RUN" for name in missing]
    settings = [f"method={method}", "squeeze=true", "ra=true", *learns_from]
    recipe = load_recipe([], settings, flag(path))
    assert [type(part).__name__ for part in recipe.parts()[1:]] == [
        "RobustPerception",
        "LogitSqueezing",
    ]
    assert "LogitSqueezing" in str(build_method(recipe))
    assert "squeeze (weight 0.5)" in summary(recipe)["method"]
    assert f"_{method}+ra+squeeze" in run_name(recipe)
    assert load_recipe([write(tmp_path, to_yaml(recipe), "again.yaml")]) == recipe


def test_its_regularizer_is_set_up_and_checked_as_ours_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, SQUEEZING)
    config = write(tmp_path, "squeeze: {weight: 2}\n", "recipe.yaml")
    recipe = load_recipe([config], ["attack.steps=1"], flag(path))
    assert recipe.model_dump()["squeeze"] == {"weight": 2.0}
    assert load_recipe([config], ["squeeze=false"], flag(path)).model_dump()["squeeze"] is None
    monkeypatch.setattr(dry, "STEPS", 1)
    took = dry.dry_run(recipe)
    assert (took.forward, took.backward) == (2, 2)
    with pytest.raises(ConfigError) as error:
        load_recipe([config], ["squeeze.wieght=1", "epochs=0", "squeese=true"], flag(path))
    assert {problem.key for problem in error.value.problems} == {
        "epochs",
        "squeeze.wieght",
        "squeese",
    }
    assert "Did you mean 'squeeze'?" in str(error.value)


def test_its_settings_are_checked_as_ours_are(tmp_path: Path) -> None:
    path = write(tmp_path, EXAMPLE)
    with pytest.raises(ConfigError, match=r"method\.wieght: unknown key. Did you mean 'weight'\?"):
        load_recipe([], ["method=pairing", "method.wieght=2"], flag(path))
    with pytest.raises(ConfigError, match=r"unknown method 'pairingg'. Did you mean 'pairing'\?"):
        load_recipe([], ["method=pairingg"], flag(path))


def test_the_recipe_remembers_it_and_a_file_names_it_from_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    path = write(tmp_path / "lab", EXAMPLE)
    config = write(tmp_path / "lab", "plugins: [mine.py]\nmethod: pairing\n", "recipe.yaml")
    other = write(
        tmp_path,
        "from rpat_cli.models import MODELS\n"
        "MODELS.add('net', lambda channels, image_size, classes: None)\n",
        "other.py",
    )
    with trusting(everything=True):
        recipe = load_recipe([config], ["model=net"], flag(other))
    assert recipe.plugins == [str(path), str(other)]
    again = write(tmp_path, to_yaml(recipe), "again.yaml")
    assert load_recipe([again]) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", "mine.py:2: the plugin failed: ZeroDivisionError: division by zero"),
        ("x = 1\n\nif x\n", "mine.py:3: the plugin failed: SyntaxError"),
        ("import nothing_of_this_name\n", "mine.py:1: the plugin failed: ModuleNotFoundError"),
        (
            "from rpat_cli.methods import METHODS\nMETHODS.add('pgd', object)\n",
            "mine.py:2: the plugin failed: the method 'pgd' is registered already",
        ),
        (
            "from rpat_cli.methods import METHODS\nMETHODS.add('mine', lambda step: None)\n",
            "mine.py: the plugin failed: the method 'mine' must be a frozen dataclass",
        ),
        (
            SQUEEZING.replace('"squeeze", L', '"epochs", L'),
            "mine.py: the plugin failed: the regularizer 'epochs' has the name of a key",
        ),
    ],
)
def test_a_plugin_that_fails_names_its_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe([], [], flag(write(tmp_path, text)))
    assert message in str(error.value)
    assert error.value.exit_code == 2


def test_a_missing_plugin_and_one_that_is_no_python(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--plugin: plugins: there is no plugin file .*gone\.py"):
        load_recipe([], [], flag(tmp_path / "gone.py"))
    with pytest.raises(ConfigError, match=r"notes\.txt is not a Python file"):
        load_recipe([], [], flag(write(tmp_path, "", "notes.txt")))


def test_an_installed_package_may_bring_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, EXAMPLE, "rpat_pairing.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("pairing", "rpat_pairing", plugins.GROUP)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [point] if group == "rpat.plugins" else []
    )
    plugins.load_installed.cache_clear()
    try:
        assert load_recipe([], ["method=pairing"]).method.options == {"weight": 0.5}
        assert load_recipe([], ["method=pairing"]).plugins == []
    finally:
        plugins.load_installed.cache_clear()
