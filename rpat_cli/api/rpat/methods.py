"""Training methods and regularizers: frozen dataclasses whose fields are hyper-parameters and whose
call is the math of one training step. `METHODS` has them by the names of `--method`."""

from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.adr import Adr
from rpat_cli.methods.base import Outcome, StepContext
from rpat_cli.methods.compose import compose
from rpat_cli.methods.consistency import Consistency, ConsistencyPgd
from rpat_cli.methods.declare import Needs
from rpat_cli.methods.eat import Eat, MultiNorm
from rpat_cli.methods.fgsm_pgi import FgsmPgi
from rpat_cli.methods.fgsm_rs import FgsmRs, NFgsm
from rpat_cli.methods.gat import Gat
from rpat_cli.methods.hat import Hat
from rpat_cli.methods.ikl import Gkl, Ikl
from rpat_cli.methods.lbgat import Lbgat
from rpat_cli.methods.mart import Mart
from rpat_cli.methods.nuat import NuAT, NuAT2
from rpat_cli.methods.pgd import Noise, Pgd
from rpat_cli.methods.raat import Raat, RaatMart, RaatWa
from rpat_cli.methods.rebat import Rebat
from rpat_cli.methods.robust_perception import RobustPerception
from rpat_cli.methods.rslad import Rslad
from rpat_cli.methods.score import Score, ScorePgd
from rpat_cli.methods.standard import Standard
from rpat_cli.methods.trades import Trades

__all__ = [
    "METHODS",
    "REGULARIZERS",
    "Adr",
    "Consistency",
    "ConsistencyPgd",
    "Eat",
    "FgsmPgi",
    "FgsmRs",
    "Gat",
    "Gkl",
    "Hat",
    "Ikl",
    "Lbgat",
    "Mart",
    "MultiNorm",
    "NFgsm",
    "Needs",
    "Noise",
    "NuAT",
    "NuAT2",
    "Outcome",
    "Pgd",
    "Raat",
    "RaatMart",
    "RaatWa",
    "Rebat",
    "RobustPerception",
    "Rslad",
    "Score",
    "ScorePgd",
    "Standard",
    "StepContext",
    "Trades",
    "compose",
]
