"""How much memory a run may take: what the user said, or what is free."""

from __future__ import annotations

import re
from pathlib import Path

from gpuseg.errors import SettingsError

#: Share of the free memory that a run takes when it is not told: others live here too.
FREE_SHARE = 0.8

#: Python, the libraries, the compiled kernels, a forest and one block of rows: less never works.
LEAST_BYTES = 1 << 30

#: Where nobody tells what is free (macOS, Windows).
UNKNOWN_FREE_BYTES = 8 << 30

_UNITS = {"": 1, "b": 1} | {
    letter + ending: base**power
    for power, letter in enumerate("kmgt", start=1)
    for ending, base in (("b", 1000), ("ib", 1024), ("", 1024))
}

#: From so many bytes on, what a control group allows stands for "no limit".
_NO_LIMIT = 1 << 60


def memory_bytes(asked: str | None) -> int:
    """Return how many bytes a run may take.

    Parameters
    ----------
    asked
        ``8GiB``, ``8GB``, ``512MB``, ``50%`` of what is free, a number of bytes, or None for
        most of what is free.

    Raises
    ------
    SettingsError
        If it is none of these, or less than any run needs.

    Examples
    --------
    >>> memory_bytes("8GiB"), memory_bytes("1.5 GB")
    (8589934592, 1500000000)
    """
    if asked is None:
        return max(LEAST_BYTES, int(FREE_SHARE * free_bytes()))
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*|%)", asked.strip().lower())
    unit = found and (_UNITS.get(found[2]) if found[2] != "%" else free_bytes() / 100)
    if not found or unit is None:
        raise SettingsError(
            f"memory is '{asked}'; expected a size such as 8GiB, 8GB or 512MB, or a share of "
            "what is free such as 50%"
        )
    n_bytes = int(float(found[1]) * unit)
    if n_bytes < LEAST_BYTES:
        raise SettingsError(
            f"memory is '{asked}'; the least that works is {in_units(LEAST_BYTES)}, which Python "
            "and its libraries take most of"
        )
    return n_bytes


def free_bytes() -> int:
    """Return the memory that can be had now, in bytes: of the machine, or of a control group."""
    try:
        facts = Path("/proc/meminfo").read_text()
    except OSError:
        return UNKNOWN_FREE_BYTES
    found = re.search(r"MemAvailable:\s+(\d+) kB", facts)
    of_machine = int(found[1]) * 1024 if found else UNKNOWN_FREE_BYTES
    return max(0, min(of_machine, _free_in_group()))


def _free_in_group() -> int:
    """Return what the control group of this process leaves; of both versions of them."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            most = Path(limit).read_text().strip()
            if most != "max" and int(most) < _NO_LIMIT:
                return int(most) - int(Path(used).read_text())
        except (OSError, ValueError):
            continue
    return _NO_LIMIT


def in_units(n_bytes: float) -> str:
    """Say a number of bytes as people do.

    Examples
    --------
    >>> in_units(8 * 2**30), in_units(300 * 2**20)
    ('8.0 GiB', '300 MiB')
    """
    gibibytes = n_bytes / 2**30
    return f"{gibibytes:,.1f} GiB" if gibibytes >= 1 else f"{n_bytes / 2**20:,.0f} MiB"
