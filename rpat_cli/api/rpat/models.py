"""Networks by name, behind their normalization: images in [0, 1] to logits."""

from rpat_cli.calls.models import build, names
from rpat_cli.models.normalize import Classifier

__all__ = ["Classifier", "build", "names"]
