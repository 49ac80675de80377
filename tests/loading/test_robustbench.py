"""Models of RobustBench: the table of its entries, files nested as its loader expects them, and
`robustbench:NAME`."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from golden_networks import filled, robustbench_networks, shapes_of, wave
from on_disk import trust_cifar, write_cifar10
from robustbench_table import COLUMNS, SHIPPED, counts, shipped_rows
from torch import Tensor, nn
from torchvision import datasets

from rpat_cli.cli.app import app
from rpat_cli.data import DATASETS
from rpat_cli.errors import CheckpointError, ConfigError
from rpat_cli.evaluation.statistics import Accuracy
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.load import load_model
from rpat_cli.loading.robustbench import FOLDER, entries, find_entry
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.models import MODELS, is_model_name
from rpat_cli.models.combined import Ensemble, PerImage
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.layers import Layer, flag_layers, resolve
from rpat_cli.runs.eval_record import warnings_of
from rpat_cli.runs.target import load_sources

ROOT = Path(__file__).parents[2]
State = dict[str, Tensor]
NONE = ((0.0,) * 3, (1.0,) * 3)
HALF = ((0.5,) * 3, (0.5,) * 3)
DEEPMIND = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
DEEPMIND_100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
OWN = ((0.5, 0.51, 0.52), (0.25, 0.2, 0.3))
CIFAR10 = (DATASETS["cifar10"].mean, DATASETS["cifar10"].std)


# ---- the table


def test_the_shipped_table_is_computed_from_the_recorded_one() -> None:
    lines = SHIPPED.read_text().splitlines()
    assert lines == ["\t".join(row) for row in [COLUMNS, *shipped_rows()]]


def test_the_documents_count_what_can_be_loaded() -> None:
    lines = counts(entries())
    assert "\n".join(lines) in (ROOT / "docs" / "models.md").read_text()
    loaded, every = (int(cell) for cell in lines[-1].split("|")[3:5])
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"{loaded} of the {every} checkpoints" in readme


def test_every_network_of_the_table_is_known() -> None:
    for entry in entries():
        assert not entry.network or is_model_name(entry.network), entry
        assert not entry.network or entry.normalization, entry


# ---- files, nested as RobustBench's loader expects them


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def constants(names: tuple[str, str], shape: tuple[int, ...]) -> State:
    return {name: torch.tensor(values).view(shape) for name, values in zip(names, OWN, strict=True)}


def with_unused_block(state: State) -> State:
    block = {key: value for key, value in state.items() if key.startswith("block1.")}
    return state | {f"sub_{key}": value + 1 for key, value in block.items()}


def fast_training(state: State) -> Any:
    """Andriushchenko & Flammarion: two epochs, and a second name of some layers."""
    other = {key: value + 1 for key, value in state.items() if value.is_floating_point()}
    beside = {"model_preact_hl1.0.weight": torch.zeros(7, 5)}
    return {"best": other, "last": state | beside}


def scored(state: State) -> State:
    masks = {key.replace("weight", "scores"): value for key, value in state.items()}
    return state | {key: value for key, value in masks.items() if key.endswith("scores")}


MU = ("mu", "sigma")
# File, network, what is saved, the data set, and the normalization that must be in force.
FILES: dict[str, tuple[str, str, Callable[[State], Any], str, Any]] = {
    "preact": ("Andriushchenko2020Understanding", "preact-resnet18-fast", fast_training, "", NONE),
    "preact with normalization": (
        "mine",
        "preact-resnet18",
        lambda s: {"state_dict": under("module.", constants(MU, (1, 3, 1, 1)) | s)},
        "",
        OWN,
    ),
    "resnet-18": (
        "Addepalli2022Efficient_RN18",
        "resnet18",
        lambda s: under("module.model.", s),
        "",
        NONE,
    ),
    "wrn-sub": ("mine", "wrn-10-1", lambda s: under("module.", with_unused_block(s)), "", CIFAR10),
    "wrn hypersphere": (
        "mine",
        "wrn-10-1-hypersphere",
        lambda s: constants(MU, (1, 3, 1, 1)) | s,
        "",
        OWN,
    ),
    "wrn pssilu": ("mine", "wrn-10-2-pssilu", lambda s: s, "none", NONE),
    "dm-wrn": ("mine", "dm-wrn-10-1-silu", lambda s: {"state_dict": s}, "", DEEPMIND),
    "dm-wrn as asked": ("mine", "dm-wrn-10-1-silu", lambda s: s, "none", NONE),
    "dm-preact": ("mine", "dm-preact-18-silu", lambda s: under("module.", s), "", DEEPMIND),
    "meansparse": ("mine", "meansparse-dm-wrn-10-1-silu", lambda s: s, "", DEEPMIND),
    "resnext": ("Hendrycks2020AugMix_ResNeXt", "resnext-29-32x4", lambda s: s, "", HALF),
    "card": ("mine", "card-preact-18-w2-binary", scored, "half", HALF),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FOLDER, raising=False)


def net_of(name: str, classes: int = 10) -> nn.Module:
    """With weights and statistics of its own."""
    torch.manual_seed(3)
    net = MODELS[name](3, 32, classes).eval()
    for key, value in net.state_dict().items():
        if key.endswith(("running_mean", "running_var", "threshold")):
            value.copy_(0.5 + 0.1 * torch.rand_like(value))
    return net


def layers(**flags: str) -> list[Layer]:
    return flag_layers({f"--{key}": (tuple(key.split("/")), value) for key, value in flags.items()})


def assert_same(saved: SavedModel, net: nn.Module, normalization: Any) -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(saved.model(x), Classifier(net, *normalization).eval()(x))


@pytest.mark.parametrize("family", FILES)
def test_a_file_of_each_family_is_recognized_and_normalized(family: str, tmp_path: Path) -> None:
    stem, name, nested, asked, normalization = FILES[family]
    net = net_of(name)
    torch.save(nested(net.state_dict()), tmp_path / f"{stem}.pt")
    flags = {"data/name": "cifar10"} | ({"data/normalize_as": asked} if asked else {})
    saved = load_model(tmp_path / f"{stem}.pt", changes=layers(**flags))
    assert saved.architecture.name == name
    assert_same(saved, net, normalization)
    entry_named = stem != "mine"
    assert any("RobustBench" in remark for remark in saved.remarks) == entry_named
    assert (saved.recorded_acc is not None) == entry_named


# ---- robustbench:NAME


def put(tmp_path: Path, board: str, file: str, content: Any) -> None:
    (tmp_path / board).mkdir(parents=True, exist_ok=True)
    torch.save(content, tmp_path / board / file)


@pytest.mark.parametrize(
    ("board", "flags", "normalization", "published_acc"),
    [
        ("cifar10/Linf", {}, DEEPMIND, 0.8686),
        ("cifar10/L2", {"threat/norm": "L2"}, DEEPMIND, 0.9057),
        ("cifar100/Linf", {"data/name": "cifar100"}, DEEPMIND_100, 0.6150),
    ],
)
def test_an_entry_brings_its_data_set_threat_and_normalization(
    board: str, flags: dict[str, str], normalization: Any, published_acc: float, tmp_path: Path
) -> None:
    """Rade2021Helper_R18_ddpm is on three leaderboards."""
    dataset, norm = board.split("/")
    net = net_of("dm-preact-18-silu", classes=100 if dataset == "cifar100" else 10)
    put(tmp_path, f"models/{board}", "Rade2021Helper_R18_ddpm.pt", {"state_dict": net.state_dict()})
    flags = {"data/name": "cifar10", "data/root": str(tmp_path)} | flags
    saved = load_model("robustbench:Rade2021Helper_R18_ddpm", changes=layers(**flags))
    assert_same(saved, net, normalization)
    assert (saved.recipe.data.name, saved.recipe.threat.norm) == (dataset, norm)
    assert saved.recipe.threat.eps == (0.5 if norm == "L2" else 8 / 255)
    assert saved.recorded_acc == pytest.approx(published_acc, abs=1e-6)
    exact = load_model(
        f"robustbench:{board}/rade2021helper_r18_ddpm", changes=layers(**{"data/root": "."})
    )
    assert exact.recipe == saved.recipe.model_copy(
        update={"data": saved.recipe.data.model_copy(update={"root": exact.recipe.data.root})}
    )


def test_the_folder_of_the_environment_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = net_of("wrn-40-2")
    put(tmp_path, "there/cifar10/corruptions", "Hendrycks2020AugMix_WRN.pt", net.state_dict())
    monkeypatch.setenv(FOLDER, str(tmp_path / "there"))
    saved = load_model("robustbench:cifar10/corruptions/Hendrycks2020AugMix_WRN")
    assert_same(saved, net, HALF)
    assert "there" in str(saved.file)
    assert saved.normalized == ""  # as published: --normalize is refused


def test_a_missing_file_is_said_to_be_wanted_where() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_model("robustbench:Carmon2019Unlabeled", changes=layers(**{"data/root": "zoo"}))
    message = str(caught.value)
    assert "there is no Carmon2019Unlabeled.pt in any of zoo/cifar10/Linf, zoo/models/" in message
    assert "Nothing is downloaded" in message
    assert "to zoo/cifar10/Linf, or name its folder of models with --data-root" in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("robustbench:Carmon2019", "Did you mean Carmon2019Unlabeled"),
        ("robustbench:cifar10/L2/Carmon2019Unlabeled", "there is no such entry"),
        ("robustbench:", "there is no such entry"),
        (
            "robustbench:Wang2023Better_WRN-28-10",
            "is on 2 leaderboards. Name one of them: robustbench:cifar10/Linf/Wang2023",
        ),
        ("robustbench:Singh2023Revisiting_ViT-S-ConvStem", "a network that rpat does not have"),
    ],
)
def test_names_that_are_no_single_entry(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_model(name)


def test_what_an_entry_fixes_cannot_be_given() -> None:
    with pytest.raises(ConfigError, match="is a whole model: remove --model"):
        load_model("robustbench:Carmon2019Unlabeled", changes=layers(model="resnet18"))


def test_every_entry_that_can_be_loaded_is_found_by_its_full_name() -> None:
    loadable = [entry for entry in entries() if entry.network]
    assert [find_entry(str(entry), None, None) for entry in loadable] == loadable


def test_an_entry_is_a_source_of_transfer_attacks(tmp_path: Path) -> None:
    net = net_of("preact-resnet18-fast")
    put(
        tmp_path,
        "cifar10/Linf",
        "Wong2020Fast.pt",
        {"state_dict": under("module.", net.state_dict())},
    )
    recipe = resolve(layers(**{"data/name": "cifar10", "data/root": str(tmp_path)}))
    specs = parse_suite("transfer:robustbench:Wong2020Fast@pgd-2")
    target = Architecture("resnet18", (3, 32, 32), 10, *CIFAR10)
    (source,) = load_sources(specs, target, recipe).values()
    assert_same(source, net, DEEPMIND)


def test_images_are_standardized_one_by_one() -> None:
    x = torch.stack([torch.rand(3, 4, 4), torch.full((3, 4, 4), 0.3)])
    first = (x[0] - x[0].mean()) / x[0].std()
    expected = torch.stack([first, torch.zeros(3, 4, 4)])
    torch.testing.assert_close(PerImage(nn.Identity())(x), expected, atol=1e-6, rtol=0)


def test_an_ensemble_gives_the_logarithm_of_the_mean_probability() -> None:
    a, b = nn.Linear(4, 3), nn.Linear(4, 3)
    x = torch.rand(5, 4)
    mean = (a(x).softmax(1) + b(x).softmax(1)) / 2
    torch.testing.assert_close(Ensemble([a, b])(x).exp(), mean)


@pytest.mark.parametrize(
    ("normalized", "said"),
    [
        (
            "assumed",
            r"try --normalize .* order of the classes, or the network \(wrn-28-10: --model\)",
        ),
        ("as in RobustBench", "The normalization .as in RobustBench. may be another one"),
        ("of the file", "the order of classes and the range of pixels"),
    ],
)
def test_an_accuracy_near_chance_says_what_to_look_at(normalized: str, said: str) -> None:
    saved: Any = SimpleNamespace(
        normalized=normalized, recorded_acc=None, architecture=SimpleNamespace(name="wrn-28-10")
    )
    evaluation: Any = SimpleNamespace(clean=Accuracy(10, 100))
    data: Any = SimpleNamespace(classes=10)
    (warning,) = warnings_of(saved, evaluation, data)
    assert re.search(f"near chance .*{said}", warning)


# ---- whole models against the recorded ones


@pytest.fixture
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


NETWORKS = robustbench_networks()
QUICK = ("wrn-40-2", "wrn-28-4")
MOST_PARAMETERS = 50e6
VARIANTS = [
    pytest.param(
        name, variant, id=variant["entry"], marks=() if name in QUICK else pytest.mark.slow
    )
    for name, record in NETWORKS.items()
    for variant in record.get("variants", ())
    if variant["parameters"] < MOST_PARAMETERS
]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_an_entry_gives_the_recorded_logits(
    name: str, variant: dict[str, Any], tmp_path: Path
) -> None:
    dataset, threat, entry = variant["entry"].split("/")
    board = f"{dataset}/{'corruptions' if threat == 'corr' else threat}"
    changed = {key: tuple(shape) for key, shape in variant.get("state_changes", {}).items()}
    state = filled(shapes_of(NETWORKS[name]) | changed)
    own = {
        key: torch.tensor(variant["normalisation"][key]).view(1, 3, 1, 1)
        for key in variant["normalisation_in_state"]
    }
    put(tmp_path, board, f"{entry}.pt", {"state_dict": under("module.", own | state)})
    saved = load_model(f"robustbench:{board}/{entry}", changes=layers(**{"data/root": "."}))
    with torch.no_grad():
        logits = saved.model(wave(32))
    expected = torch.tensor(variant["logits"])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_an_ensemble_of_files_gives_the_recorded_probabilities(tmp_path: Path) -> None:
    record = NETWORKS["ensemble-3x-preact-bottleneck-50"]
    shapes = shapes_of(NETWORKS["preact-bottleneck-50"])
    for j in range(3):
        state = under("module.", filled(shapes, first=1000 * j))
        put(tmp_path, "cifar10/Linf", f"Chen2020Adversarial.pt_m{j}.pt", {"state_dict": state})
    saved = load_model("robustbench:Chen2020Adversarial", changes=layers(**{"data/root": "."}))
    with torch.no_grad():
        logits = saved.model(wave(32))
    torch.testing.assert_close(logits.exp(), torch.tensor(record["logits"]), rtol=0, atol=1e-8)


# ---- the command


COMMANDS = [
    pytest.param(family, marks=() if family == "dm-wrn" else pytest.mark.slow) for family in FILES
]


@pytest.fixture
def rpat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """`rpat eval` on the clean accuracy of four images of a small CIFAR-10."""
    write_cifar10(tmp_path)
    trust_cifar(monkeypatch, datasets.CIFAR10, tmp_path)
    how = (
        "--data-root",
        ".",
        "--limit",
        "4",
        "--attack",
        "clean",
        "--device",
        "cpu",
        "--jobs",
        "1",
    )

    def call(*arguments: str) -> dict[str, Any]:
        given = ["eval", *arguments, "--data", "cifar10", *how, "--json"]
        app(given, prog_name="rpat", standalone_mode=False)
        return dict(json.loads(capsys.readouterr().out))

    return call


@pytest.mark.parametrize("family", COMMANDS)
def test_the_command_evaluates_a_file_of_each_family(
    family: str, tmp_path: Path, rpat: Callable[..., dict[str, Any]]
) -> None:
    stem, name, nested, asked, _ = FILES[family]
    put(tmp_path, "files", f"{stem}.pt", nested(net_of(name).state_dict()))
    report = rpat(f"files/{stem}.pt", *(("--normalize", asked) if asked else ()))
    assert report["model"]["name"] == name
    assert (report["n"], report["data"]["name"]) == (4, "cifar10")


def test_the_command_evaluates_an_entry(
    tmp_path: Path, rpat: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "cifar10/Linf", "Wong2020Fast.pt", net_of("preact-resnet18-fast").state_dict())
    report = rpat("robustbench:Wong2020Fast")
    assert report["model"]["name"] == "preact-resnet18-fast"
    assert report["threat"] == {"norm": "Linf", "eps": pytest.approx(8 / 255)}
    assert any("far below the 83.34 %" in remark for remark in report["remarks"])
    with pytest.raises(ConfigError, match="the model normalizes its images itself"):
        rpat("robustbench:Wong2020Fast", "--normalize", "none")
