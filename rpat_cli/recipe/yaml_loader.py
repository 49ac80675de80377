"""PyYAML's safe loader, which builds plain values only. Where it would crash itself, the document
is reported as wrong."""

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

DEEPEST = 50
"""Levels of nesting. A recipe has six; Python's own stack ends at some hundred of ours."""

MOST_VALUES = 30_000
"""Values in a document, those that an alias repeats counted again: ten lines of aliases can stand
for a billion."""

LARGEST = 2**63 - 1
"""No key takes a larger whole number, and Python does not print one of 5,000 digits."""


class Loader(yaml.SafeLoader):
    """Every mistake in a document is a `yaml.YAMLError` that knows its line.

    PyYAML itself raises `ValueError`, `KeyError`, `IndexError` or `AttributeError` where a tag or
    the look of a value promises what it does not hold: `!!int abc`, `2001-99-99`, a whole number of
    5,000 digits.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._around: list[str | None] = []
        self._values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One value; `_around` are the anchors of those that it is part of."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) and event.anchor in self._around:
            message = f"the value at &{event.anchor} contains itself"
            raise ComposerError(None, None, message, event.start_mark)  # type: ignore[arg-type]
        self._values += 1
        if self._values > MOST_VALUES:
            message = f"has more than {MOST_VALUES:,} values"
            raise ComposerError(None, None, message, event.start_mark)
        if len(self._around) >= DEEPEST:
            message = f"nested more than {DEEPEST} levels deep"
            raise ComposerError(None, None, message, event.start_mark)
        self._around.append(event.anchor)
        try:
            return super().compose_node(parent, index)
        finally:
            self._around.pop()

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _measured(node, {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
            if isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError("in hexadecimal it may have any number of digits")
            return value
        except yaml.YAMLError:
            raise
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            shown = repr(node.value) if isinstance(node.value, str) else "this"
            shown = f"{shown[:57]}..." if len(shown) > 60 else shown
            message = f"{shown} cannot be read as {kind}"
            raise ConstructorError(None, None, message, node.start_mark) from None


def _measured(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node stands for, and how many levels they have, aliases included. Raises
    `ComposerError` above the limits."""
    if id(node) in known:
        return known[id(node)]
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = list(node.value)
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    measured = [_measured(part, known) for part in parts]
    values = 1 + sum(size for size, _ in measured)
    levels = 1 + max((depth for _, depth in measured), default=0)
    if values > MOST_VALUES:
        message = f"stands for more than {MOST_VALUES:,} values, aliases included"
        raise ComposerError(None, None, message, node.start_mark)
    if levels > DEEPEST:
        message = f"nested more than {DEEPEST} levels deep, aliases included"
        raise ComposerError(None, None, message, node.start_mark)
    known[id(node)] = values, levels
    return values, levels
