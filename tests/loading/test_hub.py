"""Models of the Hugging Face hub, read by its own client from a server on this machine."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Hub, hub_here

import rpat_cli
from rpat_cli.errors import CheckpointError, ConfigError
from rpat_cli.loading.hub_model import description
from rpat_cli.loading.load import load_model
from rpat_cli.models.hub_name import HubName
from rpat_cli.recipe.layers import Layer

RUN = Path(__file__).parents[1] / "compat" / "data" / "run"
NAME = "hf:somebody/robust"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_here(monkeypatch, tmp_path) as found:
        yield found


def weights(saved: Any) -> bytes:
    from safetensors.torch import save

    content: bytes = save(saved.model.state_dict())
    return content


def in_hub(hub: Hub, **changes: Any) -> Any:
    saved = load_model(RUN)
    about = json.dumps({**description(saved), **changes}).encode()
    hub.repos["somebody/robust"] = {"rpat.json": about, "model.safetensors": weights(saved)}
    return saved


def test_a_model_of_rpat_is_the_same_elsewhere(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    saved = in_hub(hub)
    again = rpat_cli.load_model(NAME)
    x = torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert again.model(x).equal(saved.model(x))
    assert (again.epoch, again.class_names) == (saved.epoch, saved.class_names)
    assert again.recipe.threat == saved.recipe.threat
    assert f"{NAME} at commit {hub.commit('somebody/robust')[:12]}" in again.remarks
    assert "downloading model.safetensors of hf:somebody/robust: " in capfd.readouterr().err
    rpat_cli.load_model(NAME)  # the second time from the cache
    assert sorted(hub.downloads()) == ["model.safetensors", "rpat.json"]
    # Whoever did not name it gets what is on the machine, and nothing is asked.
    before = len(hub.asked)
    load_model(NAME)
    assert len(hub.asked) == before


def test_the_commit_is_found_in_a_cache_below_any_folder() -> None:
    from rpat_cli.loading.hub import HubFiles

    found = Path("/mnt/snapshots/hf/hub/models--somebody--robust/snapshots/c0ffee/a/x.safetensors")
    assert HubFiles(HubName.parse(NAME), found, None).commit == "c0ffee"


def test_nobody_else_starts_a_download(hub: Hub) -> None:
    in_hub(hub)
    with pytest.raises(ConfigError, match="wants to download .* which you have not named"):
        load_model(NAME)
    assert not hub.asked


def test_weights_of_others_are_a_foreign_file_with_its_own_normalization(hub: Hub) -> None:
    saved = in_hub(hub)
    del hub.repos["somebody/robust"]["rpat.json"]
    given = {"data": "fashion-mini", "model": "small-cnn"}
    again = rpat_cli.load_model(NAME, **given)
    x = torch.rand(20, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(again.model(x), saved.model(x))
    assert again.normalized == "of the file"


class Payload:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def test_a_strangers_repository_runs_nothing(hub: Hub, tmp_path: Path) -> None:
    payload = "from pathlib import Path\nPath('executed').touch()\n"
    saved = in_hub(hub)
    recipe = {**description(saved)["recipe"], "plugins": ["plugins/evil.py"]}
    in_hub(hub, recipe=recipe)
    files = hub.repos["somebody/robust"]
    files["plugins/evil.py"] = payload.encode()
    with pytest.raises(ConfigError, match=r"Python file .*evil.py, which you have not named"):
        rpat_cli.load_model(NAME)
    with pytest.raises(ConfigError, match="no plugin file"):  # code is never downloaded
        rpat_cli.load_model(NAME, trust=True)
    files.clear()
    files["pytorch_model.bin"] = pickle.dumps({"a.b": Payload()})
    with pytest.raises(CheckpointError, match=r"no model.safetensors. It has pytorch_model.bin"):
        rpat_cli.load_model(NAME, data="fashion-mini")
    with pytest.raises(CheckpointError):
        rpat_cli.load_model(f"{NAME}:pytorch_model.bin", data="fashion-mini")
    assert not (tmp_path / "executed").exists()
    assert "evil.py" not in hub.downloads()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("hf:nobody/robust", "there is no such repository, or it is private"),
        (f"{NAME}@v9", "no branch, tag or commit 'v9'"),
        (f"{NAME}:other.safetensors", "has no other.safetensors"),
    ],
)
def test_what_is_not_there_is_one_sentence(hub: Hub, name: str, problem: str) -> None:
    in_hub(hub)
    with pytest.raises(CheckpointError, match=problem):
        rpat_cli.load_model(name)


@pytest.mark.parametrize(
    "name",
    [
        "hf:a",
        "hf:../b",
        "hf:a/..",
        "hf:a/b:../c",
        "hf:a/b:/c",
        "hf:a/b@../c",
        "hf:a/b/c",
        "hf:a/b@",
    ],
)
def test_a_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="not of the form hf:OWNER/REPO"):
        HubName.parse(name)


def test_names_are_written_as_they_are_read() -> None:
    for name in (NAME, f"{NAME}@refs/pr/1", f"{NAME}:sub/x.safetensors", f"{NAME}@v1:x.bin"):
        assert str(HubName.parse(name)) == name


def test_a_description_that_is_damaged(hub: Hub) -> None:
    in_hub(hub, architecture=3)
    with pytest.raises(CheckpointError, match="it lacks architecture"):
        rpat_cli.load_model(NAME)
    in_hub(hub, epoch=True)
    with pytest.raises(CheckpointError, match="it lacks epoch"):
        rpat_cli.load_model(NAME)
    huge = {**load_model(RUN).architecture.to_dict(), "mean": [10**400]}
    in_hub(hub, architecture=huge)
    with pytest.raises(CheckpointError, match="the mean of its architecture is"):
        rpat_cli.load_model(NAME)
    in_hub(hub, clean_acc=10**400)
    assert rpat_cli.load_model(NAME).recorded_acc is None
    hub.repos["somebody/robust"]["rpat.json"] = b"{" * 2_000_000
    with pytest.raises(CheckpointError, match=r"rpat.json has 2.0 MB, and at most 1.0 MB"):
        rpat_cli.load_model(NAME)


def test_a_recipe_answers_for_no_teacher() -> None:
    from rpat_cli.recipe.layers import code_named_in

    values = {"method": {"name": "rslad", "teacher": NAME}}
    assert code_named_in([Layer("flag", values, by_user=True)]) == [NAME]
    assert code_named_in([Layer("sent.yaml", values)]) == []
