"""How threats and classes are written, on the terminal and on the page."""

from collections.abc import Sequence

from rpat_cli.attacks.threat import Threat
from rpat_cli.text import show_number


def show_threat(threat: Threat) -> str:
    """`Linf, eps 8/255`"""
    return f"{threat.norm}, eps {show_number(threat.eps)}"


def class_name(names: Sequence[str], label: int) -> str:
    """The name of a class, or its number where names are not known."""
    return names[label] if label < len(names) else f"class {label}"
