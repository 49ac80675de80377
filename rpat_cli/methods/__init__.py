"""Training methods and regularizers by name. Importing these tables imports no torch.

An entry is a frozen dataclass: its fields are hyper-parameters (`pydantic.TypeAdapter(cls)` checks
them), its call is the math. `rpat_cli.methods.compose.compose` puts regularizers on a method.
"""

from typing import Any

from rpat_cli.registry import Registry

METHODS: Registry[type[Any]] = Registry(
    "method",
    {
        "standard": "rpat_cli.methods.standard:Standard",
        "noise": "rpat_cli.methods.pgd:Noise",
        "pgd": "rpat_cli.methods.pgd:Pgd",
        "trades": "rpat_cli.methods.trades:Trades",
        "mart": "rpat_cli.methods.mart:Mart",
        "alp": "rpat_cli.methods.alp:Alp",
        "gairat": "rpat_cli.methods.gairat:Gairat",
        "mail": "rpat_cli.methods.mail:Mail",
        "mail-trades": "rpat_cli.methods.mail:MailTrades",
        "fat": "rpat_cli.methods.fat:Fat",
        "iat": "rpat_cli.methods.iat:Iat",
        "avmixup": "rpat_cli.methods.avmixup:AvMixup",
        "consistency": "rpat_cli.methods.consistency:ConsistencyPgd",
        "rebat": "rpat_cli.methods.rebat:Rebat",
        "fgsm-rs": "rpat_cli.methods.fgsm_rs:FgsmRs",
        "n-fgsm": "rpat_cli.methods.fgsm_rs:NFgsm",
        "grad-align": "rpat_cli.methods.grad_align:GradAlign",
        "zero-grad": "rpat_cli.methods.zero_grad:ZeroGrad",
        "gat": "rpat_cli.methods.gat:Gat",
        "nuat": "rpat_cli.methods.nuat:NuAT",
        "nuat2": "rpat_cli.methods.nuat:NuAT2",
        "fgsm-pgi": "rpat_cli.methods.fgsm_pgi:FgsmPgi",
        "raat": "rpat_cli.methods.raat:Raat",
        "raat-mart": "rpat_cli.methods.raat:RaatMart",
        "raat-wa": "rpat_cli.methods.raat:RaatWa",
        "hat": "rpat_cli.methods.hat:Hat",
        "rslad": "rpat_cli.methods.rslad:Rslad",
        "ard": "rpat_cli.methods.ard:Ard",
        "lbgat": "rpat_cli.methods.lbgat:Lbgat",
        "score": "rpat_cli.methods.score:Score",
        "score-pgd": "rpat_cli.methods.score:ScorePgd",
        "ikl": "rpat_cli.methods.ikl:Ikl",
        "gkl": "rpat_cli.methods.ikl:Gkl",
        "adr": "rpat_cli.methods.adr:Adr",
        "e-at": "rpat_cli.methods.eat:Eat",
        "multi-norm": "rpat_cli.methods.eat:MultiNorm",
    },
    hints={
        "rpat": "RPAT is robust perception on top of any method: --method pgd --ra (ra: true).",
        "rpat++": "RPAT++ is ReBAT with robust perception: --method rebat --ra (ra: true).",
    },
)

REGULARIZERS: Registry[type[Any]] = Registry(
    "regularizer",
    {
        "ra": "rpat_cli.methods.robust_perception:RobustPerception",
        "consistency": "rpat_cli.methods.consistency:Consistency",
    },
)
