"""Shared by the tests of runs."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.runs.build import architecture_for, build_data


@pytest.fixture(scope="session")
def briefly_trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small network after one pass over the embedded images: a second."""
    recipe = resolve([Layer("test", {"model": "small-cnn", "device": "cpu"})])
    data = build_data(recipe.data, recipe.seed)
    architecture = architecture_for(recipe, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architecture.build()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        x, y = data.train.tensors()
        for part in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("model") / "net.pt"
    content = {"recipe": recipe.model_dump(mode="json"), "architecture": architecture.to_dict()}
    save_checkpoint(path, {**content, "epoch": 1, "model": model.state_dict()})
    return path


@pytest.fixture
def some_net(briefly_trained: Path, tmp_path: Path) -> Path:
    """A copy of it in a folder of its own."""
    path = tmp_path / "a" / "net.pt"
    path.parent.mkdir()
    path.write_bytes(briefly_trained.read_bytes())
    return path
