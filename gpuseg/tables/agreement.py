"""Whether columns fit the place where they are to go."""

from __future__ import annotations

from collections.abc import Sequence

from gpuseg.errors import DataError, did_you_mean

SHOWN_NAMES = 10


def check_known(columns: Sequence[str], names: Sequence[str], display: str) -> None:
    """Refuse columns that a table has not got.

    Raises
    ------
    DataError
    """
    unknown = next((name for name in columns if name not in names), None)
    if unknown is not None:
        more = ", …" if len(names) > SHOWN_NAMES else ""
        raise DataError(
            f"column '{unknown}' is not in '{display}', which has "
            f"{', '.join(names[:SHOWN_NAMES])}{more}{did_you_mean(unknown, names)}"
        )


def check_names(names: Sequence[str], place: str) -> None:
    """Refuse names that `place` cannot tell apart.

    Raises
    ------
    DataError
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other is not name:
            raise DataError(
                f"columns '{other}' and '{name}' differ in case only, and {place} cannot hold "
                "both; write to a .parquet or .arrow file"
            )


def check_agreement(display: str, old: dict[str, str], new: dict[str, str]) -> None:
    """Refuse to append columns whose names or types are not those that are there.

    Raises
    ------
    DataError
    """
    wrong = [f"'{name}' is not in the table" for name in new if name not in old]
    wrong += [f"'{name}' is missing" for name in old if name not in new]
    wrong += [
        f"'{name}' is {old[name]} there, {kind} now"
        for name, kind in new.items()
        if name in old and old[name] != kind
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN_NAMES} more" if len(wrong) > SHOWN_NAMES else ""
        raise DataError(
            f"cannot append to '{display}', its columns differ: {'; '.join(wrong[:SHOWN_NAMES])}"
            f"{more}; nothing was written (--output-mode overwrite replaces the table)"
        )
