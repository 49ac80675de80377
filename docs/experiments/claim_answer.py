"""What the primary comparisons say, in few words: at the top of the page, and as sentences for
README.md and docs/results.md."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from claim_data import LIMIT, LONG, Row
from claim_further import ENOUGH, hours_for
from claim_numbers import MOST_PAIRS, pairs_needed
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
    collapsed,
    contrasts,
    failed,
)
from claim_parts import FIRST, PARTS, Tables, extent, no_result, primary, reported, seeds_of
from claim_text import EXPLORATORY, points, sentence, signed, span

from rpat_cli.sweep.intervals import Stat
from rpat_cli.text import counted

SENTENCES = {
    "README.md": "docs/experiments/robust-perception.md",
    "docs/results.md": "experiments/robust-perception.md",
}
"""The pages that say what came out between <!-- claim --> and <!-- /claim -->, and their link."""

BEFORE = {
    "README.md": (
        "On these 1,600 images robust perception shows no consistent gain; the gains on CIFAR-10, "
        "0.3 to 1.3\npoints in the paper (Linf, ResNet-18), are of the size of the seed noise here."
    ),
    "docs/results.md": (
        "More seeds and real data decide "
        "([the plan of that experiment](experiments/robust-perception.md))."
    ),
}
"""What they say while there is no answer, or no longer one."""

NOTHING = "No result yet: this page is the plan, written down before the first run."

VERDICTS = {
    HELPS: "helps",
    HURTS: "hurts",
    NO_EFFECT: "shows no effect for",
    OF_THE_ATTACK: (
        "shows an effect that the check against a stronger attack does not confirm for"
    ),
    NOT_SIGNIFICANT: f"is {NOT_SIGNIFICANT} for",
    UNCHECKED: "",  # such a part has no sentence
    NOT_TESTED: "was not tested for",
}
"""In the order in which they are said, and the words of a sentence about robust perception."""

ALWAYS = (HELPS, HURTS)
"""Said also of no method."""

PUBLISHED = (0.003, 0.013)
"""The gains of the paper on CIFAR-10 (second-hand), as fractions."""

GAINS = f"{100 * PUBLISHED[0]:+g} to {100 * PUBLISHED[1]:+g}"


def answer(tables: Tables) -> str:
    """A list for each part with primary comparisons: what came out, or why nothing is said yet."""
    said = []
    for name in tables:
        if PARTS[name].primary and reported(tables, name):
            said.append(_part(tables, name))
        elif PARTS[name].primary:
            said.append(f"{PARTS[name].title}: {no_result(tables, name)}.")
    return "\n\n".join(said) or NOTHING


def _part(tables: Tables, name: str) -> str:
    rows, pairs = reported(tables, name), primary(tables, name)
    headline = (
        f"**On {PARTS[name].title}, robust perception {_headline(rows, pairs)}.** Published, on "
        f"CIFAR-10: {GAINS} points."
    )
    seen = f"{_count(pairs)} of each method; " if pairs else ""
    how = (
        f"{seen}{extent(tables[name])}. Mean differences in robust accuracy (`{rows[0].attack}`), "
        f"in points, with 95 % intervals; an effect has {CRITERION}."
    )
    lines = [_losses(rows)]
    for verdict in VERDICTS:
        those = [pair for pair in pairs if pair.verdict == verdict]
        if those:
            lines.append(_line(verdict, those))
    if lost := _without_pair(rows, pairs):
        lines.append(f"Without any pair: {', '.join(lost)}.")
    if clean := all_compared(rows, contrasts(rows), "clean"):
        lines.append(f"Clean accuracy ({EXPLORATORY[:-1].lower()}): {_named(clean)}.")
    lines.append(_what_it_takes(rows, pairs))
    bullets = (_wrapped(line, "- ") for line in lines if line)
    return "\n".join([_wrapped(headline), "", _wrapped(how), "", *bullets])


def _headline(rows: Sequence[Row], pairs: Sequence[Pair]) -> str:
    """`helps 1 of 5 methods, hurts 0; no effect found in 4`"""
    numbers = Counter(pair.verdict for pair in pairs)
    methods = counted(len(contrasts(rows)), "method")
    said = [f"helps {numbers[HELPS]} of {methods}, hurts {numbers[HURTS]}"]
    for verdict in VERDICTS:
        if numbers[verdict] and verdict not in ALWAYS:
            said.append(f"{verdict} in {numbers[verdict]}")
    if lost := _without_pair(rows, pairs):
        said.append(f"no pair in {len(lost)}")
    return "; ".join(said)


def _line(verdict: str, those: Sequence[Pair]) -> str:
    """A verdict, of which methods, and what else is to be known of it."""
    if verdict == OF_THE_ATTACK:
        named = "; ".join(f"{_named([pair])}, but {_gap(pair)}" for pair in those)
        return sentence(f"{verdict}, since `{LONG}` changes it by more than a third: {named}")
    if verdict == NO_EFFECT:
        return sentence(f"{verdict}: {_named(those)}. There, {_excluded(those)}")
    return sentence(f"{verdict}: {_named(those)}")


def _gap(pair: Pair) -> str:
    """On which side the stronger attack takes more."""
    assert pair.gap is not None
    more = "more" if pair.gap > 0 else "less"
    taken = f"{100 * abs(pair.gap):.2f} points {more}"
    return f"`{LONG}` takes {taken} from the side with the term ({LIMIT:,} images)"


def _excluded(those: Sequence[Pair]) -> str:
    """What the highest end of the intervals of comparisons without an effect leaves of the
    published gains."""
    top = max(pair.difference.interval[1] for pair in those if pair.difference.interval)
    if top < PUBLISHED[0]:
        left = "and with them all published ones"
    elif top < PUBLISHED[1]:
        left = f"which leaves room for published ones up to {points(top)}"
    else:
        left = "which leaves room for all published ones"
    return f"gains above {points(top)} points are excluded, {left}"


def _losses(rows: Sequence[Row]) -> str:
    """Trainings that collapsed or failed."""
    said = []
    if broken := collapsed(rows):
        said.append(f"Collapsed, and in all means: {_by_variant(broken, rows)}.")
    if lost := failed(rows):
        said.append(f"Failed: {_by_variant(lost, rows)}.")
    return " ".join(said)


def _by_variant(those: Sequence[Row], rows: Sequence[Row]) -> str:
    """`pgd + ra, seed 3; trades, 8 of 8 seeds`"""
    named = []
    for variant in dict.fromkeys(row.variant for row in rows):
        seeds = [row.seed for row in those if row.variant == variant]
        if len(seeds) == 1:
            named.append(f"{variant}, seed {seeds[0]}")
        elif seeds:
            named.append(f"{variant}, {len(seeds)} of {len(seeds_of(rows))} seeds")
    return "; ".join(named)


def sentences(tables: Tables, link: str) -> str:
    """The numbers of every primary part that is reported, and what more would take, a line each;
    nothing of a part as long as an effect in it is not yet checked against `best`, and nothing
    without the first part. `link`: to the page of the experiment."""
    found = {name: primary(tables, name) for name in tables if PARTS[name].primary}
    checked = {name: pairs for name, pairs in found.items() if pairs and _checked(pairs)}
    if FIRST not in checked:
        return ""
    said: list[str] = []
    for name, pairs in checked.items():
        where, term = f"On {PARTS[name].title}", ""
        notes = [f"{_count(pairs)} of each method"]
        if any(pair.difference.interval for pair in pairs):
            notes.append("95 % intervals in brackets")
        if not said:
            where, term = f"[{where}]({link})", " by robust perception at its published scale"
            notes += [f"an effect has {CRITERION}", f"published on CIFAR-10: {GAINS}"]
        means = span([pair.difference.mean for pair in pairs])
        rows = reported(tables, name)
        robust = (
            f"{where}, the mean differences in robust accuracy{term} are {means} points "
            f"({'; '.join(notes)}): it {_verdicts(rows, pairs)}."
        )
        said.append(" ".join(filter(None, [robust, _clean(rows), _losses(rows)])))
    said.append(_what_it_takes(reported(tables, FIRST), checked[FIRST]))
    return "\n".join(filter(None, said))


def _checked(pairs: Sequence[Pair]) -> bool:
    return all(pair.verdict != UNCHECKED for pair in pairs)


def _verdicts(rows: Sequence[Row], pairs: Sequence[Pair]) -> str:
    said: list[str] = []
    for verdict, words in VERDICTS.items():
        those = [pair for pair in pairs if pair.verdict == verdict]
        if those or verdict in ALWAYS:
            of_all = "" if said else f" of {counted(len(contrasts(rows)), 'method')}"
            named = f" ({_named(those)})" if those else ""
            said.append(f"{words} {len(those) or 'none'}{of_all}{named}")
    if lost := _without_pair(rows, pairs):
        said.append(f"has no pair of {', '.join(lost)}")
    if none := [pair for pair in pairs if pair.verdict == NO_EFFECT]:
        return f"{', '.join(said)}. Where no effect was found, {_excluded(none)}"
    return ", ".join(said)


def _clean(rows: Sequence[Row]) -> str:
    found = [pair.difference for pair in all_compared(rows, contrasts(rows), "clean")]
    if not found:
        return ""
    changes = (
        f"The mean differences in clean accuracy are {span([each.mean for each in found])} points"
    )
    intervals = [each.interval for each in found if each.interval]
    if not intervals:
        return f"{changes}."
    apart = sum(not low <= 0 <= high for low, high in intervals)
    return f"{changes}; {apart} of {len(intervals)} intervals, not corrected, exclude 0."


def _without_pair(rows: Sequence[Row], pairs: Sequence[Pair]) -> list[str]:
    compared = {(pair.variant, pair.baseline) for pair in pairs}
    return [each[1] for each in contrasts(rows) if each not in compared]


def _named(pairs: Sequence[Pair]) -> str:
    return "; ".join(f"{pair.baseline} {signed(pair.difference)}" for pair in pairs)


def _count(pairs: Sequence[Pair]) -> str:
    """`8 pairs`, or `5 to 8 pairs`: of each comparison."""
    sizes = sorted({pair.difference.n for pair in pairs})
    return counted(sizes[0], "pair") if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} pairs"


def _what_it_takes(rows: Sequence[Row], pairs: Sequence[Pair]) -> str:
    """For the middle one of the sizes that the plan names, by the method of the largest spread."""
    spreads = {pair.baseline: Stat.of(list(pair.by_seed.values())).sd or 0.0 for pair in pairs}
    without = [method for _, method in contrasts(rows) if not spreads.get(method)]
    if len(without) == len(contrasts(rows)):
        return ""
    most = max(spreads, key=lambda method: spreads[method])
    needed = pairs_needed(ENOUGH, spreads[most])
    but = f" (none was seen of {', '.join(without)})" if without else ""
    spread = f"With the spread seen of {most}, the largest{but}"
    size = f"a true difference of {100 * ENOUGH:g} points"
    if needed is None:
        return f"{spread}, {size} takes more than {MOST_PAIRS:,} pairs of each method."
    return (
        f"{spread}, {needed} pairs of each method find {size} with 80 % probability: at the "
        f"paper's scale some {hours_for(needed):,.0f} GPU hours for {PLANNED} methods, if the "
        "spread there is as here."
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
