"""`rpat push`: a model to the Hugging Face hub, where `hf:USER/NAME` finds it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from rpat_cli.errors import CheckpointError, ConfigError, Problem, RpatError
from rpat_cli.export.card import model_card
from rpat_cli.export.check import compare
from rpat_cli.export.formats import FORMATS, Model
from rpat_cli.export.write import CARD, report_of
from rpat_cli.loading.hub import CLIENT, DESCRIPTION, WEIGHTS, HubFiles, client, said
from rpat_cli.loading.hub_model import description, read_pushed
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.models.hub_name import HubName
from rpat_cli.records.files import write_whole
from rpat_cli.text import file_size

FILES = (WEIGHTS, DESCRIPTION, CARD)


@dataclass(frozen=True)
class Pushed:
    """What was sent, or would be: `files` with their sizes in bytes, of which `replaced` were there
    already; `created`: the repository was not there before. `commit` is "" if nothing was sent."""

    name: str
    url: str
    files: Mapping[str, int]
    card: str
    created: bool
    private: bool
    replaced: Sequence[str]
    remarks: Sequence[str]
    commit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        kind = "private" if self.private else "public"
        place = f"{self.url}, {'a new' if self.created else 'a'} {kind} repository"
        lines = [
            f"{file}: {file_size(size)}" + (", replaced" if file in self.replaced else "")
            for file, size in self.files.items()
        ]
        if self.commit:
            lines += [f"sent to {place}", f"try it: rpat eval {self.name}"]
        else:
            lines += [f"would be sent to {place}; the card:", "", self.card]
        return "\n".join(lines)


def push_model(
    saved: SavedModel,
    name: HubName,
    *,
    private: bool = False,
    replace: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Send the weights, their description and the model card in one commit, once they have been
    read back and predict the same. What is missing is made: the repository (`private` or not), and
    the branch that is the name's revision.

    Raises `ConfigError` for files that are there already (unless `replace`), for a model that needs
    code, and if nobody is logged in; `CheckpointError` for what the hub refuses or if it is out of
    reach; `MissingExtraError`.
    """
    _check_model(saved, name)
    hub = client("sending models to the Hugging Face hub")
    if not dry_run and hub.get_token() is None:
        hint = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
        raise ConfigError(Problem("", "nobody is logged in to the hub.", str(name), hint))
    place = _Place(hub, name)
    place.check(private=private, replace=replace)
    with TemporaryDirectory() as made:
        folder = Path(made)
        card = _write(saved, name, folder)
        pushed = Pushed(
            name=str(name),
            url=f"{hub.constants.ENDPOINT}/{name.repo}",
            files={file: (folder / file).stat().st_size for file in FILES},
            card=card,
            created=not place.exists,
            private=place.private if place.exists else private,
            replaced=place.taken,
            remarks=_remarks(saved),
            commit="" if dry_run else place.send(folder, saved.file.stem, private=private),
        )
    return pushed


def _check_model(saved: SavedModel, name: HubName) -> None:
    if name.file:
        raise ConfigError(f"{name}: the files have fixed names. Leave out :{name.file}")
    if saved.source or ".py:" in saved.architecture.name:
        raise ConfigError(
            f"{saved.architecture.name} is a network of your own code, which is never sent or "
            "downloaded. Hand the file and the weights on in another way, or export the network "
            "as a program: rpat export RUN --format torch-export"
        )


def _write(saved: SavedModel, name: HubName, folder: Path) -> str:
    """The files, which are what `hf:USER/NAME` will read; returns the card."""
    model = Model(saved.model.to("cpu").eval(), saved.architecture)
    FORMATS["safetensors"].write(model, folder / WEIGHTS)
    write_whole(folder / DESCRIPTION, json.dumps(description(saved), indent=2) + "\n")
    card = model_card(
        saved, report_of(saved), saved.file.stem, {"safetensors": WEIGHTS}, hub=str(name)
    )
    write_whole(folder / CARD, card)
    files = HubFiles(name, folder / WEIGHTS, folder / DESCRIPTION)
    again = read_pushed(files, folder / DESCRIPTION)
    checked = compare(model, again.model, None, None)
    if not checked.within:
        raise RpatError(f"{name}: what would be sent is another model: {checked.text}.")
    return card


def _remarks(saved: SavedModel) -> list[str]:
    plugins = [Path(plugin).name for plugin in saved.recipe.plugins]
    if not plugins:
        return []
    return [f"not sent, since it is code: {', '.join(plugins)}; who needs it names it (--plugin)"]


class _Place:
    """The repository, as it is now. `taken`: those of our files that it has already."""

    def __init__(self, hub: ModuleType, name: HubName) -> None:
        self.hub, self.name = hub, name
        self.api = hub.HfApi(hub.constants.ENDPOINT, **CLIENT)
        self.exists = self.has_branch = True
        self.private, self.commit = False, ""
        self.taken: list[str] = []
        try:
            self._look()
        except Exception as error:  # of the network, or of access
            raise CheckpointError(said(hub, error, name, "see")) from error

    def _look(self) -> None:
        errors = self.hub.errors
        try:
            info = self.api.model_info(self.name.repo, revision=self.name.revision or None)
        except errors.RevisionNotFoundError:
            self.has_branch = False
            info = self.api.model_info(self.name.repo)
        except errors.GatedRepoError:
            raise
        except errors.RepositoryNotFoundError:
            self.exists = self.has_branch = False
            return
        self.private = bool(info.private)
        if self.has_branch:
            names = {each.rfilename for each in info.siblings or []}
            self.taken = [file for file in FILES if file in names]
            self.commit = info.sha or ""

    def check(self, *, private: bool, replace: bool) -> None:
        problems = []
        if private and self.exists and not self.private:
            hint = "Make it private on its page first, or choose another name."
            problems.append(Problem("--private", "the repository is public already.", "", hint))
        if self.taken and not replace:
            message = f"has {', '.join(self.taken)} already."
            hint = "Replace with --replace (its history keeps the old ones), or push to a branch: "
            hint += f"hf:{self.name.repo}@BRANCH"
            problems.append(Problem("", message, str(self.name), hint))
        if problems:
            raise ConfigError(*problems, title="nothing was sent" if problems[1:] else "")

    def send(self, folder: Path, checkpoint: str, *, private: bool) -> str:
        """The commit, of all files at once: whoever reads meanwhile gets the old ones or the
        new."""
        repo, branch, made = self.name.repo, self.name.revision, ""
        try:
            if not self.exists:
                self.api.create_repo(repo, exist_ok=True, **({"private": True} if private else {}))
                made = " The repository has been made, and is still empty."
            if branch and not self.has_branch:
                self.api.create_branch(repo, branch=branch, exist_ok=True)
            done = self.api.create_commit(
                repo,
                [self.hub.CommitOperationAdd(file, str(folder / file)) for file in FILES],
                commit_message=f"Model of rpat, checkpoint {checkpoint}",
                revision=branch or None,
                # It fails if somebody has changed what was looked at.
                parent_commit=self.commit or None,
            )
        except Exception as error:  # of the network, of access, of the disk
            raise CheckpointError(said(self.hub, error, self.name, "write") + made) from error
        return str(done.oid)
