"""One stage after another, chunk by chunk, each on the samples that are still robust."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rpat_cli.data.reading import AnyImages, pieces_of
from rpat_cli.evaluation.parallel.chunks import (
    ChunkResult,
    Execute,
    OnChunk,
    OnProgress,
    Progress,
    Task,
    even_pieces,
)
from rpat_cli.evaluation.verify import Prediction


@dataclass(frozen=True)
class SampleStates:
    """What is known of every sample so far; tensors are (N,), on the CPU. Starts as the clean
    result; `add` fills it in place.

    `robust`: right so far. `broken_by`: the stage that broke the sample, -1 where none did.
    `distance`: of the adversarial image that broke it; NaN where none did. `margin`, `confidence`:
    of the image that broke it; where none did, of the one with the smallest margin among the clean
    image and those that the stages returned.
    """

    robust: Tensor
    predicted: Tensor
    margin: Tensor
    confidence: Tensor
    broken_by: Tensor
    distance: Tensor
    chunks: list[ChunkResult] = field(default_factory=list)

    @classmethod
    def clean(cls, prediction: Prediction, y: Tensor) -> "SampleStates":
        return cls(
            robust=prediction.predicted == y,
            predicted=prediction.predicted.clone(),
            margin=prediction.margin.clone(),
            confidence=prediction.confidence.clone(),
            broken_by=torch.full_like(prediction.predicted, -1),
            distance=torch.full(prediction.predicted.shape, torch.nan),
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


@dataclass(frozen=True)
class StageRunner:
    """Runs the stages of the attack `label` on `x` (N, C, H, W), `y` (N,), reading one chunk after
    another.

    `known` are chunks of an earlier, interrupted run of the same evaluation; they are taken over,
    not run. The others go to `execute`.
    """

    label: str
    execute: Execute
    x: AnyImages
    y: Tensor
    chunk_size: int
    seed: int
    known: Iterable[ChunkResult] = ()
    on_progress: OnProgress | None = None
    on_chunk: OnChunk | None = None

    def run(
        self, stages: Sequence[str], states: SampleStates, *, among: Tensor | None = None
    ) -> None:
        """Let every stage attack what is still robust when it begins, and write what happens into
        `states`.

        `among` (K,): of these samples only. Another call goes on with others; the chunks of each
        stage are numbered on.
        """
        own = [chunk for chunk in self.known if chunk.label == self.label]
        known = {(chunk.stage, chunk.chunk): chunk for chunk in own}
        began = time.perf_counter()
        chosen = torch.arange(len(states.robust)) if among is None else among.sort().values
        for number in range(len(stages)):
            todo = chosen[states.robust[chosen]]
            if not len(todo):
                break
            pieces = even_pieces(todo, self.chunk_size)
            meter = _Meter(self, stages, number, len(pieces), len(todo), began)
            meter.report(states)
            first = sum(chunk.stage == number for chunk in states.chunks)
            numbered = dict(enumerate(pieces, first))
            fresh = self._take_over(known, number, numbered, states, meter)
            self._attack(self._tasks(number, fresh, numbered), states, meter)
        # Processes answer in any order; what is made of the chunks must not depend on it.
        states.chunks.sort(key=lambda chunk: (chunk.stage, chunk.chunk))

    def _take_over(
        self,
        known: Mapping[tuple[int, int], ChunkResult],
        stage: int,
        pieces: Mapping[int, Tensor],
        states: SampleStates,
        meter: "_Meter",
    ) -> list[int]:
        """Add the known chunks of a stage; the numbers of those that are not."""
        fresh = []
        for index, indices in pieces.items():
            chunk = known.get((stage, index))
            # An earlier run may have found other samples robust, where it rounded differently.
            if chunk is None or not torch.equal(chunk.indices, indices):
                fresh.append(index)
                continue
            states.add(chunk)
            meter.add(len(indices), fresh=False)
            meter.report(states)
        return fresh

    def _attack(self, tasks: Iterable[Task], states: SampleStates, meter: "_Meter") -> None:
        before = time.perf_counter()
        for result in self.execute(tasks):
            # Where processes share a stage, each second of the clock holds several of work:
            # `seconds` are the clock's.
            now = time.perf_counter()
            chunk = replace(result, seconds=now - before)
            before = now
            if self.on_chunk:
                self.on_chunk(chunk)
            states.add(replace(chunk, kept=None))  # the images of all chunks are too many
            meter.add(len(chunk.indices), fresh=True)
            meter.report(states)

    def _tasks(
        self, stage: int, chunks: Sequence[int], pieces: Mapping[int, Tensor]
    ) -> Iterator[Task]:
        chosen = [pieces[chunk] for chunk in chunks]
        for chunk, indices, x in zip(chunks, chosen, pieces_of(self.x, chosen), strict=True):
            y, seed = self.y[indices.to(self.y.device)], self._chunk_seed(stage, chunk)
            yield Task(self.label, stage, chunk, indices, x, y, seed)

    def _chunk_seed(self, stage: int, chunk: int) -> int:
        """A seed of its own for each chunk: starting points do not repeat, nor depend on what else
        this process ran."""
        text = f"{self.seed}/{self.label}/{stage}/{chunk}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class _Meter:
    """Counts one stage's samples and turns them into `Progress`."""

    def __init__(
        self,
        runner: StageRunner,
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
        """A chunk is done. One taken over from an earlier run (not fresh) says nothing about the
        pace of this one."""
        self._chunk += 1
        self._done += samples
        self._fresh += samples if fresh else 0

    def report(self, states: SampleStates) -> None:
        if not self._runner.on_progress:
            return
        now = time.perf_counter()
        eta = None
        if self._fresh:
            eta = (now - self._stage_began) / self._fresh * (self._total - self._done)
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
                robust_acc=float(states.robust.float().mean()),
                elapsed=now - self._began,
                eta=eta,
            )
        )
