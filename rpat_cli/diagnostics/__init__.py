"""What a model shows besides its accuracies. A diagnostic is one file here and one row below.

A plugin adds its own with `DIAGNOSTICS.add("name", Diagnostic(...))`; `rpat eval --plugin FILE.py
--diagnostic name` asks for it. It is in the run's report whenever that is written with the plugin
loaded.
"""

from rpat_cli.diagnostics.base import Diagnostic, Option, Result, Subject
from rpat_cli.registry import Registry

__all__ = ["DIAGNOSTICS", "Diagnostic", "Option", "Result", "Subject"]

_HERE = "rpat_cli.diagnostics"

DIAGNOSTICS: Registry[Diagnostic] = Registry(
    "diagnostic",
    {
        "verdict": Diagnostic(
            measure=f"{_HERE}.verdict.verdict:measure",
            read=f"{_HERE}.verdict.verdict:Verdict.from_dict",
            help="Can the accuracies be trusted? Twenty checks on 200 images, such as for "
            "gradient masking: PASS, WARN or FAIL (exit code 3).",
            options=(Option("--check"),),
        ),
        "eps_curve": Diagnostic(
            measure=f"{_HERE}.eps_curve:measure",
            read=f"{_HERE}.eps_curve:EpsCurve.from_dict",
            help="Robust accuracy from eps 0 to 4 times the threat's, by PGD, on at most 1,000 "
            "images.",
            options=(Option("--eps-curve"),),
        ),
        "eps_curve_fmn": Diagnostic(
            prepare=f"{_HERE}.eps_curve:prepare_fmn",
            read=f"{_HERE}.eps_curve:EpsCurve.from_dict",
            help="The same from the sizes of the smallest perturbations that FMN finds (needs "
            "foolbox).",
            options=(Option("--eps-curve-fmn"),),
        ),
        "optimality": Diagnostic(
            measure=f"{_HERE}.optimality:measure",
            read=f"{_HERE}.optimality:Optimality.from_dict",
            help="How close each attack of --attack comes to the best of them: the smallest eps "
            "that breaks each of 100 images, up to 4 times the threat's.",
            options=(Option("--optimality"),),
        ),
        "loss_surface": Diagnostic(
            measure=f"{_HERE}.loss_surface:measure",
            read=f"{_HERE}.loss_surface:LossSurface.from_dict",
            help="The loss around 64 images along the gradient and a random direction, and how "
            "linear it is.",
            options=(Option("--loss-surface"),),
        ),
        "perception": Diagnostic(
            measure=f"{_HERE}.perception:measure",
            read=f"{_HERE}.perception:Perception.from_dict",
            help="How much the logits change on the way to adversarial images, those that break "
            "the model and those that do not.",
            options=(Option("--perception"),),
        ),
        "corruptions": Diagnostic(
            prepare=f"{_HERE}.corruptions:prepare",
            read=f"{_HERE}.corruptions:Corruptions.from_dict",
            help="The error on corrupted images, from a folder as CIFAR-10-C and CIFAR-100-C are "
            "published.",
            options=(
                Option("--corruptions", "DIR", "folder"),
                Option(
                    "--corruptions-baseline",
                    "FILE|RUN",
                    "baseline",
                    help="Evaluation of another model on the same corruptions: adds mCE, the error "
                    "relative to that model's.",
                ),
            ),
        ),
    },
)
