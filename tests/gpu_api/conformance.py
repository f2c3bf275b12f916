"""Hold gpuseg's calls of GPU libraries against a snapshot of their signatures."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpu_api.signatures import mistake
from gpu_api.uses import Use, uses_in

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gpuseg"

#: Where the backend declares its calls, those of methods included, which no source tells.
TABLE = "gpuseg.backends.gpu.libraries"


def mistakes(
    snapshot: Mapping[str, Any], uses: Iterable[Use] | None = None, calls: Any = None
) -> list[str]:
    """Return one line for each use that the snapshot contradicts.

    Parameters
    ----------
    snapshot
        As `snapshot.py` makes it.
    uses, calls
        By default all uses in the package and the benchmarks, and the table of calls.
    """
    uses = source_uses() if uses is None else uses
    calls = declared_calls() if calls is None else calls
    return [f"{use.place}: {wrong}" for use in (*uses, *calls) if (wrong := _wrong(use, snapshot))]


def source_uses() -> list[Use]:
    """Return every use in the package and the benchmarks."""
    return uses_in(PACKAGE) + uses_in(ROOT / "bench")


def declared_calls() -> list[Use]:
    """Return the backend's table of calls as uses; a call is given everything it declares."""
    if importlib.util.find_spec(TABLE.rpartition(".")[0]) is None:
        return []
    return [use_of(name, call) for name, call in importlib.import_module(TABLE).CALLS.items()]


def use_of(name: str, call: Any) -> Use:
    """Turn an entry of the table, with target, positional and keywords, into a use."""
    positional = tuple(p for p in call.positional if p != "self")
    keywords = tuple(call.keywords)
    place = f"CALLS[{name!r}]"
    return Use(place, call.target, True, len(positional), keywords, names=positional)


def _wrong(use: Use, snapshot: Mapping[str, Any]) -> str | None:
    signature = snapshot["signatures"].get(use.name)
    if signature is None and use.guessed:
        return None
    if signature is None:
        return None if use.name in snapshot["others"] else f"there is no {use.name}"
    if not use.called:
        return None
    found = mistake(signature, use.n_positional, use.keywords, complete=not use.open_ended)
    # a table also says which parameters it means by position
    found = found or mistake(signature, 0, (*use.names, *use.keywords), complete=False)
    return found and f"{use.name}: {found}"
