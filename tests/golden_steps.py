"""How a recorded step of each published method is repeated with ours: the method, its attack and
its context, all read from the set's `hyper`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.methods import METHODS
from rpat_cli.methods.base import StepContext

if TYPE_CHECKING:
    from helpers import Golden  # which takes the families from here

NORMS = {"Linf": "Linf", "l_inf": "Linf", "L2": "L2", "l_2": "L2", "L1": "L1", "l_1": "L1"}
"""The published codes' names of the norms."""
MODES = {"train, running statistics not updated": "batch"}
EPOCHS = 100


@dataclass(frozen=True)
class Step:
    """A recorded step: what the method is called with."""

    method: Any
    attack: Any
    context: Mapping[str, Any] = field(default_factory=dict)


def norm_of(hyper: Mapping[str, Any]) -> str:
    if "attack" in hyper:
        return {"linf-pgd": "Linf", "l2-pgd": "L2"}[hyper["attack"]]
    return NORMS[hyper.get("distance") or hyper.get("norm") or "Linf"]


def pgd(golden: "Golden", **settings: Any) -> PGD:
    hyper = golden.hyper
    mode = hyper.get("attack_batchnorm", "eval")
    given = {
        # alpha is the step size, except where it is a weight next to one
        "step_size": hyper.get("step_size", hyper.get("alpha")),
        "steps": hyper.get("steps", 1),
        "start": golden.start,
        "bn_mode": MODES.get(mode, mode),
        "projection": "box-first",
    }
    return PGD(Threat(norm_of(hyper), hyper["epsilon"]), **{**given, **settings})


class InTurn:
    """One attack a call, in turn."""

    def __init__(self, *attacks: PGD) -> None:
        self.attacks = list(attacks)

    def __call__(self, *args: Any) -> Tensor:
        return self.attacks.pop(0)(*args)


def smoothed(y: Tensor, smoothing: float, classes: int = 10) -> Tensor:
    """(B, classes) label probabilities; (B,) classes where there is no smoothing."""
    if not smoothing:
        return y
    return F.one_hot(y, classes).double() * (1 - smoothing) + smoothing / classes


def eval_net(golden: "Golden") -> nn.Module:
    return golden.model("state_teacher").eval()


def fgsm_rs(golden: "Golden") -> Step:
    return Step(METHODS["fgsm-rs"](), pgd(golden))


def n_fgsm(golden: "Golden") -> Step:
    clip = golden.hyper.get("clip", -1)
    return Step(METHODS["n-fgsm"](), pgd(golden, reach=clip if clip > 0 else "box"))


def gat(golden: "Golden") -> Step:
    hyper = golden.hyper
    method = METHODS["gat"](beta=hyper["beta"], ce_weight=hyper["ce_weight"], late_factor=1.0)
    return Step(method, pgd(golden), {"step": hyper["counter"]})


def nuat(golden: "Golden") -> Step:
    hyper = golden.hyper
    settings = {
        "beta": hyper["beta"],
        "ce_weight": hyper["ce_weight"],
        "divisor": hyper["train_batch_size"],
    }
    context = {
        "step": hyper["counter"],
        "epoch": EPOCHS,
        "epochs": EPOCHS,
    }
    if hyper["kind"] == "NuAT":
        return Step(METHODS["nuat"](**settings), pgd(golden, steps=1), context)
    averaged = hyper["kind"] == "NuAT2-WA"
    if averaged:
        context["networks"] = {"averaged": eval_net(golden)}
    return Step(METHODS["nuat2"](**settings, averaged=averaged), pgd(golden, steps=1), context)


def raat(golden: "Golden") -> Step:
    hyper = golden.hyper
    shared = {key: hyper[key] for key in ("boundary_range", "beta_alpha", "weight", "temperature")}
    if hyper["base"] == "mart":
        method = METHODS["raat-mart"](beta=hyper["beta"], late_selection=True, **shared)
        return Step(method, pgd(golden, projection="ball-first"))
    return Step(METHODS["raat"](**shared), pgd(golden))


def raat_wa(golden: "Golden") -> Step:
    hyper = golden.hyper
    method = METHODS["raat-wa"](
        beta=hyper["beta_option"] * hyper.get("weight", 1.0),
        beta_schedule="scheduled" if hyper["use_reg_schedule"] else "constant",
        boundary_range=hyper["boundary_range"],
        beta_alpha=hyper["beta_alpha"],
        temperature=hyper["temperature"],
        extra_attack_pass=True,
    )
    first, second = golden["start_noise"].chunk(2)
    attack = InTurn(pgd(golden, start=first), pgd(golden, start=second))
    epoch = hyper["epoch"]
    averaging = hyper["use_reg_schedule"] or epoch >= hyper["warmup_epochs"]
    passed = sum(epoch >= hyper[stage] for stage in ("stage1", "stage2"))
    context = {
        "epoch": epoch,
        "teacher": eval_net(golden) if averaging else None,
        "lr_ratio": hyper["lr_factor"] ** passed,
    }
    return Step(method, attack, context)


