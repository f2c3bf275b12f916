"""SQL that reads texts as `gpuseg.features` reads them: trimmed, as numbers, as dates."""

from __future__ import annotations

from gpuseg.features.arrow import PLACEHOLDERS
from gpuseg.features.reading import Reading
from gpuseg.features.text import NumberStyle
from gpuseg.outputs.scoring.dialects import SqlDialect, identifier, literal
from gpuseg.outputs.scoring.steps import Steps

#: By number, because most of them cannot be seen: those around a text, those that end a
#: number, and those between thousands.
_OUTER_BLANKS = (9, 10, 11, 12, 13, 32, 0xA0, 0x202F, 0x2007, 0x3000, 0xFEFF, 0x200B)
_INNER_BLANKS = (9, 10, 12, 13, 32)
_THOUSANDS_BLANKS = (32, 0xA0, 0x202F)

_UNITS = "$€£¥₹"
_TIME = (
    r"(?:[T ]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}(?:\.[0-9]+)?))?"
    r" ?(Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
)
_DATES = {
    "year-month-day": (r"^([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})", ("year", "month", "day")),
    "day.month.year": (r"^([0-9]{1,2})[-/.]([0-9]{1,2})[-/.]([0-9]{4})", ("day", "month", "year")),
    "month/day/year": (r"^([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})", ("month", "day", "year")),
}
#: Groups of `_TIME`, after the three of the date.
_CLOCK = {"hour": 4, "minute": 5, "second": 6}
_ZONE = 7

_UNIX_DAY = 719_163  # 1970-01-01, counted from 0001-01-01


def trimmed(steps: Steps, dialect: SqlDialect, reading: Reading, alias: str) -> str:
    """Let steps trim a text column; placeholders become NULL."""
    blanks = steps.add("blanks", "signs", " || ".join(f"chr({code})" for code in _OUTER_BLANKS))
    text = f"CAST(source.{identifier(reading.column)} AS {dialect.text})"
    bare = steps.add("trimmed", alias, f"trim(BOTH {blanks} FROM {text})", reading.column)
    nothing = ", ".join(map(literal, PLACEHOLDERS))
    present = f"CASE WHEN lower({bare}) NOT IN ({nothing}) THEN {bare} END"
    return steps.add("texts", alias, present, reading.column)


def number_of_text(steps: Steps, dialect: SqlDialect, reading: Reading, alias: str) -> str:
    """Let steps read a text column as numbers; NULL where it is none."""
    text = trimmed(steps, dialect, reading, alias)
    blanks = _signs(dialect, _INNER_BLANKS)
    in_front = dialect.substitute.format(
        x=text, pattern=literal(f"^([+-]?){blanks}*[{_UNITS}]{blanks}*"), by=literal(dialect.group)
    )
    behind = dialect.substitute.format(
        x=in_front, pattern=literal(f"{blanks}*[{_UNITS}%]$"), by="''"
    )
    bare = steps.add("parts", alias, behind, reading.column)
    digits = _digits(dialect, reading.number_style, bare)
    found = steps.add("digits", alias, digits, f"{reading.column}: as {_example(reading)}")
    return dialect.number.format(x=found)


def _digits(dialect: SqlDialect, style: NumberStyle, bare: str) -> str:
    """Return a number's text as SQL spells it, or NULL."""
    fraction = rf"(\{style.decimal}[0-9]*)?"
    group = rf"\{style.thousands}"
    if style.thousands == " ":
        group = _signs(dialect, _THOUSANDS_BLANKS)
    if style.thousands:
        pattern = rf"^[+-]?([0-9]+|[1-9][0-9]{{0,2}}({group}[0-9]{{3}})+){fraction}$"
    else:
        whole = rf"[0-9]+{fraction}|\{style.decimal}[0-9]+"
        pattern = rf"^[+-]?({whole})([eE][+-]?[0-9]{{1,3}})?$"
    spelt = bare
    if style.thousands:
        spelt = dialect.substitute.format(x=spelt, pattern=literal(group), by="''")
    if style.decimal != ".":
        spelt = f"replace({spelt}, {literal(style.decimal)}, '.')"
    return f"CASE WHEN {dialect.matches.format(x=bare, pattern=literal(pattern))} THEN {spelt} END"


