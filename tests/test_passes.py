import torch
from torch import nn

from rpat_cli.passes import count_passes


def test_every_forward_and_backward_pass_is_counted_and_nothing_stays_behind() -> None:
    model = nn.Linear(3, 2)
    x = torch.ones(5, 3, requires_grad=True)
    with count_passes(model) as passes:
        logits = model(x)
        torch.autograd.grad(logits.sum(), x, retain_graph=True)
        torch.autograd.grad(logits[:, 0].sum(), x)  # a second pass through the same graph
        with torch.no_grad():
            model(x[:2])
        model(x).sum().backward()
    assert (passes.forward, passes.forward_samples) == (3, 12)
    assert (passes.backward, passes.backward_samples) == (3, 15)
    model(x).sum().backward()
    assert (passes.forward, passes.backward) == (3, 3)
    assert not model._forward_hooks
