"""Results of chunks on disk as soon as they are there, so that an evaluation killed at any moment
can go on.

One file per evaluation, named by a hash of everything that its results depend on: first a line of
JSON that says what that is, then one line for each chunk, with a checksum. Lines are only ever
appended; a last line that was not written to its end is cut off, and a damaged one is not believed:
its chunk is attacked again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rpat_cli.errors import RunFolderError
from rpat_cli.evaluation.parallel.chunks import ChunkResult
from rpat_cli.evaluation.samples_json import bits_to_text, text_to_bits
from rpat_cli.records.files import append_durably, refuse_link
from rpat_cli.records.regular import read_regular
from rpat_cli.text import counted

Identity = Mapping[str, Any]
"""What the results of an evaluation depend on, by name; plain builtins."""

RECORDS = 2
"""The version of what is recorded of a chunk: part of an identity, since lines of another version
are of no use."""

_MEASURED = ("margin", "confidence", "distance")


def key_of(identity: Identity) -> str:
    """Sixteen hexadecimal digits that change with anything in `identity`."""
    return hashlib.sha256(_line(identity).encode()).hexdigest()[:16]


@dataclass
class ChunkStore:
    """The chunks of one evaluation, in the file `path`; `known` are those of an earlier start."""

    path: Path
    identity: Identity
    known: tuple[ChunkResult, ...] = ()
    has_header: bool = False

    @classmethod
    def open(cls, folder: Path, identity: Identity, say: Callable[[str], None]) -> "ChunkStore":
        """Read the chunks known of this very evaluation, and say how many; where there are none but
        another evaluation is unfinished, say what differs.

        Raises `RunFolderError` when a file cannot be read or cut.
        """
        path = folder / f"{key_of(identity)}.jsonl"
        try:
            if path.exists():
                records, damaged = _read_and_cut(path)
                known = {
                    (chunk.label, chunk.stage, chunk.chunk): chunk for chunk in _chunks(records)
                }
                say(f"resuming: {counted(len(known), 'chunk')} known")
                if damaged:
                    lines = counted(damaged, "damaged line")
                    say(f"{lines} in {path}: what they held is measured again")
                return cls(path, identity, tuple(known.values()), has_header=bool(records))
            if others := sorted(folder.glob("*.jsonl"), key=lambda other: other.stat().st_mtime):
                say(f"starting afresh: {_difference(others[-1], identity)}")
        except OSError as error:
            raise RunFolderError(f"cannot read {path}: {error.strerror}.") from error
        return cls(path, identity)

    @property
    def key(self) -> str:
        return self.path.stem

    def add(self, chunk: ChunkResult) -> None:
        """Write one chunk, through to the disk. Raises `RunFolderError` if that fails."""
        header = "" if self.has_header else _line(self.identity)
        refuse_link(self.path.parent.parent)
        refuse_link(self.path.parent)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_durably(self.path, header + _line(_with_checksum(_record(chunk))))
        except (OSError, RunFolderError) as error:
            reason = getattr(error, "strerror", None)
            said = f"cannot write {self.path}: {reason}." if reason else str(error)
            raise RunFolderError(
                f"{said} What was written before is kept: free disk space or fix the permissions, "
                "then run again."
            ) from error
        self.has_header = True

    def remove(self) -> None:
        """Forget the chunks, once the whole result is written."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # gone already, or not empty
            self.path.parent.rmdir()


def _read_and_cut(path: Path) -> tuple[list[Mapping[str, Any]], int]:
    """The records of all whole lines, and how many lines are damaged.

    A last line that was not written to its end is cut off. That of an evaluation that was killed is
    no damage.
    """
    content = read_regular(path)
    end = content.rfind(b"\n") + 1
    if end < len(content):
        refuse_link(path)
        os.truncate(path, end)
    return _records(content[:end])


def _records(content: bytes) -> tuple[list[Mapping[str, Any]], int]:
    records: list[Mapping[str, Any]] = []
    damaged = 0
    for line in content.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        # A first line is no chunk, wherever it is: two evaluations that begin at the same moment
        # write two.
        if isinstance(record, dict) and (_is_whole(record) or "label" not in record):
            records.append(record)
        else:
            damaged += 1
    return records, damaged


def _difference(other: Path, identity: Identity) -> str:
    """In words: in what an unfinished evaluation differs from this one."""
    records, _ = _records(read_regular(other))
    before = next((record for record in records if "label" not in record), {})
    now = json.loads(_line(identity))
    differing = [name for name in now if before.get(name) != now[name]]
    return f"the unfinished evaluation in {other} had other {', '.join(differing)}; it is kept."


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=list) + "\n"


def _with_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "checksum": _checksum(record)}


def _is_whole(record: Mapping[str, Any]) -> bool:
    content = {key: value for key, value in record.items() if key != "checksum"}
    return record.get("checksum") == _checksum(content)


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(record).encode()).hexdigest()


def _record(chunk: ChunkResult) -> dict[str, Any]:
    values = {name: value for name, value in chunk.__dict__.items() if name != "kept"}
    return {
        **values,
        "indices": chunk.indices.tolist(),
        "broken": bits_to_text(chunk.broken),
        "predicted": chunk.predicted.tolist(),
        **{name: getattr(chunk, name).tolist() for name in _MEASURED},
    }


def _chunks(records: Iterable[Mapping[str, Any]]) -> Iterator[ChunkResult]:
    """The records that are of chunks."""
    for record in records:
        with suppress(KeyError, TypeError, ValueError):
            yield _chunk(record)


def _chunk(record: Mapping[str, Any]) -> ChunkResult:
    tensors = {
        "indices": torch.tensor(record["indices"], dtype=torch.int64),
        "broken": text_to_bits(record["broken"]),
        "predicted": torch.tensor(record["predicted"], dtype=torch.int64),
        **{name: torch.tensor(record[name], dtype=torch.float32) for name in _MEASURED},
    }
    if len(set(map(len, tensors.values()))) > 1:
        raise ValueError("of one chunk, but not of the same images")
    values = {**record, **tensors, "flags": tuple(record["flags"])}
    del values["checksum"]
    return ChunkResult(**values)
