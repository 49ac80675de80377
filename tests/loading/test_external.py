"""Models that rpat has not trained: from a function in a file, of a model library, at hand in
Python."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

import rpat_cli as rpat
from rpat_cli.errors import CheckpointError, ConfigError, RpatError
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.load import load_model
from rpat_cli.loading.model_file import ModelFile
from rpat_cli.recipe.layers import Layer
from rpat_cli.recipe.trust import trusting
from rpat_cli.runs.evaluate import EvalOptions, eval_run
from rpat_cli.runs.target import open_target

FILE = """
import torch
from torch import nn
from layers_next_to_it import Doubled

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(Doubled(), nn.Flatten(), nn.Linear(784, 10))
        self.shift = torch.rand(1)  # in no state dict

    def forward(self, x):
        return self.head(x) + self.shift

def build():
    return Net()

def closed():
    class Local(Net):
        pass
    return Local()

def three():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 3))

def color():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())

def features():
    return nn.Conv2d(1, 4, 3)

def wants(depth):
    return Net()

def breaks():
    return 1 / 0

def number():
    return 7

def double():
    return Net().double()

def talkative():
    print("weights read")
    return Net()

print("a program that talks")

ready = Net()
"""

DATA = Layer("--data", {"data": "fashion-mini"})


@pytest.fixture(autouse=True)
def answered() -> Iterator[None]:
    """Somebody has named these files and libraries, as on the command line."""
    with trusting(everything=True):
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a model file in it and the file that it imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my.py").write_text(FILE)
    (tmp_path / "layers_next_to_it.py").write_text(
        "from torch import nn\nclass Doubled(nn.Module):\n    def forward(self, x):\n        "
        "return 2 * x\n"
    )
    monkeypatch.delitem(sys.modules, "layers_next_to_it", raising=False)
    return tmp_path


def test_a_function_in_a_file_is_measured_and_its_results_are_kept_apart_from_runs(
    here: Path,
) -> None:
    evaluation, file = eval_run(
        Path("my.py:build"), parse_suite("fgsm"), changes=[DATA], options=EvalOptions(limit=40)
    )
    assert evaluation.n == 40
    assert evaluation.robust.correct <= evaluation.clean.correct
    assert file.parent == Path("runs/external/my-build/evals")
    assert '"name": "my.py:build"' in file.read_text()
    first, again = (load_model("my.py:build", changes=[DATA]) for _ in range(2))
    assert (
        first.fingerprint() == again.fingerprint()
    )  # what the function draws, it draws again: resuming is right
    assert not first.model.training
    (here / "my.py").write_text(FILE + "# a word more\n")
    assert load_model("my.py:build", changes=[DATA]).fingerprint() != first.fingerprint()


def test_what_programs_and_libraries_say_does_not_stand_among_results(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(name: str, shape: Any) -> nn.Module:
        print("Downloading weights")
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    monkeypatch.setattr("rpat_cli.loading.external.PRETRAINED_MODELS", {"torchvision": fetch})
    load_model("my.py:talkative", changes=[DATA])
    load_model("torchvision:resnet18", changes=[DATA])
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a program that talks\nweights read\nDownloading weights\n"


def test_it_travels_to_another_process_with_everything_in_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelFile.parse(f"{here}/my.py:build").build().eval()  # type: ignore[union-attr]
    x = torch.rand(3, 1, 28, 28)
    pickled, logits = pickle.dumps(model), model(x)
    for name in [name for name in sys.modules if name.startswith("rpat_model_my_")]:
        monkeypatch.delitem(sys.modules, name)  # as in a process that has not seen the file yet
    arrived = pickle.loads(pickled)
    assert type(arrived.model) is not type(model.model)
    assert torch.equal(arrived(x), logits)
    assert not arrived.training
    with pytest.raises((AttributeError, pickle.PicklingError), match="Local"):
        pickle.dumps(ModelFile(here / "my.py", "closed").build())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mi.py:build", "there is no file mi.py. Did you mean 'my.py'?"),
        (
            "my.py:bild",
            "there is no function 'bild' in my.py. Did you mean 'build'? Its functions: build, "
            "closed,",
        ),
        ("my.py:ready", "'ready' is not a function but a Net. Name a function"),
        ("my.py:wants", "missing a required argument: 'depth'. It is called without arguments"),
        (
            "my.py:breaks",
            f"my.py:{FILE.splitlines().index('    return 1 / 0') + 1}: breaks() failed: "
            "ZeroDivisionError: division",
        ),
        ("my.py:number", "number() returned int, not a torch.nn.Module."),
        (
            "my.py:color",
            "my.py:color: the model fails on an image of shape (1, 28, 28): RuntimeError",
        ),
        (
            "my.py:double",
            "my.py:double: evaluation is in float32, but the model has parameters in float64.",
        ),
        (
            "my.py:features",
            "must return logits (B, classes) for B = 1 images, this one gave (1, 4, 26, 26)",
        ),
        ("my.py:three", "in 3 classes; the data set has (1, 28, 28) in 10. Choose the data set"),
        ("wrong.py:build", "wrong.py:2: the file failed: SyntaxError"),
    ],
)
def test_what_is_wrong_with_a_model_file_is_said_in_one_line(
    here: Path, target: str, message: str
) -> None:
    (here / "wrong.py").write_text("x = 1\nif x\n")
    with pytest.raises(RpatError) as error:
        open_target(Path(target), "best", [DATA])
    assert message in str(error.value)


def test_a_model_from_elsewhere_needs_its_data_set_and_is_no_other_network(here: Path) -> None:
    with pytest.raises(ConfigError, match="Name a data set with --data"):
        load_model("my.py:build")
    with pytest.raises(ConfigError, match="remove --model"):
        load_model("my.py:build", changes=[DATA, Layer("--model", {"model": "small-cnn"})])


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


def test_a_model_at_hand_is_measured_and_left_as_it_was(here: Path) -> None:
    model = Flat()
    before = model.head.weight.detach().clone()
    evaluation, file = rpat.evaluate(model, "clean,pgd-2", limit=30, data="fashion-mini")
    assert (evaluation.n, [result.label for result in evaluation.results]) == (
        30,
        ["clean", "pgd-2"],
    )
    assert file.parent == Path("runs/external/Flat/evals")
    assert model.training
    assert torch.equal(model.head.weight, before)
    assert model.head.weight.grad is None


NAME = "shufflenet_v2_x0_5"
COLOR = [Layer("--data", {"data": {"name": "imagefolder", "image_size": 64}})]


def test_a_library_model_brings_its_weights_and_its_own_normalization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = models.get_model_weights(NAME).DEFAULT
    file = tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1]

    def no_net(*_: Any, **__: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_net)
    with pytest.raises(CheckpointError) as error:
        load_model(f"torchvision:{NAME}", changes=COLOR)
    assert (
        f"are not at {file}, and {weights.url} could not be read (<urlopen error no route>)"
        in str(error.value)
    )
    net = models.get_model(NAME).eval()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), file)
    saved = load_model(f"torchvision:{NAME}", changes=COLOR)
    assert (saved.architecture.shape, saved.architecture.classes) == ((3, 64, 64), 1000)
    x = torch.rand(2, 3, 64, 64)
    mean, std = (
        torch.tensor(each).view(3, 1, 1)
        for each in (weights.transforms().mean, weights.transforms().std)
    )
    torch.testing.assert_close(saved.model(x), net((x - mean) / std))
    assert saved.folder.path == Path("runs/external/torchvision-shufflenet_v2_x0_5")
    with pytest.raises(ConfigError, match="takes images of 3 channels; these have 1"):
        load_model(f"torchvision:{NAME}", changes=[DATA])
    with pytest.raises(ConfigError, match="Did you mean 'resnet18'"):
        load_model("torchvision:resnet81", changes=COLOR)


def test_the_same_from_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    untrained = timm.create_model("resnet18").eval()
    config = timm.get_pretrained_cfg("resnet18")

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError) as error:
        load_model("timm:resnet18", changes=COLOR)
    assert "models--timm--resnet18" in str(error.value)
    assert "https://huggingface.co/timm/resnet18" in str(error.value)
    monkeypatch.setattr(timm, "create_model", lambda name, *, pretrained: untrained)
    x = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (config.mean, config.std))
    model = load_model("timm:resnet18", changes=COLOR).model
    torch.testing.assert_close(model(x), untrained((x - mean) / std))
