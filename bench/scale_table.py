"""A table of customers of any length, made and written in blocks: for `scale.py`.

Six groups, twenty columns: amounts with heavy tails, counts, rates, categories of few and of
many values, a flag, a date, and missing values where customers did not tell.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

N_GROUPS = 6
BLOCK_ROWS = 500_000
SHARES = (0.30, 0.22, 0.18, 0.14, 0.10, 0.06)
CHANNELS = ("web", "shop", "app", "phone")
REGIONS = tuple(f"region {i:02d}" for i in range(40))
PLANS = ("free", "basic", "plus", "business")
FIRST_DAY, N_DAYS = 18_262, 1_500  # from 2020-01-01


def write_table(path: Path, n_rows: int, seed: int = 0) -> None:
    """Write the table to a Parquet file, a row group for each block."""
    writer = None
    for number, start in enumerate(range(0, n_rows, BLOCK_ROWS)):
        block = _block(
            min(BLOCK_ROWS, n_rows - start), start, np.random.default_rng([seed, number])
        )
        writer = writer or pq.ParquetWriter(path, block.schema)
        writer.write_table(block)
    if writer is not None:
        writer.close()


def _block(n_rows: int, start: int, rng: np.random.Generator) -> pa.Table:
    group = rng.choice(N_GROUPS, size=n_rows, p=SHARES)
    columns: dict[str, pa.Array] = {
        "customer": pa.array(np.arange(start, start + n_rows)),
        "channel": _category(CHANNELS, group, rng),
        "region": _category(REGIONS, group // 3, rng, evenly=0.8),
        "plan": _category(PLANS, group, rng),
        "newsletter": pa.array(rng.random(n_rows) < np.linspace(0.1, 0.9, N_GROUPS)[group]),
        "joined": _dates(group, rng),
    }
    for number, name in enumerate(("spend", "refunds", "basket", "largest_order")):
        amounts = np.exp(_around(group, number, 0.7, rng) + 3)
        columns[name] = _some_missing(np.round(amounts, 2), 0.02 * number, rng)
    for number, name in enumerate(("orders", "visits", "tickets"), 4):
        columns[name] = pa.array(rng.poisson(np.exp(_around(group, number, 0.3, rng) / 2 + 1.5)))
    rates = ("age", "discount", "margin", "opened", "clicked", "rating", "distance")
    for number, name in enumerate(rates, 7):
        values = np.round(_around(group, number, 0.8, rng) * 10 + 40, 3)
        columns[name] = _some_missing(values, 0.03 if name in ("age", "rating") else 0.0, rng)
    return pa.table(columns)


def _around(group: np.ndarray, column: int, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Draw around the centre that a column has for each group."""
    centres = np.random.default_rng(column).normal(size=N_GROUPS)
    return centres[group] + spread * rng.standard_normal(len(group))


def _category(
    names: tuple[str, ...], group: np.ndarray, rng: np.random.Generator, evenly: float = 0.3
) -> pa.Array:
    own = (group * 7 + rng.integers(0, max(1, len(names) // 6), len(group))) % len(names)
    anything = rng.integers(0, len(names), len(group))
    codes = np.where(rng.random(len(group)) < evenly, anything, own)
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names)).cast(
        pa.string()
    )


def _dates(group: np.ndarray, rng: np.random.Generator) -> pa.Array:
    days = FIRST_DAY + N_DAYS * rng.beta(1 + group / 2, 2, len(group))
    return pa.array(days.astype(np.int32)).cast(pa.date32())


def _some_missing(values: np.ndarray, share: float, rng: np.random.Generator) -> pa.Array:
    return pa.array(values, mask=rng.random(len(values)) < share if share else None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("n_rows", type=int)
    options = parser.parse_args()
    write_table(options.path, options.n_rows)
