"""What the primary comparisons say, in few words: at the top of the page, and as sentences for
README.md and docs/results.md."""

import textwrap
from collections.abc import Sequence

from claim_data import Row
from claim_further import ENOUGH, hours_for
from claim_numbers import pairs_needed
from claim_pairs import (
    CRITERION,
    HELPS,
    HURTS,
    NO_EFFECT,
    NOT_SIGNIFICANT,
    NOT_TESTED,
    OF_THE_ATTACK,
    PLANNED,
    UNCHECKED,
    Pair,
    all_compared,
    contrasts,
)
from claim_parts import FIRST, PARTS, Tables, blocks_in_words, extent, primary, reported
from claim_text import span

from rpat_cli.sweep.intervals import Stat
from rpat_cli.sweep.table import signed
from rpat_cli.text import counted

SENTENCES = {
    "README.md": "docs/experiments/robust-perception.md",
    "docs/results.md": "experiments/robust-perception.md",
}
"""The pages that say what came out between <!-- claim --> and <!-- /claim -->, and their link."""

BEFORE = {
    "README.md": (
        "On these 1,600 images robust perception shows no consistent gain; the gains on CIFAR-10, "
        "0.3 to 1.3\npoints in the paper, are of the size of the seed noise here."
    ),
    "docs/results.md": (
        "More seeds and real data decide "
        "([the plan of that experiment](experiments/robust-perception.md))."
    ),
}
"""What they say while there is no answer, or no longer one."""

NOTHING = "No result yet: this page is the plan, written down before the first run."

VERDICTS = {
    HELPS: "The term helps",
    HURTS: "It hurts",
    UNCHECKED: f"An effect, {UNCHECKED}, for",
    OF_THE_ATTACK: "The effect is one of the attack for",
    NOT_SIGNIFICANT: "Not significant after Holm's correction over five for",
    NO_EFFECT: "No effect found for",
    NOT_TESTED: "Not tested for",
}

ALWAYS = (HELPS, HURTS)
"""Said also of no method."""


def answer(tables: Tables) -> str:
    """A list for each part with primary comparisons: what came out, or why nothing is said yet."""
    said = []
    for name in tables:
        if PARTS[name].primary and reported(tables, name):
            said.append(_part(tables, name))
        elif PARTS[name].primary:
            said.append(f"{PARTS[name].title}: no answer yet; {blocks_in_words(tables, name)}.")
    if any(reported(tables, name) for name in tables if PARTS[name].primary):
        said.append(f"An effect has {CRITERION}.")
    return "\n\n".join(said) or NOTHING


def _part(tables: Tables, name: str) -> str:
    rows, pairs = reported(tables, name), primary(tables, name)
    seen = f", {_count(pairs)} of each method" if pairs else ""
    title = (
        f"**{PARTS[name].title}** ({extent(tables[name])}){seen}: the term's mean difference in "
        f"robust accuracy (`{rows[0].attack}`) in points, with its 95 % interval."
    )
    lines = []
    for verdict, words in VERDICTS.items():
        those = [pair for pair in pairs if pair.verdict == verdict]
        if those or verdict in ALWAYS:
            named = "; ".join(map(_named, those))
            lines.append(f"{words} {_share(those, rows)}{': ' if named else ''}{named}.")
    if top := _top(pairs):
        lines.append(f"Where no effect was found, gains above {top} points are excluded.")
    if clean := all_compared(rows, contrasts(rows), "clean"):
        changes = span([pair.difference.mean for pair in clean])
        lines.append(f"The clean accuracy changes by {changes} points.")
    if lost := _without_pair(rows, pairs):
        lines.append(f"Without any pair: {lost}.")
    lines.append(_what_it_takes(pairs))
    return "\n".join([_wrapped(title), "", *(_wrapped(line, "- ") for line in lines if line)])


