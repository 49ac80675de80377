"""Which files the weights are from that a run begins with, and the networks that its method learns
from: as its checkpoints keep it, and in words."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rpat_cli.records.checkpoint import checksum
from rpat_cli.records.regular import open_regular

START = "start"
"""The key of a checkpoint for what `Start.record` returned."""

LEARNED_FROM = "learned_from"
"""The key of a checkpoint for what `origin` returned, by the names of the networks."""


def origin(source: str, files: Sequence[Path], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a run keeps of a network that its method learns from: plain builtins. `source`: as it is
    named; `files`: what was read for it; the hash is of all of them."""
    sha256 = weights_sha256(files[0], weights) if len(files) == 1 else checksum(weights)
    return {"source": source, "sha256": sha256}


def weights_sha256(file: Path, weights: Mapping[str, Tensor]) -> str:
    """Of the file (hex), or where there is none, since a library loads them, of the weights."""
    return sha256_of(file) if file.is_file() else checksum(weights)


def sha256_of(file: Path) -> str:
    """Of a file's content (hex)."""
    with open_regular(file) as opened:
        digest = hashlib.sha256()
        while part := opened.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def origins_in_words(content: Mapping[str, Any]) -> list[str]:
    """What a checkpoint of that content says of them, for people: a sentence for each."""
    said = [start_in_words(content[START])] if START in content else []
    learned_from = content.get(LEARNED_FROM, {})
    return said + [learned_in_words(name, record) for name, record in learned_from.items()]


def start_in_words(record: Mapping[str, Any]) -> str:
    """What `Start.record` returned, for people."""
    text = f"started from {_named(record)}"
    if record["left"]:
        text += f"; what did not fit began at random: {record['left']}"
    return text


def learned_in_words(name: str, record: Mapping[str, Any]) -> str:
    """What `origin` returned of the network that the method calls `name`, for people."""
    return f"learns from {_named(record)} as its {name}"


def _named(record: Mapping[str, Any]) -> str:
    return f"{record['source']} (sha256 {str(record['sha256'])[:12]})"
