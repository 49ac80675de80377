"""What the primary comparisons say, in few words: at the top of the page, and as sentences for
README.md and docs/results.md."""

import textwrap
from collections.abc import Sequence

from claim_further import ENOUGH, hours_for
from claim_numbers import pairs_needed
from claim_pairs import OF_THE_ATTACK, PLANNED, Pair, all_compared, contrasts
from claim_parts import FIRST, PARTS, Tables, blocks_in_words, primary, reported
from claim_text import span

from rpat_cli.sweep.intervals import Stat
from rpat_cli.sweep.table import signed

SENTENCES = {
    "README.md": "docs/experiments/robust-perception.md",
    "docs/results.md": "experiments/robust-perception.md",
}
"""The pages that say what came out between <!-- claim --> and <!-- /claim -->, and their link."""

NOTHING = "No result yet: this page is the plan, written down before the first run."

VERDICTS = {
    "helps": "The term helps",
    "hurts": "It hurts",
    OF_THE_ATTACK: "The effect is one of the attack for",
    "no effect found": "No effect found for",
}


def answer(tables: Tables) -> str:
    """A list for each part that is reported; the first part always."""
    said = []
    for name in tables:
        if PARTS[name].primary and primary(tables, name):
            said.append(_part(tables, name))
        elif PARTS[name].primary:
            said.append(f"{PARTS[name].title}: no answer yet; {blocks_in_words(tables, name)}.")
    return "\n\n".join(said) or NOTHING


def _part(tables: Tables, name: str) -> str:
    rows, pairs = reported(tables, name), primary(tables, name)
    title = (
        f"**{PARTS[name].title}**, {_count(pairs)} of each method: the term's mean difference in "
        f"robust accuracy (`{rows[0].attack}`) in points, with its 95 % interval."
    )
    lines = []
    for verdict, words in VERDICTS.items():
        those = [pair for pair in pairs if pair.verdict == verdict]
        if those or verdict in ("helps", "hurts"):
            named = "; ".join(map(_named, those))
            lines.append(f"{words} {_share(those, pairs)}{': ' if named else ''}{named}.")
    if top := _top(pairs):
        lines.append(f"Where no effect was found, gains above {top} points are excluded.")
    clean = all_compared(rows, contrasts(rows), "clean")
    lines.append(
        f"The clean accuracy changes by {span([p.difference.mean for p in clean])} points."
    )
    compared = {(pair.variant, pair.baseline) for pair in pairs}
    if lost := [base for variant, base in contrasts(rows) if (variant, base) not in compared]:
        lines.append(f"Without any pair: {', '.join(lost)}.")
    if open_ := [pair.baseline for pair in pairs if pair.effect and pair.gap is None]:
        lines.append(f"Not yet checked against `best` in all pairs: {', '.join(open_)}.")
    lines.append(_what_it_takes(pairs))
    return "\n".join([_wrapped(title), "", *(_wrapped(line, "- ") for line in lines if line)])


def sentences(tables: Tables, link: str) -> str:
    """The numbers of every primary part that is reported, and what more would take; nothing
    without the first part. `link`: to the page of the experiment."""
    if not primary(tables, FIRST):
        return ""
    said: list[str] = []
    for name in tables:
        pairs = primary(tables, name) if PARTS[name].primary else []
        if pairs:
            where = f"On {PARTS[name].title}, it"
            if not said:
                title = f"[On {PARTS[name].title}]({link})"
                where = f"{title}, robust perception at its published scale"
            said.append(f"{where} {_changes(pairs)}.")
    said.append(_what_it_takes(primary(tables, FIRST)))
    return _wrapped(" ".join(filter(None, said)))


def _changes(pairs: Sequence[Pair]) -> str:
    means = span([pair.difference.mean for pair in pairs])
    words = {
        "helps": "it helps",
        "hurts": "hurts",
        OF_THE_ATTACK: "shows an effect of the attack for",
    }
    parts = []
    for verdict, word in words.items():
        those = [pair for pair in pairs if pair.verdict == verdict]
        if those or verdict != OF_THE_ATTACK:
            named = f" ({'; '.join(map(_named, those))})" if those else ""
            parts.append(f"{word} {_share(those, pairs)}{named}")
    if top := _top(pairs):
        parts.append(f"and where no effect was found, gains above {top} are excluded")
    seen = f"{_count(pairs)} of each method; 95 % intervals in brackets"
    return f"changes the robust accuracy by {means} points ({seen}): {', '.join(parts)}"


def _share(those: Sequence[Pair], pairs: Sequence[Pair]) -> str:
    return f"{len(those) or 'none'} of {len(pairs)} methods"


def _named(pair: Pair) -> str:
    return f"{pair.baseline} {signed(pair.difference)}"


def _count(pairs: Sequence[Pair]) -> str:
    """`8 pairs`, or `5 to 8 pairs`: of each comparison."""
    sizes = sorted({pair.difference.n for pair in pairs})
    return f"{sizes[0]} pairs" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} pairs"


def _top(pairs: Sequence[Pair]) -> str:
    """The highest end of the intervals of the comparisons without an effect."""
    those = [pair.difference.interval for pair in pairs if pair.verdict == "no effect found"]
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
        f"{hours_for(most):,.0f} GPU hours for {PLANNED} methods."
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
