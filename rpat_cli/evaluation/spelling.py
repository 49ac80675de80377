"""Other ways to write an attack: what somebody who wrote `cw-20` or `pgd-50-10` meant."""

import re
from collections.abc import Callable

ALIASES = {
    "aa": "autoattack",
    "auto-attack": "autoattack",
    "autopgd": "apgd",
    "auto-pgd": "apgd",
    "apgdce": "apgd-ce",
    "apgdt": "apgd-t",
    "apgddlr": "apgd-dlr",
    "odi": "odi-pgd",
    "mt": "multitargeted",
    "multi-targeted": "multitargeted",
    "fabt": "fab-t",
    "c&w": "cw-pgd",
    "cw": "cw-pgd",
    "cw-inf": "cw-pgd",
    "cw-linf": "cw-pgd",
    "cwl2": "cw-l2",
    "ifgsm": "bim",
    "i-fgsm": "bim",
    "mifgsm": "mim",
    "mi-fgsm": "mim",
    "madry": "pgd",
    "nat": "clean",
    "natural": "clean",
    "none": "clean",
    "benign": "clean",
}
"""Names that other tools and papers use."""

COUNTS = re.compile(r"(?P<name>.*?[^-\d])-?(?P<count>\d+)(?:[-x*/](?P<restarts>\d+))?")


def meant_by(word: str, is_word: Callable[[str], bool]) -> str:
    """The word that was probably meant, or "": one for which `is_word` is true, with its counts."""
    text = word.casefold().replace("_", "-")
    counted = COUNTS.fullmatch(text)
    name = counted["name"] if counted and text not in ALIASES else text
    name = ALIASES.get(name, name)
    if not is_word(name) or not (counted or name != word):
        return ""
    if counted is None or text in ALIASES:
        return name
    restarts = f"x{counted['restarts']}" if counted["restarts"] else ""
    return f"{name}-{counted['count']}{restarts}"
