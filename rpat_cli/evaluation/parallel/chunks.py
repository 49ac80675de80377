"""The unit of work of an evaluation: one stage of one attack on some of the samples, a chunk.

Which samples a chunk holds, and every random number in it, follow from the results of the stages
before and from the seed alone: so chunks can be recorded, skipped when they are known already, and
shared out among processes, and the flags at the end are the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """One chunk to be attacked: `label`, `stage`, `chunk` and `indices` as in `ChunkResult`, and
    its samples `x` (M, C, H, W) in [0, 1] and `y` (M,).

    All randomness in the chunk starts from `seed`.
    """

    label: str
    stage: int
    chunk: int
    indices: Tensor
    x: Tensor
    y: Tensor
    seed: int


@dataclass(frozen=True)
class Kept:
    """Adversarial images that come along with the result of a chunk: `x_adv` (K, C, H, W) float32,
    on the CPU, of the samples at `rows` (K,) of the chunk."""

    rows: Tensor
    x_adv: Tensor


ChooseRows = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From `broken`, `margin` and classes `y` of a chunk, all (M,), to the rows (K,) whose adversarial
images are kept. A function of a module: it travels to other processes."""


@dataclass(frozen=True)
class ChunkResult:
    """What one stage did to one chunk; tensors are (M,), on the CPU, in the order of `indices`
    (rows of x).

    `label` is the attack of the suite, `stage` and `chunk` count from 0. `broken`, `predicted`,
    `margin`, `confidence` (see `Prediction`) and `distance` (in the threat's norm) are of the
    images that the stage returned. `strays`: how many of them lay outside the ball or the pixel
    box even after projection. `forward`, `backward`: passes, counted in images, with the one that
    verifies. `seconds` of the clock since the result before; `StageRunner` fills them in. Where
    processes share a stage, those of its chunks add up to the time that they took together. `kept`
    is there while the result is handed on, and not recorded.
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
    kept: Kept | None = None


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is. `stage_number` counts from 1; `done` of `total` samples of this
    stage are finished.

    `robust_acc`: the fraction of all samples that no stage has broken so far. `elapsed`: seconds
    since this attack of the suite began. `eta`: those that the stage will still take; `left`: about
    those that the whole evaluation will; both `None` before the first chunk is done.
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


Execute: TypeAlias = Callable[[Iterable[Task]], Iterable[ChunkResult]]
"""Attacks chunks, here or elsewhere; results come as they are ready, in any order."""


def even_pieces(indices: Tensor, most: int) -> tuple[Tensor, ...]:
    """`indices` (N,) in as few pieces of at most `most` as there can be, their sizes differing by
    one at most.

    Even pieces keep processes that share them equally busy; a short last one would leave all others
    waiting.
    """
    return torch.tensor_split(indices, -(-len(indices) // most))
