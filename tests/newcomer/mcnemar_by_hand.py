"""What `rpat compare` says of two runs, worked out from evals/*.json alone: nothing of rpat."""

import json
from pathlib import Path
from typing import Any

from scipy.stats import binomtest


def images_right(run: Path) -> dict[str, list[bool]]:
    """Of the checkpoint "best" on all test images: the newest evaluation of each attack."""
    records = [json.loads(file.read_text()) for file in run.glob("evals/*.json")]
    right = {}
    for record in sorted(records, key=lambda each: each["order"]):
        if record["checkpoint"] == "best" and record["limit"] is None:
            pairs = zip(record["clean_predicted"], record["y"], strict=True)
            right["clean"] = [predicted == y for predicted, y in pairs]
            for result in record["results"]:
                right[result["label"]] = [digit == "1" for digit in result["correct_after"]]
    return right


def compared(a: Path, b: Path) -> dict[str, dict[str, Any]]:
    """For each label of both: accuracies, the images that one alone gets right, and p."""
    right_a, right_b = images_right(a), images_right(b)
    both = right_a.keys() & right_b.keys()
    for side in (right_a, right_b):
        columns = zip(*(side[label] for label in both), strict=True)
        side["worst case"] = [all(column) for column in columns]
    found = {}
    for label in [*both, "worst case"]:
        pairs = list(zip(right_a[label], right_b[label], strict=True))
        only_a = [i for i, pair in enumerate(pairs) if pair == (True, False)]
        only_b = [i for i, pair in enumerate(pairs) if pair == (False, True)]
        n = len(only_a) + len(only_b)
        p = binomtest(len(only_a), n).pvalue if n else 1.0
        a_acc, b_acc = (sum(side) / len(pairs) for side in (right_a[label], right_b[label]))
        found[label] = {"a": a_acc, "b": b_acc, "only_a": only_a, "only_b": only_b, "p": p}
    return found
