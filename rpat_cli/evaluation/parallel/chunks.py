"""One stage after another, chunk by chunk, each on the samples that are still robust.

The unit of work is a chunk of one stage. Which samples it holds, and every random number in it,
follow from the results of the stages before and from the seed alone: so chunks can be recorded,
skipped when they are known already, and shared out among processes, and the flags at the end are
the same.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from rpat_cli.evaluation.verify import Prediction


@dataclass(frozen=True)
class Task:
    """One chunk to be attacked: what `ChunkResult` says of `label`, `stage`, `chunk` and `indices`,
    and its samples.

    `x` is (M, C, H, W), `y` is (M,); all randomness in the chunk starts from `seed`.
    """

    label: str
    stage: int
    chunk: int
    indices: Tensor
    x: Tensor
    y: Tensor
    seed: int


@dataclass(frozen=True)
class ChunkResult:
    """What one stage did to one chunk; tensors are (M,), on the CPU, in the order of `indices`
    (rows of x).

    `predicted`, `margin`, `confidence` (see `Prediction`) and `distance` are of the images that the
    stage ended with. `label` is the attack of the suite, `stage` and `chunk` count from 0. `strays`
    is how many answers of the attack lay outside ball or box and could not be mended. Passes
    include the one that predicts again. `seconds` are of the clock, since the result before, for
    `Runner` to fill in: where processes share a stage, those of its chunks add up to the time they
    took together.
    """

    label: str
    stage: int
    chunk: int
    indices: Tensor
    broken: Tensor
    predicted: Tensor
    margin: Tensor
    confidence: Tensor
    distance: Tensor
    strays: int
    forward: int
    backward: int
    flags: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """Where an evaluation stands. `stage_number` counts from 1; `done` of `total` samples of this
    stage are finished.

    `robust_acc` is the fraction of all samples that no stage has broken so far; `elapsed` are
    seconds since this attack of the suite began, `eta` those that the stage will still take, `left`
    roughly those of the whole evaluation; `None` before anything is known.
    """

    label: str
    stage: str
    stage_number: int
    stages: int
    chunk: int
    chunks: int
    done: int
    total: int
    robust_acc: float
    elapsed: float
    eta: float | None
    left: float | None = None


OnProgress = Callable[[Progress], None]
OnChunk = Callable[[ChunkResult], None]


@dataclass(frozen=True)
class State:
    """Per sample (N,), on the CPU: what is known so far. Starts as the clean result, filled in
    place by chunks.

    `robust`: right so far. `broken_by`: the stage that broke the sample, -1 where none did.
    `distance`: of the adversarial image that broke it; NaN where none did. `margin`, `confidence`:
    of the image that broke it; where none did, of the one with the smallest margin among the clean
    image and those that the stages ended with.
    """

    robust: Tensor
    predicted: Tensor
    margin: Tensor
    confidence: Tensor
    broken_by: Tensor
    distance: Tensor
    chunks: list[ChunkResult] = field(default_factory=list)

    @classmethod
    def clean(cls, prediction: Prediction, y: Tensor) -> "State":
        predicted, margin, confidence = (
            prediction.predicted,
            prediction.margin,
            prediction.confidence,
        )
        none, unknown = torch.full_like(predicted, -1), torch.full(predicted.shape, torch.nan)
        return cls(
            predicted == y, predicted.clone(), margin.clone(), confidence.clone(), none, unknown
        )

    def add(self, chunk: ChunkResult) -> None:
        hit = chunk.indices[chunk.broken]
        self.robust[hit] = False
        self.predicted[hit] = chunk.predicted[chunk.broken]
        self.broken_by[hit] = chunk.stage
        self.distance[hit] = chunk.distance[chunk.broken]
        closer = chunk.broken | (chunk.margin < self.margin[chunk.indices])
        where = chunk.indices[closer]
        self.margin[where] = chunk.margin[closer]
        self.confidence[where] = chunk.confidence[closer]
        self.chunks.append(chunk)


Execute: TypeAlias = Callable[[Iterable[Task]], Iterable[ChunkResult]]
"""Attacks chunks, here or elsewhere; results come as they are ready, in any order."""


@dataclass(frozen=True)
class Runner:
    """Runs stages on `x` (N, C, H, W), `y` (N,) and writes what happens into a `State`.

    `known` are chunks of an earlier, interrupted run of the same evaluation; they are taken over,
    not run. The others go to `execute`.
    """

    label: str
    execute: Execute
    x: Tensor
    y: Tensor
    chunk_size: int
    seed: int
    known: Iterable[ChunkResult] = ()
    on_progress: OnProgress | None = None
    on_chunk: OnChunk | None = None

    def run(self, stages: Sequence[str], state: State) -> None:
        """Let every stage attack what is still robust when it begins."""
        known = {
            (chunk.stage, chunk.chunk): chunk for chunk in self.known if chunk.label == self.label
        }
        began = time.perf_counter()
        for number in range(len(stages)):
            todo = state.robust.nonzero().squeeze(1)
            if not len(todo):
                break
            pieces = even_pieces(todo, self.chunk_size)
            meter = _Meter(self, stages, number, len(pieces), len(todo), began)
            meter.report(state)
            fresh: list[int] = []
            for index, indices in enumerate(pieces):
                chunk = known.get((number, index))
                if chunk is None or not torch.equal(
                    chunk.indices, indices
                ):  # of other samples: no use
                    fresh.append(index)
                    continue
                state.add(chunk)
                meter.add(len(indices), fresh=False)
                meter.report(state)
            before = time.perf_counter()
            for chunk in self.execute(self._task(number, index, pieces[index]) for index in fresh):
                # Shared among processes, each second of the clock holds several of work: `seconds`
                # are the clock's.
                now = time.perf_counter()
                chunk, before = replace(chunk, seconds=now - before), now
                if self.on_chunk:
                    self.on_chunk(chunk)
                state.add(chunk)
                meter.add(len(chunk.indices), fresh=True)
                meter.report(state)
        state.chunks.sort(key=lambda chunk: (chunk.stage, chunk.chunk))

    def _task(self, stage: int, chunk: int, indices: Tensor) -> Task:
        where = indices.to(self.x.device)
        return Task(
            self.label,
            stage,
            chunk,
            indices,
            self.x[where],
            self.y[where],
            self._chunk_seed(stage, chunk),
        )

    def _chunk_seed(self, stage: int, chunk: int) -> int:
        """A seed of its own for each chunk: starts do not repeat, nor depend on what else this
        process ran."""
        text = f"{self.seed}/{self.label}/{stage}/{chunk}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def even_pieces(indices: Tensor, most: int) -> tuple[Tensor, ...]:
    """`indices` (N,) in as few pieces of at most `most` as there can be, their sizes differing by
    one at most.

    Even pieces keep processes that share them equally busy; a short last one would leave all others
    waiting.
    """
    return torch.tensor_split(indices, -(-len(indices) // most))


class _Meter:
    """Counts one stage's samples and turns them into `Progress`."""

    def __init__(
        self,
        runner: Runner,
        stages: Sequence[str],
        number: int,
        chunks: int,
        total: int,
        began: float,
    ) -> None:
        self._runner, self._stages, self._number = runner, stages, number
        self._chunks, self._total, self._began = chunks, total, began
        self._stage_began = time.perf_counter()
        self._chunk = self._done = self._fresh = 0

    def add(self, samples: int, *, fresh: bool) -> None:
        """A chunk is done; one taken over from an earlier run (not fresh) tells nothing of the time
        left."""
        self._chunk += 1
        self._done += samples
        self._fresh += samples if fresh else 0

    def report(self, state: State) -> None:
        if not self._runner.on_progress:
            return
        now = time.perf_counter()
        seconds_each = (now - self._stage_began) / self._fresh if self._fresh else None
        self._runner.on_progress(
            Progress(
                label=self._runner.label,
                stage=self._stages[self._number],
                stage_number=self._number + 1,
                stages=len(self._stages),
                chunk=self._chunk,
                chunks=self._chunks,
                done=self._done,
                total=self._total,
                robust_acc=float(state.robust.float().mean()),
                elapsed=now - self._began,
                eta=None if seconds_each is None else seconds_each * (self._total - self._done),
            )
        )
