"""Adversarial examples that were saved, as an attack: `file:FILE.npz`."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError
from rpat_cli.records.adversarial_file import AdversarialFile
from rpat_cli.records.files import user_path


@dataclass(frozen=True)
class SavedExamples:
    """The examples in the file `path` for the images that it is called with, by what these look
    like.

    Raises `ConfigError` for a file of another form, for one of other images, and for examples
    outside of ball or box.
    """

    threat: Threat
    path: str

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002
        """`x` (B, C, H, W) in [0, 1]."""
        found, missing = self._file.of(x.cpu().numpy())
        if missing:
            raise ConfigError(
                f"{self.path} has no example for {missing} of {len(x)} images: it is of other "
                "images. Evaluate the data, and the choice of images, that it was made for."
            )
        x_adv = torch.from_numpy(found).to(x)
        outside = ~self.threat.contains(x, x_adv)
        if outside.any():
            farthest = float(self.threat.distance(x, x_adv).max())
            raise ConfigError(
                f"{int(outside.sum())} of {len(x)} images in {self.path} are outside of the threat "
                f"{self.threat.norm}, eps {self.threat.eps:.6g} (the farthest is {farthest:.6g} "
                "away), or of the pixel box. Evaluate the threat that it was made for: --threat."
            )
        return x_adv

    def check(self, x: Tensor) -> None:
        """Raises what attacking these images would raise."""
        self(nn.Identity(), x, x)

    @cached_property
    def _file(self) -> AdversarialFile:
        return AdversarialFile(user_path(Path(self.path)))
