"""Which evaluation is this? Everything that its results depend on, as one key.

Chunks of a stopped evaluation are used by an evaluation of the same identity only, and an
evaluation whose key is on disk need not be run again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rpat_cli.attacks.surrogate import Surrogate
from rpat_cli.data.choice import Limit, recorded
from rpat_cli.evaluation.parallel.store import RECORDS, key_of
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.loading.stand_ins import fingerprint
from rpat_cli.records import eval_file
from rpat_cli.records.eval_file import EvalFile
from rpat_cli.records.files import is_file, user_path
from rpat_cli.runs.target import OpenedTarget
from rpat_cli.version import __version__

LIBRARIES = ("torch", "pyautoattack", "autoattack", "foolbox")
"""Whose version may change what an attack finds."""


def identity_of(
    opened: OpenedTarget,
    specs: Sequence[AttackSpec],
    sources: Mapping[str, SavedModel],
    *,
    limit: Limit | None,
    batch_size: int,
    fast: bool = False,
    saved: bool = False,
    surrogates: Sequence[Surrogate] = (),
) -> dict[str, Any]:
    """All that the results depend on, by names that a message can use."""
    threat = opened.recipe.threat
    stand_ins = {"stand-ins": fingerprint(surrogates)} if surrogates else {}
    return {
        "weights": opened.saved.fingerprint(),
        "data": opened.data.fingerprint,
        "limit": recorded(limit),
        "threat": [threat.norm, threat.eps],
        "attacks": [[spec.label, _settings_of(spec)] for spec in specs],
        "source models": {label: source.fingerprint() for label, source in sources.items()},
        "batch size": batch_size,
        "seed": opened.recipe.seed,
        "device": opened.compute.device.type,
        "kind of records": RECORDS,
        **stand_ins,
        "versions": {"rpat": __version__, **{name: _installed(name) for name in LIBRARIES}},
        **_files_of(specs),
        **({"adversarial images": True} if saved else {}),
        **({"fast": True} if fast else {}),  # keys from before there was such a choice stay
    }


def _settings_of(spec: AttackSpec) -> dict[str, Any]:
    """Without where the source model lies, which may be written in many ways: its weights count."""
    return {key: value for key, value in spec.settings.items() if key != "source"}


def _files_of(specs: Sequence[AttackSpec]) -> dict[str, Any]:
    """What is in the files of saved examples: another file of the same name is another attack."""
    found = {}
    for spec in specs:
        path = user_path(str(spec.settings.get("path", "")))
        if spec.name == "file" and is_file(path):
            with path.open("rb") as file:
                found[spec.label] = hashlib.file_digest(file, "sha256").hexdigest()
    return {"files": found} if found else {}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def finished(opened: OpenedTarget, identity: Mapping[str, Any]) -> list[EvalFile]:
    """The evaluations of this identity on disk, the oldest first."""
    files, _ = eval_file.read_all(opened.saved.folder.evals)
    key = key_of(identity)
    return [file for file in files if file.key == key]