def hat(golden: "Golden") -> Step:
    hyper = golden.hyper
    method = METHODS["hat"](
        helper="recorded",
        beta=hyper["beta"],
        gamma=hyper["gamma"],
        h=hyper["h"],
        robust_loss=hyper["robust_loss"],
    )
    y = smoothed(golden["y"], hyper["label_smoothing"])
    return Step(method, pgd(golden), {"networks": {"helper": eval_net(golden)}, "y": y})


def rslad(golden: "Golden") -> Step:
    hyper = golden.hyper
    settings = {key: hyper[key] for key in ("adv_weight", "clean_weight", "scale")}
    method = METHODS["rslad"](teacher="recorded", **settings)
    return Step(method, pgd(golden), {"networks": {"teacher": eval_net(golden)}})


def lbgat(golden: "Golden") -> Step:
    networks = {"teacher": golden.model("state_teacher").train()}
    return Step(METHODS["lbgat"](beta=golden.hyper["beta"]), pgd(golden), {"networks": networks})


def score(golden: "Golden") -> Step:
    hyper = golden.hyper
    y, smoothing = golden["y"], hyper["label_smoothing"]
    classes = len(golden["state.8.bias"])
    base = hyper.get("base")
    if base:  # (1 - K s) onehot + s
        y = F.one_hot(y, classes) * (1 - classes * smoothing) + smoothing if smoothing else y
    elif smoothing:  # 1 - s for the label, the rest evenly over the others
        y = F.one_hot(y, classes) * (1 - smoothing - smoothing / (classes - 1))
        y = y + smoothing / (classes - 1)
    if base == "PGD":
        return Step(METHODS["score-pgd"](clip=hyper["clip"]), pgd(golden), {"y": y})
    clipped = {None: "robust", "TRADES": "weighted" if hyper.get("not_clip_clean") else "sum"}[base]
    method = METHODS["score"](beta=hyper["beta"], clip=hyper["clip"], clipped=clipped)
    return Step(method, pgd(golden), {"y": y})


def ikl(golden: "Golden") -> Step:
    hyper = golden.hyper
    settings = {
        key: hyper[key] for key in ("alpha", "beta", "temperature", "inner_alpha", "inner_beta")
    }
    settings["view_weight"] = hyper.get("view_weight", 0.3) if hyper["two_views"] else 0.0
    if golden.name == "gkl":
        settings |= {"gamma": hyper["gamma"], "inner_gamma": hyper.get("inner_gamma", 1.0)}
    table = golden["class_weight"]
    epoch = torch.tensor(0.0, dtype=torch.float64)
    state = {"table": table, "sums": torch.zeros_like(table), "epoch": epoch}
    return Step(METHODS[golden.name](**settings), pgd(golden), {"state": state})


def adr(golden: "Golden") -> Step:
    hyper = golden.hyper
    keys = ("temperature_low", "temperature_high", "interpolation_low", "interpolation_high")
    base = "trades" if hyper["mode"] == "TRADES" else "pgd"
    method = METHODS["adr"](base=base, beta=hyper["beta"], **{key: hyper[key] for key in keys})
    context = {
        "networks": {"teacher": eval_net(golden)},
        "progress": hyper["step"] / (hyper["epochs"] * hyper["steps_per_epoch"]),
    }
    return Step(method, pgd(golden), context)


def fgsm_pgi(golden: "Golden") -> Step:
    hyper = golden.hyper
    method = METHODS["fgsm-pgi"](
        weight=hyper["weight"],
        label_factor=hyper["label_factor"],
        momentum_decay=hyper["momentum_decay"],
    )
    # A first use is one whose memory is fresh: the record holds it either way.
    memory = {"delta": golden["start_noise"], "momentum": golden["momentum"]}
    return Step(method, pgd(golden), {"memory": memory, "epoch": 1})


def eat(golden: "Golden") -> Step:
    hyper = golden.hyper
    radii = {"linf": 0.0, "l2": 0.0, "l1": 0.0} | {hyper["norm"].lower(): hyper["epsilon"]}
    method = METHODS["e-at"](**radii)
    state = {"robust": torch.zeros(1), "attacked": torch.zeros(1)}
    return Step(method, pgd(golden, step_size=1.0), {"state": state})


STEPS: dict[str, Callable[["Golden"], Step]] = {
    "fgsm_rs": fgsm_rs,
    "n_fgsm": n_fgsm,
    "gat": gat,
    "nuat": nuat,
    "nuat2": nuat,
    "nuat2_wa": nuat,
    "raat": raat,
    "raat_mart": raat,
    "raat_wa": raat_wa,
    "hat": hat,
    "hat_ce": hat,
    "hat_wa": hat,
    "rslad": rslad,
    "lbgat": lbgat,
    "score": score,
    "score_pgd": score,
    "score_trades": score,
    "ikl": ikl,
    "gkl": ikl,
    "adr": adr,
    "fgsm_pgi": fgsm_pgi,
    "eat_linf": eat,
    "eat_l2": eat,
    "eat_l1": eat,
}
"""By family of golden sets."""


def context_of(golden: "Golden", model: nn.Module, step: Step) -> StepContext:
    x, y = golden.batch
    return StepContext(model, step.attack, **{"x": x, "y": y, **step.context})