def sentences(tables: Tables, link: str) -> str:
    """The numbers of every primary part that is reported, and what more would take; nothing of a
    part as long as an effect in it is not yet checked against `best`, and nothing without the first
    part. `link`: to the page of the experiment."""
    found = {name: primary(tables, name) for name in tables if PARTS[name].primary}
    checked = {name: pairs for name, pairs in found.items() if pairs and _checked(pairs)}
    if FIRST not in checked:
        return ""
    said: list[str] = []
    for name, pairs in checked.items():
        where = f"On {PARTS[name].title}, it"
        if not said:
            title = f"[On {PARTS[name].title}]({link})"
            where = f"{title}, robust perception at its published scale"
        criterion = "" if said else f"; an effect has {CRITERION}"
        said.append(f"{where} {_changes(reported(tables, name), pairs, criterion)}.")
    said.append(_what_it_takes(checked[FIRST]))
    return _wrapped(" ".join(filter(None, said)))


def _checked(pairs: Sequence[Pair]) -> bool:
    return all(pair.verdict != UNCHECKED for pair in pairs)


def _changes(rows: Sequence[Row], pairs: Sequence[Pair], criterion: str) -> str:
    means = span([pair.difference.mean for pair in pairs])
    words = {
        HELPS: "it helps",
        HURTS: "hurts",
        OF_THE_ATTACK: "shows an effect of the attack for",
        NOT_SIGNIFICANT: f"is {NOT_SIGNIFICANT} for",
        NOT_TESTED: "was not tested for",
    }
    parts = []
    for verdict, word in words.items():
        those = [pair for pair in pairs if pair.verdict == verdict]
        if those or verdict in ALWAYS:
            named = f" ({'; '.join(map(_named, those))})" if those else ""
            parts.append(f"{word} {_share(those, rows)}{named}")
    if lost := _without_pair(rows, pairs):
        parts.append(f"has no pair of {lost}")
    if top := _top(pairs):
        parts.append(f"and where no effect was found, gains above {top} are excluded")
    seen = f"{_count(pairs)} of each method; 95 % intervals in brackets{criterion}"
    return f"changes the robust accuracy by {means} points ({seen}): {', '.join(parts)}"


def _share(those: Sequence[Pair], rows: Sequence[Row]) -> str:
    """Of all methods of the part, also those without a pair."""
    return f"{len(those) or 'none'} of {counted(len(contrasts(rows)), 'method')}"


def _without_pair(rows: Sequence[Row], pairs: Sequence[Pair]) -> str:
    compared = {(pair.variant, pair.baseline) for pair in pairs}
    return ", ".join(each[1] for each in contrasts(rows) if each not in compared)


def _named(pair: Pair) -> str:
    return f"{pair.baseline} {signed(pair.difference)}"


def _count(pairs: Sequence[Pair]) -> str:
    """`8 pairs`, or `5 to 8 pairs`: of each comparison."""
    sizes = sorted({pair.difference.n for pair in pairs})
    return counted(sizes[0], "pair") if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} pairs"


def _top(pairs: Sequence[Pair]) -> str:
    """The highest end of the intervals of the comparisons without an effect."""
    those = [pair.difference.interval for pair in pairs if pair.verdict == NO_EFFECT]
    ends = [interval[1] for interval in those if interval]
    return f"{100 * max(ends):+.2f}" if ends else ""


def _what_it_takes(pairs: Sequence[Pair]) -> str:
    """For the middle one of the sizes that the plan names."""
    sds = [Stat.of(list(pair.by_seed.values())).sd for pair in pairs]
    needed = [pairs_needed(ENOUGH, sd) for sd in sds if sd]
    if not needed or None in needed:
        return ""
    most = max(n for n in needed if n is not None)
    return (
        f"With the spread seen, {most} pairs of each method find a true difference of "
        f"{100 * ENOUGH:g} points with 80 % probability: at the paper's scale some "
        f"{hours_for(most):,.0f} GPU hours for {PLANNED} methods, if the spread there is as here."
    )


def _wrapped(text: str, bullet: str = "") -> str:
    return textwrap.fill(
        text,
        100,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
