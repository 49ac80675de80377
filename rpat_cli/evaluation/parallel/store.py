"""Results of chunks on disk as soon as they are there, so that an evaluation killed at any moment
can go on.

One file per evaluation, named by a hash of everything that its results depend on: first a line of
JSON that says what that is, then one line for each chunk. Lines are only ever appended; a last line
that was not written to its end is cut off.
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

Identity = Mapping[str, Any]
"""What the results of an evaluation depend on, by name; plain builtins."""

RECORDS = 2
"""The version of what is recorded of a chunk: part of an identity, since lines of another version
are of no use."""

_MEASURED = ("margin", "confidence", "distance")


def key_of(identity: Identity) -> str:
    """Sixteen hexadecimal digits that change with anything in `identity`."""
    return hashlib.sha256(_line(identity)).hexdigest()[:16]


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
                records, length = _read(path)
                os.truncate(path, length)
                known = {
                    (chunk.label, chunk.stage, chunk.chunk): chunk for chunk in _chunks(records)
                }
                say(f"resuming: {len(known)} chunk{'s' * (len(known) != 1)} known")
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
        header = b"" if self.has_header else _line(self.identity)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(header + _line(_record(chunk)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFolderError(
                f"cannot write {self.path}: {error.strerror}. What was written before is kept: "
                "free disk space or fix the permissions, then run again."
            ) from error
        self.has_header = True

    def remove(self) -> None:
        """Forget the chunks, once the whole result is written."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # gone already, or not empty
            self.path.parent.rmdir()


def _read(path: Path) -> tuple[list[Any], int]:
    """The records of all whole lines, and the length in bytes of those lines."""
    records, length = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        records.append(record)
        length += len(line)
    return records, length


def _difference(other: Path, identity: Identity) -> str:
    """In words: in what an unfinished evaluation differs from this one."""
    records, _ = _read(other)
    before = records[0] if records else {}
    now = json.loads(_line(identity))
    differing = [name for name in now if before.get(name) != now[name]]
    return f"the unfinished evaluation in {other} had other {', '.join(differing)}; it is kept."


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, default=list).encode() + b"\n"


def _record(chunk: ChunkResult) -> dict[str, Any]:
    return {
        **chunk.__dict__,
        "indices": chunk.indices.tolist(),
        "broken": bits_to_text(chunk.broken),
        "predicted": chunk.predicted.tolist(),
        **{name: getattr(chunk, name).tolist() for name in _MEASURED},
    }


def _chunks(records: Iterable[Any]) -> Iterator[ChunkResult]:
    """The records that are of chunks. A first line is not, wherever it is: two evaluations that
    begin at the same moment write two. Nor is a damaged one."""
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
    return ChunkResult(**{**record, **tensors, "flags": tuple(record["flags"])})