def _example(reading: Reading) -> str:
    decimal, thousands = reading.number_style
    return f"1{thousands}234{decimal}5"


def day_of_text(steps: Steps, dialect: SqlDialect, reading: Reading, alias: str) -> str:
    """Let steps read a text column as days since 1970-01-01; NULL where it is no date."""
    text = trimmed(steps, dialect, reading, alias)
    beginning, order = _DATES[reading.date_style]
    pattern = literal(beginning + _TIME)

    def part(name: str, group: int, kind: str, default: str) -> str:
        found = dialect.extract.format(x=text, pattern=pattern, group=group)
        value = f"CAST(NULLIF({found}, '') AS {kind})" if kind else f"NULLIF({found}, '')"
        comment = f"{reading.column}: {name}"
        return steps.add("parts", f"{alias}_{name}", f"COALESCE({value}, {default})", comment)

    date = {name: part(name, i, "INTEGER", "0") for i, name in enumerate(order, start=1)}
    clock = {name: part(name, group, dialect.double, "0") for name, group in _CLOCK.items()}
    zone = part("zone", _ZONE, "", "'Z'")
    seconds = f"{clock['hour']} * 3600 + {clock['minute']} * 60 + {clock['second']}"
    day = steps.add("digits", alias, _day_number(date), f"{reading.column}: day")
    offset = steps.add("digits", f"{alias}_offset", _zone_seconds(zone), reading.column)
    at = f"{day} + ({seconds} - {offset}) / 86400e0"
    possible = f"{clock['hour']} < 24 AND {clock['minute']} < 60 AND {clock['second']} < 61"
    return f"CASE WHEN {possible} THEN {at} END"


def _day_number(date: dict[str, str]) -> str:
    """Return the day's number in the Gregorian calendar, or NULL where there is no such day."""
    year, month, day = date["year"], date["month"], date["day"]
    leap = f"({year} % 4 = 0 AND {year} % 100 <> 0 OR {year} % 400 = 0)"
    length = (
        f"CASE WHEN {month} IN (4, 6, 9, 11) THEN 30 WHEN {month} <> 2 THEN 31 "
        f"WHEN {leap} THEN 29 ELSE 28 END"
    )
    before = " ".join(
        f"{sign} floor(({year} - 1) / {years}e0)"
        for sign, years in (("+", 4), ("-", 100), ("+", 400))
    )
    shift = f"CASE WHEN {month} <= 2 THEN 0 WHEN {leap} THEN -1 ELSE -2 END"
    number = (
        f"365e0 * ({year} - 1) {before} + floor((367e0 * {month} - 362) / 12) + {shift} + {day} "
        f"- {_UNIX_DAY}"
    )
    return f"CASE WHEN {month} BETWEEN 1 AND 12 AND {day} BETWEEN 1 AND {length} THEN {number} END"


def _zone_seconds(zone: str) -> str:
    hours, minutes = f"substr({zone}, 2, 2)", f"substr({zone}, length({zone}) - 1, 2)"
    total = f"CAST({hours} AS INTEGER) * 3600 + CAST({minutes} AS INTEGER) * 60"
    sign = f"CASE substr({zone}, 1, 1) WHEN '-' THEN -1 ELSE 1 END"
    return f"CASE {zone} WHEN 'Z' THEN 0 ELSE {sign} * ({total}) END"


def _signs(dialect: SqlDialect, codes: tuple[int, ...]) -> str:
    return "[" + "".join(dialect.code.format(code=code) for code in codes) + "]"
