"""How far each column moved since the run before.

What a run saw is kept in its folder as ``drift_baseline.json``, and the next run measures its
own rows in the same bins. See docs/decisions/drift.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpuseg.errors import ModelError
from gpuseg.features import Encoder
from gpuseg.nightly.distribution import (
    Distribution,
    distribution,
    distribution_as,
    nothing_as,
)
from gpuseg.outputs.change_facts import DRIFT_SCHEMA
from gpuseg.outputs.json_safe import json_safe
from gpuseg.records import FeatureMatrix, Progress, Table, no_progress

log = logging.getLogger("gpuseg")

BASELINE = "drift_baseline.json"
_FORMAT = "gpuseg-drift-baseline"
_FORMAT_VERSION = 1

#: Share that an empty bin is counted with; an empty bin would make the index infinite.
FLOOR = 1e-4
#: Rows that are looked at: chance alone moves the index of so many by less than 0.0001.
MOST_ROWS = 1_000_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Baseline:
    """What a run saw of its columns.

    Parameters
    ----------
    n_rows
        All rows of the table; of a large one, `columns` are measured on a fair sample.
    columns
        Name -> distribution, of the columns that carry features.
    """

    n_rows: int
    columns: Mapping[str, Distribution]


def baseline(
    table: Table, features: FeatureMatrix, *, progress: Progress = no_progress
) -> Baseline:
    """Look at every column that carries features, one at a time."""
    columns = {}
    for number, name in enumerate(features.columns, start=1):
        looked_at = features.fair_column(table, name, MOST_ROWS)
        columns[name] = distribution(features.encoder.clean(looked_at, name))
        progress(number / len(features.columns))
    return Baseline(table.n_rows, columns)


def drift(
    before: Baseline,
    reader: Encoder,
    table: Table,
    features: FeatureMatrix,
    *,
    progress: Progress = no_progress,
) -> pa.Table:
    """Compare today's columns with those that an earlier run saw.

    Parameters
    ----------
    reader
        The earlier run's encoder: columns are read as they were read then, whatever became
        of them today.

    Returns
    -------
    pa.Table
        One row for each column, the one that moved most first, as `DRIFT_SCHEMA`:

        - ``status``: ``compared``; ``new``: it carries features today and did not then, so
          there is nothing to compare; ``gone``: the table lacks it; ``retyped``: it cannot be
          read as it was. The last two count as columns without any value.
        - ``psi``: see `population_stability_index`.
        - ``wasserstein``: see `wasserstein`, in the column's unit (days for dates);
          ``wasserstein_scaled``: divided by the earlier standard deviation. Null for texts.
        - means and medians of the rows that have a value, dates as days since 1970-01-01.
    """
    names = [*before.columns, *(n for n in features.columns if n not in before.columns)]
    found = []
    for number, name in enumerate(names, start=1):
        if name in before.columns:
            then = before.columns[name]
            status, now = _today(then, reader, table, features, name)
            found.append(_compared(name, status, then, now))
        else:
            looked_at = features.fair_column(table, name, MOST_ROWS)
            values = features.encoder.clean(looked_at, name)
            found.append(_new(name, distribution(values)))
        progress(number / len(names))
    counts = {"previous_n_rows": before.n_rows, "n_rows": table.n_rows}
    ranked = sorted(found, key=lambda row: -1.0 if row["psi"] is None else row["psi"], reverse=True)
    return pa.Table.from_pylist([row | counts for row in ranked], schema=DRIFT_SCHEMA)


def population_stability_index(before: Sequence[float], now: Sequence[float]) -> float:
    """Return how far shares moved: sum of (now - before) * ln(now / before).

    Shares below `FLOOR` are counted as `FLOOR`. The bin of rows without a value is one of
    them. Usually under 0.1 is called stable and over 0.25 a shift.

    References
    ----------
    Siddiqi, "Credit Risk Scorecards", 2006, chapter on scorecard monitoring. It is the
    symmetric divergence of Jeffreys, "An invariant form for the prior probability in
    estimation problems", 1946.

    Examples
    --------
    >>> round(population_stability_index([0.5, 0.5], [0.4, 0.6]), 4)
    0.0405
    """
    then, today = (np.maximum(np.asarray(shares), FLOOR) for shares in (before, now))
    return float(((today - then) * np.log(today / then)).sum())


def wasserstein(before: Sequence[float], now: Sequence[float]) -> float | None:
    """Return the first Wasserstein distance, from the means of equal slices.

    It is the mean distance of the quantile functions. Means of slices give at most the
    distance itself and at least the distance of the means; what is lost is bounded by the
    two ranges of values, divided by the number of slices, and nothing is lost in slices
    whose values all moved the same way.

    References
    ----------
    Vallender, "Calculation of the Wasserstein distance between probability distributions on
    the line", 1974.

    Examples
    --------
    >>> wasserstein([0.0, 1.0], [0.5, 1.5])
    0.5
    """
    if not len(before) or not len(now):
        return None
    return float(np.abs(np.asarray(before) - np.asarray(now)).mean())


def largest(table: pa.Table) -> tuple[float | None, str | None]:
    """Return the largest index of the drift table, and whose it is."""
    for row in table.select(["column", "psi"]).to_pylist():
        if row["psi"] is not None:
            return row["psi"], row["column"]
    return None, None


def baseline_text(seen: Baseline) -> str:
    """Return ``drift_baseline.json``."""
    columns = [{"column": name, **found.to_dict()} for name, found in seen.columns.items()]
    facts = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "n_rows": seen.n_rows,
        "columns": json_safe(columns),
    }
    return json.dumps(facts, ensure_ascii=False, allow_nan=False)


def read_baseline(run_dir: Path) -> Baseline | None:
    """Return what a run saw; None, with a word in the log, when that was not kept.

    A damaged file is no reason not to segment today's rows.
    """
    path = run_dir / BASELINE
    try:
        facts = json.loads(path.read_bytes())
        if (facts["format"], facts["format_version"]) != (_FORMAT, _FORMAT_VERSION):
            raise ValueError(f"it is of format {facts['format']} {facts['format_version']}")
        columns = {own["column"]: Distribution.from_dict(own) for own in facts["columns"]}
        return Baseline(int(facts["n_rows"]), columns)
    except FileNotFoundError:
        log.warning("drift is not measured: the run before kept no %s", BASELINE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("drift is not measured: '%s' is damaged: %s", path, str(error)[:200])
    return None


def _today(
    then: Distribution, reader: Encoder, table: Table, features: FeatureMatrix, name: str
) -> tuple[str, Distribution]:
    if table.arrow.schema.get_field_index(name) < 0:
        return "gone", nothing_as(then)
    try:
        values = reader.clean(features.fair_column(table, name, MOST_ROWS), name)
    except ModelError:
        return "retyped", nothing_as(then)
    return "compared", distribution_as(then, values)


def _compared(name: str, status: str, then: Distribution, now: Distribution) -> Row:
    distance = wasserstein(then.slices, now.slices)
    return {
        "column": name,
        "kind": then.kind,
        "status": status,
        "psi": population_stability_index(then.shares, now.shares),
        "wasserstein": distance,
        "wasserstein_scaled": distance / then.std if distance is not None and then.std else None,
        "previous_mean": then.mean,
        "mean": now.mean,
        "previous_median": then.median,
        "median": now.median,
        "previous_missing_share": then.missing_share,
        "missing_share": now.missing_share,
    }


def _new(name: str, now: Distribution) -> Row:
    nothing = dict.fromkeys(DRIFT_SCHEMA.names)
    own = {"mean": now.mean, "median": now.median, "missing_share": now.missing_share}
    return {**nothing, "column": name, "kind": now.kind, "status": "new", **own}
