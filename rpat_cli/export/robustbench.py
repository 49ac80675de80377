"""A model's entry for RobustBench (Croce et al., NeurIPS 2021, arXiv 2010.09670): its model-info
JSON, and the lines that evaluate it there."""

from typing import Any

from rpat_cli.evaluation.results import AUTOATTACK
from rpat_cli.reports.leaderboard import boards
from rpat_cli.reports.report import Report, ReportRow
from rpat_cli.text import percent, show_number

TO_FILL_IN = ("link", "name", "authors", "venue")


def model_info(report: Report, row: ReportRow, architecture: str) -> dict[str, Any]:
    """The keys that RobustBench's files have; what only the authors know is empty."""
    clean, robust = row.results.get("clean"), row.results.get(AUTOATTACK)
    left = "" if robust is None else percent(robust.accuracy.value)
    verdict = report.diagnostics.get("verdict")
    failed = verdict is not None and verdict.result.failed
    return {
        "link": "",
        "name": "",
        "authors": "",
        "additional_data": bool(report.recipe.data.extra.paths or report.recipe.init),
        "number_forward_passes": 1,
        "dataset": report.recipe.data.name,
        "venue": "",
        "architecture": architecture,
        "eps": show_number(row.threat.eps),
        "clean_acc": "" if clean is None else percent(clean.accuracy.value),
        "reported": left,
        "autoattack_acc": left,
        "unreliable": failed,
    }


def missing(info: dict[str, Any]) -> list[str]:
    """What keeps it from being an entry, and what to do."""
    said = [f"fill in {', '.join(TO_FILL_IN)} in the model-info JSON"]
    if info["additional_data"]:
        said.append(
            "set additional_data to false if the further images, and those that the first weights "
            "were trained on, were made from the training set alone"
        )
    has = dict.fromkeys(data for data, _ in boards())
    if info["dataset"] not in has:
        said.append(
            f"RobustBench has no leaderboard for {info['dataset']} (it has {', '.join(has)})"
        )
    if not info["autoattack_acc"]:
        said.append("AutoAttack was not run on the whole test set: rpat eval --attack autoattack")
    return said


def snippet(info: dict[str, Any], norm: str, program: str) -> str:
    """Python that loads the exported program and evaluates it with RobustBench."""
    return f'''import torch
from robustbench.eval import benchmark

model = torch.export.load("{program}").module()
clean_acc, robust_acc = benchmark(
    model,
    model_name="mine",
    n_examples=10_000,
    dataset="{info["dataset"]}",
    threat_model="{norm}",
    eps={info["eps"]},
    device="cpu",
)
'''
