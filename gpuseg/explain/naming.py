"""Short names for segments, drafted from what sets each one apart the most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from gpuseg.explained import Trait

#: Weaker traits, in deviations, do not set a segment apart.
WEAKEST = 0.4

#: A trait names a segment when it holds for this share of its rows.
MOST_ROWS = 0.5

#: Traits that are kept with a segment, and those in its name before it must be told apart.
N_TRAITS, N_NAMED = 6, 2

#: Traits that are almost as strong as the strongest one left, within this factor, stand in
#: the order of the table, so that a few rows more or less do not change a name.
_AS_STRONG = 1.6

_YES, _NO = {"yes", "true", "y", "1"}, {"no", "false", "n", "0"}
#: Categories that mean something only beside the name of their column.
_VAGUE = (
    _YES | _NO | {"none", "other", "unknown", "(other)", "(missing)", "missing", "null", "blank"}
)

AVERAGE = "Average"


def strongest(traits: Iterable[Trait]) -> tuple[Trait, ...]:
    """Return the traits that set a segment apart, strongest first, at most `N_TRAITS`.

    Parameters
    ----------
    traits
        Of one segment, in the order of the table.
    """
    telling = [trait for trait in traits if abs(trait.z) >= WEAKEST]
    # what is common but not so for most comes last
    holding = [trait for trait in telling if _holds(trait)]
    others = [trait for trait in telling if not _holds(trait)]
    return tuple([*_in_tiers(holding), *_in_tiers(others)][:N_TRAITS])


def _in_tiers(traits: Sequence[Trait]) -> Iterator[Trait]:
    """Yield traits by their strength, and those of about the same strength in table order."""
    rest = list(traits)
    while rest:
        least = max(abs(trait.z) for trait in rest) / _AS_STRONG
        yield from (trait for trait in rest if abs(trait.z) >= least)
        rest = [trait for trait in rest if abs(trait.z) < least]


def draft_names(segments: Sequence[Sequence[Trait]], *, hide_values: bool = False) -> list[str]:
    """Name every segment by its strongest traits; no two names are the same.

    Parameters
    ----------
    segments
        For each segment its traits, strongest first.
    hide_values
        Say which columns set a segment apart, and leave categories out.

    Examples
    --------
    >>> young = Trait("age", "numeric", -1.2, 24.7, 38.6)
    >>> single = Trait("status", "categorical", 1.4, 0.95, 0.33, "Never-married")
    >>> draft_names([[young, single], [single], []])
    ['Low age, Never-married', 'Never-married', 'Average']
    """
    lengths = [N_NAMED] * len(segments)
    while True:
        names = [
            _joined(traits, length, hide_values)
            for traits, length in zip(segments, lengths, strict=True)
        ]
        counts = Counter(name.casefold() for name in names)
        longer = [
            length + (counts[name.casefold()] > 1 and length < len(traits))
            for name, traits, length in zip(names, segments, lengths, strict=True)
        ]
        if longer == lengths:
            return numbered(names)
        lengths = longer


def numbered(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Return the names, with numbers behind those that are there already.

    Examples
    --------
    >>> numbered(["Average", "Rome", "average"], taken=["rome"])
    ['Average', 'Rome 2', 'average 2']
    """
    used, unique = {name.casefold() for name in taken}, []
    for name in names:
        number, found = 2, name
        while found.casefold() in used:
            number, found = number + 1, f"{name} {number}"
        used.add(found.casefold())
        unique.append(found)
    return unique


def is_same_segment(traits: Sequence[Trait], others: Sequence[Trait]) -> bool:
    """Whether two segments are set apart by the same things, most of them at least."""
    mine, theirs = ({_key(trait) for trait in side[:3]} for side in (traits, others))
    return len(mine & theirs) * 3 >= 2 * max(len(mine), len(theirs))


def _key(trait: Trait) -> tuple[str, str | None, bool]:
    return trait.feature, trait.value, trait.z > 0


def _holds(trait: Trait) -> bool:
    """Whether the trait, as its phrase says it, is so for most of the segment."""
    if trait.kind == "categorical":
        return trait.own >= MOST_ROWS
    if trait.kind == "boolean":
        return (trait.own >= MOST_ROWS) == (trait.z > 0)
    return True


def _joined(traits: Sequence[Trait], length: int, hide_values: bool) -> str:
    """Join the phrases of the first traits that say different things."""
    phrases: dict[str, str] = {}
    for trait in traits:
        # what holds for few is better than no name, but adds nothing to one
        if len(phrases) < length and (_holds(trait) or not phrases):
            phrase = _phrase(trait, hide_values)
            # "no PhoneService" and "No phone service" are one
            phrases.setdefault("".join(c for c in phrase.casefold() if c.isalnum()), phrase)
    text = ", ".join(phrases.values())
    return f"{text[0].upper()}{text[1:]}" if text.startswith(_OWN_WORDS) else text or AVERAGE


_OWN_WORDS = ("high ", "low ", "recent ", "early ", "no ", "distinct ", "often ", "seldom ")


def _phrase(trait: Trait, hide_values: bool) -> str:
    feature = one_line(trait.feature)
    if trait.kind == "numeric":
        return f"{'high' if trait.z > 0 else 'low'} {feature}"
    if trait.kind == "datetime":
        return f"{'recent' if trait.z > 0 else 'early'} {feature}"
    if hide_values:
        return f"distinct {feature}"
    if trait.kind == "boolean":
        most = ("no ", "")[trait.z > 0] if _holds(trait) else ("seldom ", "often ")[trait.z > 0]
        return f"{most}{feature}"
    phrase = _category_phrase(feature, one_line(trait.value or "") or "blank")
    return phrase if _holds(trait) else f"often {phrase}"


def _category_phrase(feature: str, value: str) -> str:
    answer = value.casefold()
    if answer in _YES:
        return feature
    if answer in _NO:
        return f"no {feature}"
    n_letters = sum(c.isalpha() for c in value)
    return value if n_letters > 2 and answer not in _VAGUE else f"{feature} {value}"


def one_line(text: str, longest: int = 40) -> str:
    """Return a text without control characters, cut where a name would become too long."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return shown if len(shown) <= longest else f"{shown[: longest - 1].rstrip()}…"
