"""Segments as people meet them: names, descriptions, and what becomes of names later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from gpuseg.errors import ModelError, SettingsError
from gpuseg.explain.naming import draft_names, is_same_segment, numbered, one_line
from gpuseg.explained import Segment, Trait
from gpuseg.outputs.wording import apart, day, percent

SEGMENTS_SCHEMA = pa.schema(
    [
        ("cluster_id", pa.int32()),
        ("name", pa.string()),
        ("size", pa.int64()),
        ("share", pa.float64()),
        ("description", pa.string()),
    ]
)

#: Traits in a description.
_DESCRIBED = 3

#: Characters in a name that somebody gives.
LONGEST_NAME = 80


def drafted_segments(
    traits: Sequence[Sequence[Trait]], cluster_ids: Sequence[int]
) -> tuple[Segment, ...]:
    """Name and describe new segments."""
    return tuple(
        Segment(cluster, name, name, _description(found), tuple(found))
        for cluster, name, found in zip(cluster_ids, draft_names(traits), traits, strict=True)
    )


def continued_segments(
    drafted: Sequence[Segment], earlier: Sequence[Segment]
) -> tuple[tuple[Segment, ...], tuple[str, ...]]:
    """Let segments that go on keep their names.

    Parameters
    ----------
    drafted
        Of a new fit.
    earlier
        Of the model that was current before. A segment goes on when the id is the same. What
        somebody called it stays; a draft stays as long as the same things set it apart.

    Returns
    -------
    segments, warnings
        A warning for every name that somebody gave and that no segment carries any more, or
        that goes on with a segment which other things set apart now.
    """
    before = {segment.cluster_id: segment for segment in earlier}
    kept: dict[int, Segment] = {}
    warnings: list[str] = []
    for segment in drafted:
        known = before.get(segment.cluster_id)
        if known is None:
            continue
        if is_same_segment(known.traits, segment.traits):
            kept[segment.cluster_id] = segment._replace(name=known.name, draft=known.draft)
        elif _is_edited(known):
            kept[segment.cluster_id] = segment._replace(name=known.name)
            warnings.append(
                f"segment {segment.cluster_id} is still called '{known.name}', but other things "
                "set it apart now (gpuseg models rename)"
            )
    fresh = [segment for segment in drafted if segment.cluster_id not in kept]
    names = numbered([s.name for s in fresh], taken=[s.name for s in kept.values()])
    renamed = {s.cluster_id: s._replace(name=n) for s, n in zip(fresh, names, strict=True)}
    warnings += [
        f"segment {s.cluster_id}, which was called '{s.name}', does not go on: no segment has "
        "enough of its rows"
        for s in earlier
        if _is_edited(s) and s.cluster_id not in kept
    ]
    return tuple((kept | renamed)[s.cluster_id] for s in drafted), tuple(warnings)


def check_segment_name(segments: Sequence[Segment], cluster_id: int, name: str, model: str) -> str:
    """Return a name that a segment may have, without blanks around it.

    Raises
    ------
    SettingsError
        If there is no such segment, the name is empty, too long or not printable, or another
        segment has it.
    """
    if not any(segment.cluster_id == cluster_id for segment in segments):
        known = ", ".join(str(segment.cluster_id) for segment in segments)
        raise SettingsError(
            f"the model '{model}' has no segment {cluster_id} with a name; it has: "
            f"{known or 'none, because it is older than names (gpuseg run makes a new one)'}"
        )
    text = name.strip()
    if not _can_be_a_name(text):
        raise SettingsError(
            f"{name[:120]!r} cannot be the name of a segment; use 1 to {LONGEST_NAME} "
            "printable characters in one line"
        )
    twin = next((s for s in segments if s.name.casefold() == text.casefold()), None)
    if twin is not None and twin.cluster_id != cluster_id:
        raise SettingsError(
            f"segment {twin.cluster_id} of model '{model}' is called '{twin.name}' already; give "
            "each segment a name of its own"
        )
    return text


def renamed(segments: Sequence[Segment], names: Mapping[int, Any]) -> tuple[Segment, ...]:
    """Return the segments under these names, as a file has them.

    Raises
    ------
    ValueError
        If one cannot be a name, belongs to no segment, or two are the same.
    """
    found = tuple(s._replace(name=names.get(s.cluster_id, s.name)) for s in segments)
    are_names = all(isinstance(name, str) and _can_be_a_name(name) for name in names.values())
    if not are_names or not names.keys() <= {segment.cluster_id for segment in segments}:
        raise ValueError(names)
    if len({segment.name.casefold() for segment in found}) < len(found):
        raise ValueError(names)
    return found


def _can_be_a_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text == one_line(text, LONGEST_NAME)


def discreet(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return the segments without category texts and values, for ``--hide-table-contents``.

    A name that somebody gave is no table content and stays.
    """
    hidden = numbered(
        draft_names([segment.traits for segment in segments], hide_values=True),
        taken=[segment.name for segment in segments if _is_edited(segment)],
    )
    return tuple(
        Segment(
            segment.cluster_id,
            segment.name if _is_edited(segment) else name,
            name,
            _description(segment.traits, hide_values=True),
            tuple(trait._replace(own=0.0, overall=0.0, value=None) for trait in segment.traits),
        )
        for segment, name in zip(segments, hidden, strict=True)
    )


