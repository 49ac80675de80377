"""The precision of a training whose recipe leaves it to the machine: said when it begins, and kept
when it is resumed, unless this machine would have to emulate it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from rpat_cli.hardware import native_bf16
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.segments import Segment
from rpat_cli.runs.build import compute_for
from rpat_cli.runs.inputs import Inputs

AUTO = "auto"


def say_choice(inputs: Inputs, say: Callable[[str], None]) -> None:
    """Say what `auto` is here, unless it is float32."""
    chosen = inputs.compute.precision
    if inputs.recipe.precision == AUTO and chosen != "fp32":
        say(
            f"precision: auto is {chosen} here; --precision fp32 computes in float32, which takes "
            "longer"
        )


def precision_as_before(
    inputs: Inputs, before: Sequence[Segment], say: Callable[[str], None]
) -> Inputs:
    """The inputs of a run that goes on in the precision of the segments `before`, which is said
    where `auto` would choose another here; what this machine would have to emulate is not kept."""
    recipe, here = inputs.recipe, inputs.compute.precision
    if recipe.precision != AUTO or not before:
        return inputs
    began = before[-1].precision
    if began is None:  # versions that did not record it computed in float32 on CPUs
        began = "fp32" if inputs.compute.device.type == "cpu" else here
    if began == here:
        return inputs
    if began == "bf16" and not native_bf16(inputs.compute.device.type):
        device = inputs.compute.device.type
        say(
            f"note: the run began in {began}, which {device} does not compute natively here: "
            f"it goes on in {here}, so its weights will not be those of an uninterrupted run"
        )
        return inputs
    say(f"note: going on in {began} as the run began; auto would be {here} on this machine")
    asked = recipe.model_copy(update={"precision": began})
    return replace(inputs, compute=compute_for(asked, inputs.architecture))


def how_to_keep(recipe: Recipe, segments: Sequence[Segment]) -> list[str]:
    """The line in the head of recipe.yaml on what `auto` was, where it was one precision."""
    chosen = {each.precision for each in segments}
    if recipe.precision != AUTO or len(chosen) > 1 or None in chosen:
        return []
    [name] = chosen
    return [f"In {name}, which auto was, on any machine: with --precision {name}"]
