"""`rpat push` sends what `hf:USER/NAME` reads, by the hub's own client, to a server on this
machine."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import rpat
import torch
from hub_server import TOKEN, Hub, hub_here
from PIL import Image

import rpat_cli
from rpat_cli.cli.push import push as push_command
from rpat_cli.errors import CheckpointError, ConfigError
from rpat_cli.export.push import FILES, Pushed, push_model
from rpat_cli.loading.load import load_model
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.models.hub_name import HubName
from rpat_cli.recipe.portable import portable, without_folders
from rpat_cli.recipe.schema import Recipe
from rpat_cli.text import DASH

RUN = Path(__file__).parents[1] / "compat" / "data" / "run"
REPO = "somebody/robust"
NAME = f"hf:{REPO}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_here(monkeypatch, tmp_path) as found:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture
def saved() -> SavedModel:
    return load_model(RUN)


def push(saved: SavedModel, name: str = NAME, **options: bool) -> Pushed:
    return push_model(saved, HubName.parse(name), **options)


def test_what_is_sent_is_the_same_model_elsewhere(hub: Hub, saved: SavedModel) -> None:
    pushed = push(saved)
    assert hub.commits == [sorted(FILES)]  # at once
    assert (pushed.created, pushed.private, pushed.commit) == (True, False, hub.commit(REPO))
    assert pushed.files == {file: len(hub.repos[REPO][file]) for file in FILES}
    again = rpat_cli.load_model(NAME)
    x = torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert again.model(x).equal(saved.model(x))
    assert (again.epoch, again.recipe.threat) == (saved.epoch, saved.recipe.threat)


def test_python_sends_what_the_command_does(hub: Hub, saved: SavedModel) -> None:
    """The same weights and texts, and what is printed reads like the command's answer."""
    from safetensors.torch import load

    of_command = push(saved)
    files = dict(hub.repos[REPO])
    sent = rpat.push(RUN, f"{NAME}-2", private=True)
    again = hub.repos[f"{REPO}-2"]
    weights, description, card = FILES
    expected = load(files[weights])
    assert all(tensor.equal(expected[key]) for key, tensor in load(again[weights]).items())
    assert again[description] == files[description]
    assert again[card].decode().replace(f"{NAME}-2", NAME) == files[card].decode()
    assert (sent.private, sent.commit) == (True, hub.commit(f"{REPO}-2"))
    assert f"sent to {hub.url}/{REPO}-2, a new private repository" in str(sent)
    assert f"try it: rpat eval {of_command.name}" in str(of_command)
    assert rpat.push(RUN, NAME, replace=True, dry_run=True).commit == ""
    with pytest.raises(ConfigError, match="Replace with --replace"):
        rpat.push(RUN, NAME)
    names = {"run": "target", "as_json": None}
    options = {names.get(each, each) for each in signature(push_command).parameters} - {None}
    assert options == set(signature(rpat.push).parameters)


def test_the_card_has_the_figures_of_the_report(hub: Hub, saved: SavedModel) -> None:
    push(saved)
    card = hub.repos[REPO]["README.md"].decode()
    results = [
        each
        for each in json.loads((RUN / "report.json").read_text())["results"]
        if each["checkpoint"] == "best"
    ]
    assert {each["label"] for each in results} >= {"clean", "pgd-3"}
    for each in results:
        low, high = each["interval_95"]
        figures = f"| {100 * each['acc']:.2f} | {100 * low:.1f}{DASH}{100 * high:.1f} "
        assert f"| {each['label']} {figures}| {each['n']} |" in card
    assert f"rpat eval {NAME} --attack autoattack" in card
    assert "Linf, eps 0.1" in card
    assert "**WARN**" in card


def test_nothing_is_replaced_unasked(hub: Hub, saved: SavedModel) -> None:
    hub.repos[REPO] = {"README.md": b"mine"}
    with pytest.raises(ConfigError, match=r"has README.md already\. Replace with --replace"):
        push(saved)
    with pytest.raises(ConfigError) as raised:
        push(saved, private=True)
    assert "public already" in str(raised.value)
    assert len(raised.value.problems) == 2
    assert (hub.commits, hub.repos[REPO]) == ([], {"README.md": b"mine"})
    push(saved, f"{NAME}@v2")  # a branch of its own
    assert hub.repos[REPO] == {"README.md": b"mine"}
    assert rpat_cli.load_model(f"{NAME}@v2").epoch == saved.epoch
    assert push(saved, replace=True).replaced == ["README.md"]
    assert b"mine" not in hub.repos[REPO]["README.md"]


