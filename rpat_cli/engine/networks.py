"""The further networks of a method: frozen, averaged, or trained along with the model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from rpat_cli.engine.averaging import AveragedModel


@dataclass(frozen=True)
class Networks:
    """By name: `frozen` are in eval mode and never change, `averaged` follow the trained model, and
    `trained` take gradient steps of the same optimizer. `origins` tell what a run records of the
    files that the frozen ones were read from; telling reads the files."""

    frozen: Mapping[str, nn.Module] = field(default_factory=dict)
    averaged: Mapping[str, AveragedModel] = field(default_factory=dict)
    trained: Mapping[str, nn.Module] = field(default_factory=dict)
    origins: Mapping[str, Callable[[], Mapping[str, Any]]] = field(default_factory=dict)

    def by_name(self) -> dict[str, nn.Module]:
        """What the method sees as `StepContext.networks`."""
        averages = {name: average.model for name, average in self.averaged.items()}
        return {**self.frozen, **averages, **self.trained}

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those that the optimizer moves."""
        for network in self.trained.values():
            yield from network.parameters()

    def update(self, model: nn.Module, epoch: int) -> None:
        """Let the averages follow `model` after a step of epoch `epoch` (from 0)."""
        for average in self.averaged.values():
            average.update(model, epoch)

    def state_dict(self) -> dict[str, Any]:
        """The frozen networks are in it, too: a resumed training goes on with the same, whatever
        their files have become."""
        return {
            **{name: network.state_dict() for name, network in self.frozen.items()},
            **{name: average.state_dict() for name, average in self.averaged.items()},
            **{name: network.state_dict() for name, network in self.trained.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, network in {**self.frozen, **self.trained}.items():
            network.load_state_dict(state[name])
        for name, average in self.averaged.items():
            average.load_state_dict(state[name])