def segments_table(segments: Sequence[Segment], sizes: Sequence[int]) -> pa.Table:
    """Return the names and descriptions as the ``segments`` table of the run folder."""
    rows = segments_summary(segments, sizes)
    return pa.Table.from_pylist(rows, schema=SEGMENTS_SCHEMA)


def segments_summary(segments: Sequence[Segment], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return the same as plain values."""
    n_rows = max(sum(sizes), 1)
    return [
        {
            "cluster_id": segment.cluster_id,
            "name": segment.name,
            "size": size,
            "share": size / n_rows,
            "description": segment.description,
        }
        for segment, size in zip(segments, sizes if segments else (), strict=True)
    ]


def _is_edited(segment: Segment) -> bool:
    return segment.name != segment.draft


def _description(traits: Sequence[Trait], *, hide_values: bool = False) -> str:
    say = _hidden if hide_values else _told
    told = "; ".join(say(trait) for trait in traits[:_DESCRIBED])
    return told or "no column sets it apart"


def _told(trait: Trait) -> str:
    feature = one_line(trait.feature)
    if trait.kind == "datetime":
        return f"{feature} around {day(trait.own)} (everyone {day(trait.overall)})"
    if trait.kind == "numeric":
        own, overall = apart(trait.own, trait.overall)
        return f"{feature} {own} on average (everyone {overall})"
    value = "1" if trait.kind == "boolean" else one_line(trait.value or "")
    shares = f"{percent(trait.own)} (everyone {percent(trait.overall)})"
    return f"{feature} is {value} for {shares}"


def _hidden(trait: Trait) -> str:
    feature = one_line(trait.feature)
    if trait.kind in ("categorical", "boolean"):
        return f"{feature} is distributed differently"
    more = {"numeric": ("above", "below"), "datetime": ("later than", "earlier than")}[trait.kind]
    return f"{feature} is {more[trait.z < 0]} everyone's"


# -- as data ---------------------------------------------------------------------------


def segments_to_dicts(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """Return the segments as a model keeps them, JSON-able."""
    return [
        segment._asdict() | {"traits": [list(trait) for trait in segment.traits]}
        for segment in segments
    ]


def segments_from_dicts(data: Any) -> tuple[Segment, ...]:
    """Rebuild what `segments_to_dicts` gave.

    Raises
    ------
    ModelError
        If it is anything else.
    """
    try:
        found = tuple(_segment(item) for item in data)
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(
            "the names of the model's segments are damaged; fit the model again"
        ) from error
    ids = [segment.cluster_id for segment in found]
    if ids != sorted(set(ids)) or min(ids, default=0) < 0:
        raise ModelError("the model's segments are not in the order of ids; fit the model again")
    return found


def _segment(item: Mapping[str, Any]) -> Segment:
    texts = [item[name] for name in ("name", "draft", "description")]
    traits = tuple(Trait(*trait) for trait in item["traits"])
    sound = all(isinstance(text, str) for text in texts) and all(
        isinstance(trait.feature, str)
        and trait.kind in ("numeric", "boolean", "datetime", "categorical")
        and all(isinstance(n, (int, float)) for n in (trait.z, trait.own, trait.overall))
        and isinstance(trait.value, str | None)
        and (trait.value is not None or trait.kind != "categorical")
        for trait in traits
    )
    if not sound:
        raise ValueError(item)
    name, draft, description = texts
    return Segment(int(item["cluster_id"]), name, draft, description, traits)
