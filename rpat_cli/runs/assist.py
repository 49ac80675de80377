"""What the ranks other than 0 do in a training: the same steps, as rank 0 tells them. They write
and say nothing; what fails in them, rank 0 says."""

import torch

from rpat_cli.engine.distributed import Ranks
from rpat_cli.errors import DataError, RpatError
from rpat_cli.evaluation.parallel.group import report_failure
from rpat_cli.evaluation.parallel.ranks import serve
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.trust import trusting
from rpat_cli.runs.inputs import Inputs, guarding, validating
from rpat_cli.runs.train import Assignment, train_stretch


def assist(ranks: Ranks) -> None:
    """Train with rank 0, then share its evaluation, until it is done.

    Raises what training raises, and `LostRankError` when rank 0 is gone.
    """
    assignment = ranks.from_first(None)
    assert isinstance(assignment, Assignment)
    answer = assignment.trust
    try:
        # The user has answered for this recipe's code where rank 0 runs; here its files may lie
        # elsewhere. Downloads are another matter: only those that rank 0 may start.
        with trusting(everything=answer.everything, code=True, files=answer.models):
            _train(assignment, ranks)
    except Exception as error:
        kind = "" if isinstance(error, RpatError) else f"{type(error).__name__}: "
        report_failure(f"{kind}{error}")
        raise


def _train(assignment: Assignment, ranks: Ranks) -> None:
    torch.set_num_threads(assignment.threads)
    told = Layer("rank 0", assignment.recipe, by_user=True)  # what was not, rank 0 has refused
    inputs = Inputs.of(resolve([told]), ranks)
    if inputs.images != assignment.images:
        place = inputs.recipe.data.root
        raise DataError(f"the images at {place} are not those of rank 0: copy the data set anew.")
    validation = validating(inputs, lambda *_: None)
    callbacks = [*guarding(inputs, lambda _: None), validation]
    stretch = train_stretch(
        inputs, callbacks, assignment.state, assignment.file, assignment.stop_after
    )
    if stretch.finished and stretch.signal is None:
        serve(joined=True)
