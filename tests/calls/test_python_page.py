"""The pages with Python are true: their blocks run, on few images and for one epoch."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rpat
import torch
from hub_server import TOKEN, hub_here
from PIL import Image

import rpat_cli

ROOT = Path(__file__).parent.parent.parent
PAGES = ("README.md", "docs/python.md", "docs/runs.md")
TINY = {"epochs": 1, "steps": 1, "val_size": 100, "batch_size": 800}


def blocks(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall("^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The functions of rpat, where everything takes long that a reader does, made short; and a
    hub."""
    train, evaluate, older, attack = (
        rpat.train, rpat.evaluate, rpat_cli.train, rpat.attacks.AutoAttack,
    )  # fmt: skip

    def short_training(**keys: Any) -> Any:
        tiny = TINY if "data" not in keys else {}
        return train(**{**keys, **tiny, "set": {"validation.steps": 1, **keys.get("set", {})}})

    def short_evaluation(*args: Any, **keys: Any) -> Any:
        return evaluate(*args, **{"limit": 20, "batch_size": 20, **keys})

    def short_older(**keys: Any) -> Any:
        sections = {"attack": {"steps": 1}, "validation": {"steps": 1}, "data": {"val_size": 100}}
        return older(**{**keys, **sections})

    monkeypatch.setattr(rpat, "train", short_training)
    monkeypatch.setattr(rpat, "evaluate", short_evaluation)
    monkeypatch.setattr(rpat_cli, "train", short_older)
    monkeypatch.setattr(
        rpat.attacks, "AutoAttack", lambda **keys: attack(**keys, attacks=["apgd-ce"])
    )
    with hub_here(monkeypatch, tmp_path):
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield


@pytest.mark.slow
def test_its_blocks_run(tiny: None, tmp_path: Path) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "photo.jpg")
    named = {"runs/NAME": ""}
    for block in [b for page in PAGES for b in blocks(page)]:
        names: dict[str, Any] = {}
        torch.manual_seed(0)
        text = block.replace("runs/NAME", named["runs/NAME"])
        text = text.replace('load("fashion-mini").test.tensors())', 'load("fashion-mini")'
                            ".test.subset(torch.arange(5)).tensors())")  # fmt: skip
        exec(compile(text, "python.md", "exec"), {"torch": torch, **names}, names)
        run = names.get("run")
        if isinstance(run, rpat.Run) and run.recipe.data.name != "in-memory":
            named["runs/NAME"] = str(run.path)
    assert named["runs/NAME"]
