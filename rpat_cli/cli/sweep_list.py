"""`rpat sweep --dry-run`: the trials of a sweep, their states, commands and costs."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rpat_cli.cli import console
from rpat_cli.errors import RpatError
from rpat_cli.runs.estimate import Estimate
from rpat_cli.runs.estimate import dry_run as estimate
from rpat_cli.sweep.expand import Plan, Variant
from rpat_cli.sweep.search.base import Search
from rpat_cli.sweep.status import FINISHED, TrialState, TrialStatus
from rpat_cli.text import counted, duration

Costs = Mapping[str, Estimate | str]
"""Label of a variant -> the cost of one of its trials, or why it is unknown; empty if not asked
for."""


def list_trials(search: Search, slots: int, *, cost: bool, as_json: bool) -> None:
    """Print every trial. `slots`: how many trials would run at once."""
    statuses = list(search.statuses.values())
    costs: Costs = {}
    if cost:
        costs = {variant.label: _estimated(variant) for variant in search.plan.variants}
    if as_json:
        print(json.dumps([_as_dict(status, costs) for status in statuses], indent=1))
        return
    for status in statuses:
        _print_trial(status, costs)
    console.say(totals(search))
    console.say("nothing was written: a trial's recipe.yaml is written when the sweep starts it")
    if cost:
        console.say(_total_cost(statuses, costs, slots))
    else:
        console.say(
            "add --cost for the passes and the time of each: it times a few steps of every "
            "combination"
        )


def _command(status: TrialStatus) -> str:
    """The command as one would type it: `rpat train ...`, without the path of Python."""
    return shlex.join(("rpat", *status.folder.command()[3:]))


def _as_dict(status: TrialStatus, costs: Costs) -> dict[str, Any]:
    item: dict[str, Any] = {
        "trial": status.trial.name,
        "title": status.trial.title,
        "state": str(status.state),
    }
    if status.reason:
        item["reason"] = status.reason
    item["command"] = _command(status)
    if costs:
        item["cost"] = _cost_as_dict(costs[status.trial.label])
    return item


def _print_trial(status: TrialStatus, costs: Costs) -> None:
    reason = f" ({status.reason.splitlines()[-1]})" if status.reason else ""
    print(f"{status.state:<8} {status.trial.title}{reason}")
    print(f"         {_command(status)}")
    if costs:
        print(f"         {_cost_in_words(costs[status.trial.label])}")


# ---- costs


def _estimated(variant: Variant) -> Estimate | str:
    """The cost of a training, or the reason why it is unknown: one that fails must not keep the
    others from being listed."""
    try:
        return estimate(variant.recipe)
    except RpatError as error:
        return str(error)


def _cost_as_dict(cost: Estimate | str) -> dict[str, float | str]:
    """`forward` and `backward` are passes of whole batches in all steps; `seconds` is the training
    with validation."""
    if isinstance(cost, str):
        return {"unknown": cost}
    return {
        "forward": cost.forward * cost.steps,
        "backward": cost.backward * cost.steps,
        "seconds": cost.seconds,
    }


def _cost_in_words(cost: Estimate | str) -> str:
    if isinstance(cost, str):
        return f"cost unknown: {cost}"
    passes = f"{cost.forward} forward and {cost.backward} backward passes"
    time = duration(cost.seconds)
    return f"{counted(cost.steps, 'step')} of {passes}, about {time} before the final report"


def _total_cost(statuses: Sequence[TrialStatus], costs: Costs, slots: int) -> str:
    """The time of all unfinished trials; at least that of the longest one."""
    ahead = [costs[status.trial.label] for status in statuses if status.state not in FINISHED]
    known = [cost.seconds for cost in ahead if isinstance(cost, Estimate)]
    seconds = max(sum(known) / slots, max(known, default=0.0))
    unknown = len(ahead) - len(known)
    without = f" (without {unknown} of unknown cost)" if unknown else ""
    return (
        f"about {duration(seconds)} to train the unfinished trials{without}, {slots} at a time, "
        "if they do not slow one another down; the final reports take extra time"
    )


# ---- totals


def totals(search: Search) -> str:
    """`6 trials: 2 waiting, 4 done; left out as duplicates of another combination: 3`"""
    statuses = list(search.statuses.values())
    trials = counted(len(statuses), "trial")
    states = f": {count_states(statuses)}" if statuses else ""
    upcoming = f"; the search will add up to {search.upcoming} more" if search.upcoming else ""
    return f"{trials}{states}{upcoming}{_duplicates(search.plan)}"


def count_states(statuses: Sequence[TrialStatus]) -> str:
    """`2 waiting, 4 done`"""
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {state}" for state in TrialState if counts[state])


def _duplicates(plan: Plan) -> str:
    if not plan.duplicates:
        return ""
    return f"; left out as duplicates of another combination: {plan.duplicates}"