def test_a_private_repository_is_private(hub: Hub, saved: SavedModel) -> None:
    assert push(saved, private=True).private
    assert hub.private == {REPO}
    assert push(saved, replace=True).private  # it stays so


def test_a_dry_run_sends_nothing_and_needs_no_token(
    hub: Hub, saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    pushed = push(saved, dry_run=True)
    assert not [each for each in hub.asked if each.startswith("POST")]
    assert (pushed.commit, pushed.created, hub.repos) == ("", True, {})
    assert pushed.card.startswith("---\nlibrary_name: rpat\n")
    with pytest.raises(ConfigError, match="nobody is logged in to the hub. Log in with `hf auth"):
        push(saved)


def test_what_the_hub_refuses_is_one_sentence(
    hub: Hub, saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reads-only")
    with pytest.raises(CheckpointError, match="your token may not write it. Log in with"):
        push(saved)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="looked up .* Try again online: what it holds"):
        push(saved, dry_run=True)
    with pytest.raises(ConfigError, match="the files have fixed names"):
        push(saved, f"{NAME}:weights.safetensors")
    assert hub.commits == []


def test_a_repository_that_was_made_in_vain_is_said(
    hub: Hub, saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the line is cut")

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", fail)
    with pytest.raises(CheckpointError, match="the line is cut.* made, and is still empty"):
        push(saved)
    assert REPO in hub.repos


def test_no_code_is_sent(hub: Hub, saved: SavedModel) -> None:
    with pytest.raises(ConfigError, match="your own code, which is never sent"):
        push(replace(saved, source="def build(): ..."))
    recipe = saved.recipe.model_copy(update={"plugins": ["/home/me/mine.py"]})
    assert "mine.py" in push(replace(saved, recipe=recipe)).remarks[0]
    about = hub.repos[REPO]["rpat.json"]
    assert json.loads(about)["recipe"]["plugins"] == []
    assert b"/home/me" not in about


def test_folders_of_this_machine_stay_here() -> None:
    recipe = Recipe().model_copy(
        update={
            "init": "/home/me/runs/a b/best.pt",
            "eval": ["clean", "transfer:/home/me/runs/x@pgd-20", "pgd-20:eps=8/255"],
            "data": Recipe().data.model_copy(update={"root": "/home/me/images"}),
        }
    )
    found = portable(recipe)
    assert (found.init, found.data.root) == ("best.pt", "data")
    assert found.eval == ["clean", "transfer:x@pgd-20", "pgd-20:eps=8/255"]
    assert portable(Recipe()) == Recipe()
    text = "2 / 3 of /home/me/x.pt (~/y/z) at https://example.org/a, eps 8/255"
    inner = "in `/home/me/x`, [/home/me/a], </b> and /home/me/ or /Users/me"
    assert without_folders(inner) == "in `x`, [a], </b> and ~ or ~"
    assert without_folders(text) == "2 / 3 of x.pt (z) at https://example.org/a, eps 8/255"


@pytest.mark.slow
def test_the_commands_hand_a_model_on(
    hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sends it, another one evaluates it, predicts with it, attacks with it, and goes on."""
    from rpat_cli.cli.app import main

    def rpat(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["rpat", *words])
        with pytest.raises(SystemExit) as leaving:
            main()
        answer = capfd.readouterr()
        assert leaving.value.code in (0, None), answer.err
        return answer.out

    def figures(target: str) -> dict[str, float]:
        attacks = f"clean,pgd-3,transfer:{NAME}@pgd-3"
        found = json.loads(rpat("eval", target, "--attack", attacks, "--json"))
        robust = {each["label"]: each["robust_acc"] for each in found["attacks"]}
        return {"clean": found["clean_acc"], **robust}

    shutil.copytree(RUN, "run")
    Path("elsewhere").mkdir()
    assert "the card:" in rpat("push", "run", NAME, "--dry-run")
    sent = json.loads(rpat("push", "run", NAME, "--json"))
    assert sent["commit"] == hub.commit(REPO)
    expected = figures("run")
    assert (len(expected), expected["clean"]) == (3, 0.692)  # that of its report
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert figures(NAME) == expected
    Image.new("L", (28, 28), 128).save("gray.png")
    (predicted,) = json.loads(rpat("predict", NAME, "gray.png", "--json"))
    assert len(predicted["guesses"]) == 3
    quick = ("--epochs", "1", "--steps", "1", "--eval", "clean", "--set", "data.val_size=100")
    rpat("train", "--model", "small-cnn", "--init", NAME, *quick, "--out", "more", "--quiet")
    assert NAME in Path("more/recipe.yaml").read_text()
