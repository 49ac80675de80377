"""A substitute: a small network fitted to a model's outputs, for attacks that need no gradient of
the model itself.

Papernot et al., Practical black-box attacks against machine learning, ASIA CCS 2017 (arXiv
1602.02697): what fools the substitute often fools the model. Where that breaks more than attacks on
the model's own gradient, the gradient is masked.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.data.reading import AnyImages
from rpat_cli.evaluation.verify import checked_logits, predict

QUERIES = 10_000
BATCH = 50
LEARNING_RATE = 0.01
WIDTHS = (16, 16, 64)
LARGEST_SIDE = 32
SHIFT = 2


def fit_substitute(
    model: nn.Module, x: AnyImages, threat: Threat, device: torch.device, queries: int = QUERIES
) -> nn.Module:
    """A small network whose outputs on images like `x` (N, C, H, W) follow those of `model`; in
    eval mode, on `device`.

    The model is queried with images that are shifted by up to two pixels and then moved, from a
    random start, by one step that fools the current substitute: there the two have to agree if
    attacks are to transfer. It gets `queries` images in all. Draws from torch's global generator.
    Raises `RpatError` for a model without finite logits (B, classes).
    """
    classes = checked_logits(model, x[:1].to(device)).shape[1]
    substitute = _network(x.shape[1], x.shape[-2:], classes).to(device)
    optimizer = torch.optim.Adam(substitute.parameters(), lr=LEARNING_RATE)
    steps = max(1, queries // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LEARNING_RATE, total_steps=steps
    )
    ascent = ATTACKS["pgd"](threat, steps=1, step_size=threat.eps)
    for _ in range(steps):
        chosen = torch.randint(len(x), (min(BATCH, len(x)),))
        x_query = _shifted(x[chosen.to(x.device)].to(device))
        x_query = ascent(substitute.eval(), x_query, predict(substitute, x_query))
        targets = _comparable(checked_logits(model, x_query))
        substitute.train()
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = F.mse_loss(substitute(x_query), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return substitute.eval()


def _network(channels: int, size: torch.Size, classes: int) -> nn.Sequential:
    shrink = max(1, -(-max(size) // LARGEST_SIDE))
    layers: list[nn.Module] = [nn.AvgPool2d(shrink)] if shrink > 1 else []
    for width in WIDTHS:
        # 5 x 5 filters: images that fool them transfer better than those that fool 3 x 3 ones.
        layers += [
            nn.Conv2d(channels, width, 5, stride=2, padding=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, classes)
    )


def _shifted(x: Tensor) -> Tensor:
    """The whole batch shifted by up to two pixels, its border repeated."""
    down, right = torch.randint(2 * SHIFT + 1, (2,)).tolist()
    padded = F.pad(x, (SHIFT,) * 4, mode="replicate")
    return padded[..., down : down + x.shape[-2], right : right + x.shape[-1]]


def _comparable(logits: Tensor) -> Tensor:
    """Centered and scaled to a standard deviation of 1, so that huge logits, and probabilities in
    their place, can be learned too."""
    logits = logits - logits.mean(dim=1, keepdim=True)
    return logits / logits.std().clamp_min(1e-12)
