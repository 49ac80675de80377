"""The audit of a suite: where it stands among the attacks, and how it runs.

What it is, and why its bound holds: `rpat_cli.evaluation.audit`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from rpat_cli.attacks.audited import Audited
from rpat_cli.evaluation.audit import (
    Audit,
    Look,
    most_broken,
    next_look,
    plan,
    priority,
    room_of,
)
from rpat_cli.evaluation.parallel.stages import SampleStates, StageRunner
from rpat_cli.text import count


def run_audit(
    runner: StageRunner,
    stages: Sequence[str],
    states: SampleStates,
    asked: Audited,
    say: Callable[[str], None] | None,
) -> Audit:
    """Attack a growing sample of what is robust in `states`, and write what happens into them.

    The sample follows from the runner's seed and the results of the attacks before alone, and so do
    its chunks: they are resumed and shared as those of any attack.
    """
    n = len(states.robust)
    order = priority(n, runner.seed)
    queue = order[states.robust[order]]
    survivors, room = len(queue), room_of(asked.width, n)
    looks = plan(survivors, room, 1 - asked.level)
    sampled = broken = 0
    reason, met = "", None
    while met is None and sampled < survivors:
        look = next_look(looks, sampled, broken)
        if look is None:
            reason = _why_whole(survivors, sampled, broken, asked.width, looks)
            if say:
                say(f"audit: {reason}: AutoAttack attacks all {count(survivors)}")
        size = look.sampled if look else survivors
        runner.run(stages, states, among=queue[sampled:size])
        sampled = size
        broken = int((~states.robust[queue[:sampled]]).sum())
        if look and broken <= look.allowed:
            met = look
    unseen = most_broken(survivors, sampled, broken, met.alpha) - broken if met else 0
    return Audit(
        width=asked.width,
        level=asked.level,
        n=n,
        survivors=survivors,
        sampled=sampled,
        broken=broken,
        unseen=unseen,
        seed=runner.seed,
        sample=tuple(queue[:sampled].tolist()),
        looks=tuple(looks),
        reason=reason or ("" if survivors else "nothing was left to attack"),
    )


def _why_whole(
    survivors: int, sampled: int, broken: int, width: float, looks: Sequence[Look]
) -> str:
    if not looks:
        return (
            f"{width:g} points cannot be bounded by a sample of half of the {count(survivors)} "
            "images that are left"
        )
    return (
        f"AutoAttack broke {count(broken)} of {count(sampled)} sampled images, too many to bound "
        f"the rest within {width:g} points by a sample of half of the {count(survivors)}"
    )


def after_all(states: Sequence[SampleStates], clean: SampleStates) -> SampleStates:
    """What is known of every sample after several attacks: still robust where it is under all of
    them; where not, as the first attack that broke it left it, but that no stage of the audit
    did."""
    joined = replace(clean, chunks=[])
    for state in states:
        hit = joined.robust & ~state.robust
        closer = hit | (joined.robust & (state.margin < joined.margin))
        joined = replace(
            joined,
            robust=joined.robust & state.robust,
            predicted=state.predicted.where(hit, joined.predicted),
            distance=state.distance.where(hit, joined.distance),
            margin=state.margin.where(closer, joined.margin),
            confidence=state.confidence.where(closer, joined.confidence),
        )
    return replace(joined, broken_by=torch.full_like(joined.broken_by, -1))
