"""Files of strangers may name networks that code makes, or that are downloaded: neither happens
unless the user has answered for it, whichever part of rpat wants the network."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from rpat_cli.errors import ConfigError, RpatError
from rpat_cli.loading.load import load_model
from rpat_cli.loading.missing import missing_networks
from rpat_cli.recipe.layers import Layer, code_named_in, resolve
from rpat_cli.recipe.trust import flag_for, trusting
from rpat_cli.runs.build import build_data, build_networks
from rpat_cli.runs.estimate import dry_run
from rpat_cli.runs.train import train_run

DATA = Layer("--data", {"data": "fashion-mini"})


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that leaves a trace, empty caches, and no network."""
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("open('ran', 'w')\ndef build(): pass")
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))

    def asked(*_: Any, **__: Any) -> None:
        raise URLError("asked the network")

    monkeypatch.setattr("torch.hub.download_url_to_file", asked)


@pytest.mark.parametrize("name", ["evil.py:build", "torchvision:squeezenet1_1"])
def test_what_a_recipe_names_neither_runs_nor_is_downloaded_unasked(name: str) -> None:
    teacher = {"name": "rslad", "teacher": name}
    recipe = resolve([Layer("stranger.yaml", {**DATA.values, "method": teacher, "device": "cpu"})])
    data = build_data(recipe.data, 0)
    for want in (
        lambda: load_model(name, changes=[DATA]),
        lambda: build_networks(recipe, data, None, "cpu"),
        lambda: dry_run(recipe),
        lambda: train_run(recipe, out=Path("run")),
    ):
        with pytest.raises(ConfigError, match="which you have not named"):
            want()
    assert not Path("ran").exists()
    assert not Path("run").exists()
    [problem] = missing_networks(recipe)
    assert problem.key == "method.teacher"
    assert flag_for(recipe) == " --trust"
    # The user's own words are an answer.
    own = Layer("--set", {"method": teacher}, by_user=True)
    with (
        trusting(files=code_named_in([own])),
        pytest.raises(RpatError, match="takes images|NoneType"),
    ):
        load_model(name, changes=[DATA])
