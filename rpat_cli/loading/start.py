"""What the weights of a training begin with (`--init`): read, fitted to the network, recorded."""

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.errors import CheckpointError, ConfigError, Problem
from rpat_cli.loading.foreign import MIN_IN_COMMON, misfit, renamed, without_counters
from rpat_cli.loading.foreign_file import is_foreign, load_state
from rpat_cli.loading.hub import client, fetch, is_here
from rpat_cli.loading.hub_model import read_description
from rpat_cli.loading.load import check_content, split_key
from rpat_cli.loading.origins import sha256_of, weights_sha256
from rpat_cli.loading.robustbench import is_entry
from rpat_cli.loading.zoo import load_entry
from rpat_cli.models import in_library
from rpat_cli.models.combined import Ensemble, PerImage
from rpat_cli.models.hub_name import HUB, HubName
from rpat_cli.models.libraries import LibraryWeights, timm_weights, torchvision_weights
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.layers import Layer
from rpat_cli.recipe.start import FORMS
from rpat_cli.recipe.trust import trust, unasked_download
from rpat_cli.records.checkpoint import load_checkpoint
from rpat_cli.records.files import user_path
from rpat_cli.records.run_folder import open_run


@dataclass(frozen=True)
class Start:
    """Weights by their names in the network behind a `Classifier`.

    `source`: as it was named. `sha256` (hex): of the file, or where there is none of the weights.
    `mean`, `std`: the normalization that they were trained with (pixels in [0, 1]), if known.
    `model`: the network that they are of, if that is recorded. `left`: what did not fit, once it
    was `fitted`.
    """

    source: str
    sha256: str
    tensors: Mapping[str, Tensor]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    model: str = ""
    left: str = ""

    def fitted(self, network: nn.Module, name: str) -> "Start":
        """What of it the network called `name` takes; the rest is in `left`.

        Raises `CheckpointError` where that is less than half of the network: then it is another
        one.
        """
        target = network.state_dict()
        given = renamed(self.tensors, target)
        fits = {key: value for key, value in given.items() if _fits(value, target.get(key))}
        wanted = without_counters(target)
        found = sum(key in fits for key in wanted)
        left = misfit(given, target)
        if found < MIN_IN_COMMON * len(wanted):
            of = f" (they are of {self.model!r})" if self.model else ""
            raise CheckpointError(
                f"the weights of {self.source}{of} do not fit the network {name!r}: {left}. Name "
                "the network that they are of with --model."
            )
        broken = [key for key, value in fits.items() if not value.isfinite().all()]
        if broken:
            message = f"the weights of {self.source} are not finite: {', '.join(broken[:6])}."
            raise CheckpointError(message)
        return replace(self, tensors=fits, left=left)

    @torch.no_grad()
    def put_into(self, network: nn.Module) -> None:
        """Copy the weights into the network that they were `fitted` to."""
        target = network.state_dict()
        for key, value in self.tensors.items():
            target[key].copy_(value)

    def record(self) -> dict[str, Any]:
        """What a run keeps of it: plain builtins."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "loaded": len(self.tensors),
            "left": self.left,
        }


def _fits(given: Tensor, wanted: Tensor | None) -> bool:
    if wanted is None or given.shape != wanted.shape:
        return False
    return given.is_floating_point() == wanted.is_floating_point()


def read_start(init: str, root: Path = Path("data")) -> Start:
    """Read the weights that `init` names (see `rpat_cli.recipe.start`); `root` is where the files
    of RobustBench are looked for, too.

    Raises `ConfigError` for a name that means nothing, or a download that nobody asked for,
    `CheckpointError` and `RunFolderError` for what is missing or damaged, `MissingExtraError`.
    """
    if in_library(init):
        return _of_library(init)
    if init.startswith(HUB):
        return _of_hub(init)
    if is_entry(init):
        return _of_robustbench(init, root)
    path, key = split_key(user_path(init))
    if not path.exists():
        message = f"there is no {init}."
        raise ConfigError(Problem("init", message, hint=f"Weights come from {FORMS}."))
    file = path
    if path.is_dir():
        run = open_run(path)
        best = run.checkpoint("best")
        file = best if best.exists() else run.checkpoint("last")
    if is_foreign(file):
        return _of_file(file, key, init)
    if key:
        raise ConfigError(f"{file} is a checkpoint of rpat, with one network: leave out :{key}")
    return _of_checkpoint(file, init)


def start_here(init: str, root: Path = Path("data")) -> Start | None:
    """As `read_start`, which raises the same; None for what that might download."""
    if init.startswith(HUB):
        client(f"the model {init!r}")
        return None
    return None if is_missing(init) else read_start(init, root)


def is_missing(init: str) -> bool:
    """Whether these are weights of a library or of the hub that are not on this machine, so that
    reading them downloads them. Raises as `read_start` does."""
    if in_library(init):
        return not _library_weights(init).file.exists()
    return init.startswith(HUB) and not is_here(init)


def _of_checkpoint(file: Path, source: str) -> Start:
    content = load_checkpoint(file, needs=("recipe", "architecture", "model", "epoch"))
    check_content(content, file)
    state = dict(content["model"])
    mean, std = (_values(state.pop(key, None)) for key in ("mean", "std"))
    tensors = {key.removeprefix("net."): value for key, value in state.items()}
    name = str(content["architecture"].get("name", ""))
    return Start(source, sha256_of(file), tensors, mean, std, name)


def _values(tensor: Tensor | None) -> tuple[float, ...] | None:
    return None if tensor is None else tuple(tensor.flatten().tolist())


def _of_file(file: Path, key: str, source: str) -> Start:
    imported = load_state(file, key)
    return Start(source, sha256_of(file), imported.tensors, imported.mean, imported.std)


def _library_weights(init: str) -> LibraryWeights:
    name, _, tag = init.partition("@")
    library, _, member = name.partition(":")
    return _LIBRARIES[library](member, tag)


def _of_library(init: str) -> Start:
    name, weights = init.partition("@")[0], _library_weights(init)
    if is_missing(init) and not trust().allows_download(init):
        raise ConfigError(unasked_download(init, f"--init {init}", key="init"))
    with redirect_stdout(sys.stderr):  # progress; stdout is for results alone
        tensors = weights.load()
    sha256 = weights_sha256(weights.file, tensors)
    return Start(init, sha256, tensors, weights.mean, weights.std, name)


_LIBRARIES: Mapping[str, Callable[[str, str], LibraryWeights]] = {
    "torchvision": torchvision_weights,
    "timm": timm_weights,
}


def _of_hub(init: str) -> Start:
    name = HubName.parse(init)
    files = fetch(name, f"--init {init}", key="init")
    start = _of_file(files.weights, "", init)
    if files.description is None:
        return start
    network = read_description(files.description, name)["architecture"].get("name", "")
    return replace(start, model=str(network))


def _of_robustbench(init: str, root: Path) -> Start:
    """By the loader of `rpat eval robustbench:NAME`, so with the network and the constants that the
    model is evaluated with."""
    saved = load_entry(init, [Layer("init", {"data": {"root": str(root)}})])
    if not isinstance(saved.model, Classifier) or isinstance(saved.model.net, Ensemble | PerImage):
        message = "is an ensemble, or standardizes every image by itself: no training begins there."
        raise ConfigError(Problem("init", message, init, f"Weights come from {FORMS}."))
    mean, std = saved.model.constants
    tensors = saved.model.net.state_dict()
    return Start(init, sha256_of(saved.file), tensors, mean, std, saved.architecture.name)
