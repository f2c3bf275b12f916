"""A model as SQL gives every row the id that `gpuseg assign` gives it."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import sqlglot

import gpuseg
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.errors import ModelError, SettingsError
from gpuseg.features import encode_features
from gpuseg.features.text import DATE_STYLES
from gpuseg.outputs.reuse import encoder_of
from gpuseg.outputs.scoring import DIALECTS, model_document, scoring_query
from gpuseg.outputs.scoring.steps import STEPS
from gpuseg.outputs.scoring.texts import _DATES
from gpuseg.records import Table
from gpuseg.tables import Output, locate, publish, read_table

ROOT = Path(__file__).parents[2]
TABLES = {
    "gluon_train": ROOT / "examples" / "gluon_train.parquet",
    "CC_GENERAL": ROOT / "tests" / "data" / "CC GENERAL.csv",
    "Telco": ROOT / "tests" / "data" / "Telco-Customer-Churn.csv",
}
QUICK = {"n_init": 1, "sample_size": 500}


def query_of(model, dialect: str, table: str, inner: bool) -> str:
    """Return the query; with `inner`, what it computed on the way comes with the rows."""
    query = scoring_query(model, dialect, table)
    steps = ", features.*, distances.*" if inner else ""
    return query.replace("SELECT source.*", f"SELECT source.*{steps}", 1)


def in_duckdb(model, table: pa.Table, _request, inner: bool = False) -> pa.Table:
    with duckdb.connect() as connection:
        connection.register("rows", table)
        connection.execute("SET TimeZone = 'America/New_York'; CREATE TABLE t AS FROM rows")
        return connection.sql(query_of(model, "duckdb", "main.t", inner)).to_arrow_table()


def in_postgres(model, table: pa.Table, request, inner: bool = False) -> pa.Table:
    import adbc_driver_postgresql.dbapi as driver

    server = request.getfixturevalue("postgres_server")
    publish([Output(locate("public.t", warehouse=server.url()), table)])
    with driver.connect(server.url()) as connection, connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'America/New_York'")
        cursor.execute(query_of(model, "postgres", "public.t", inner))
        return cursor.fetch_arrow_table()


ENGINES = {"duckdb": in_duckdb, "postgres": in_postgres}
engines = pytest.mark.parametrize("engine", ENGINES)


def wrong_ids(engine, model, table, request) -> int:
    """Return how many rows get another id than `gpuseg assign` gives them."""
    numbered = table.append_column("row", pa.array(range(table.num_rows)))
    expected = gpuseg.assign(table, model).labels
    scored = ENGINES[engine](model.model, numbered, request)
    assert scored.column_names == [*numbered.column_names, "cluster_id"]
    assert scored.num_rows == table.num_rows
    found = np.full(table.num_rows, -1)
    found[scored["row"].to_numpy()] = scored["cluster_id"].to_numpy()
    return int((found != expected).sum())


@pytest.fixture(scope="module")
def real(request):
    """Return each real table with a model of it."""
    known: dict[str, tuple] = {}

    def fitted(name: str) -> tuple:
        if name not in known:
            table = read_table(locate(str(TABLES[name]))).arrow
            known[name] = (table, gpuseg.segment(table, num_clusters=8, **QUICK))
        return known[name]

    return fitted


@pytest.mark.slow
@engines
@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_real_table_gets_the_same_id(real, name, engine, request):
    table, model = real(name)
    assert len(set(model.labels.tolist())) == 8
    assert wrong_ids(engine, model, table, request) == 0


@pytest.mark.slow
@engines
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Telco", {"dimension_reduction_threshold": 10}),
        ("CC_GENERAL", {"scaling": "robust", "transform": "none"}),
        ("CC_GENERAL", {"scaling": "none", "transform": "none"}),
    ],
)
def test_each_preparation_has_its_sql(name, settings, engine, request):
    table = read_table(locate(str(TABLES[name]))).arrow
    model = gpuseg.segment(table, num_clusters=5, **settings, **QUICK)
    if "dimension_reduction_threshold" in settings:
        assert model.n_features <= 10 < len(model.model.columns)
    assert wrong_ids(engine, model, table, request) == 0


CITIES = ["Rome", "Ōsaka", "O'Hare", None, " - "]
ODD = "we\"ird -- name\n'x' {}"


def everything(n: int = 400, seed: int = 0) -> pa.Table:
    """Return a table with one column of each kind that is read in its own way."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    amount = np.round(rng.gamma(2.0, 400.0, n) * (1 + group), 2)
    days = [dt.timedelta(int(d)) for d in group * 900 + rng.integers(0, 900, n)]
    day = [dt.date(2015, 1, 1) + later for later in days]
    ticks = rng.integers(0, 86_400_000_000, n)
    midnight = dt.time()
    moment = [
        dt.datetime.combine(d, midnight) + dt.timedelta(microseconds=int(t))
        for d, t in zip(day, ticks, strict=True)
    ]
    zones = rng.choice(["", "Z", "+02:00", "-0330"], n)
    gap = rng.random(n) < np.array([0.1, 0.1, 0.9])[group]
    european = [f"{v:,.2f}".translate(str.maketrans(",.", ".,")) for v in amount]
    return pa.table(
        {
            "euro": [f" €{text} " for text in european],
            "dollar": [f"$ {v:,.2f}" for v in amount[::-1]],
            "space": [f"{3 * v:,.2f}".replace(",", "\u00a0") for v in amount],
            "percent": [f"{v:.1f} %" for v in amount / 100],
            "science": [f"{v:.3e}" for v in amount * 1e-5],
            "plain": ["?" if lost else f"+{v}" for lost, v in zip(gap, amount, strict=True)],
            "iso": [f"{m.isoformat(sep=' ')}{z}" for m, z in zip(moment, zones, strict=True)],
            "german": [f"{d.day}.{d.month}.{d.year}" for d in day],
            "american": [f"{d.month:02}/{d.day:02}/{d.year} 9:05" for d in day],
            "date": pa.array(day[::-1], pa.date32()),
            "stamp": pa.array(moment, pa.timestamp("us")),
            "zoned": pa.array(moment[::-1], pa.timestamp("us", "Europe/Berlin")),
            "flag": pa.array(group == 1, mask=gap),
            "number flag": group == 2,
            "code": pa.array(rng.integers(0, 5, n) * 11, pa.int16()),
            "rate": pa.array(rng.choice([0.5, 1.0, 2.25, np.nan], n)),
            "float": np.where(gap, np.nan, rng.normal(size=n) + group),
            "single": pa.array(rng.normal(size=n) * 1e-3, pa.float32()),
            "money": pa.array(amount).cast(pa.decimal128(14, 2), safe=False),
            "city": pa.array(rng.choice(CITIES, n)).dictionary_encode(),
            ODD: group * 10 + rng.integers(0, 4, n),
        }
    )  # fmt: skip


def with_odd_rows(table: pa.Table) -> pa.Table:
    """Replace the first rows by values that a fitted model has never met."""
    odd = {
        "euro": ["", "n/a", "1.234.567,5", "€", "-€ 12,00", "1,2,3", "\u200b\u202f€7\t"],
        "plain": [".5", "5.", "-0", "1e999", "1e-320", "NaN", "١"],
        "iso": ["2024-02-30", "2024-02-29", "1799-12-31", "2200-01-01", "2023-13-01",
                "2016-2-3 24:00", "2017/07.08 1:02"],
        "german": ["31.4.2016", "30.4.2016", "0.1.2016", "29-2-2100", "29/2/2000", "1.1.16", None],
        "float": [np.inf, -np.inf, 1e200, -1e160, None, 1e-300, -0.0],
        "rate": [np.inf, 2.25, None, 7.0, np.nan, 1.0, -0.5],
        "code": [-1, 32767, None, 0, 44, 33, 5],
        "city": ["rome", "Rome ", "\u3000Ōsaka", "NULL", "Oslo", "", "<NA>"],
        "date": [dt.date(1799, 12, 31), dt.date(1800, 1, 1), dt.date(2199, 12, 31),
                 dt.date(2200, 1, 1), None, dt.date(1, 1, 1), dt.date(9999, 12, 31)],
        "flag": [None, True, False, None, True, False, None],
    }  # fmt: skip
    for name, values in odd.items():
        place = table.schema.get_field_index(name)
        rest = table[name].to_pylist()[len(values) :]
        kind = pa.string() if name == "city" else table[name].type
        table = table.set_column(place, name, pa.array([*values, *rest], kind))
    return table


@pytest.mark.slow
@engines
@pytest.mark.parametrize("settings", [{}, {"dimension_reduction_threshold": 12}])
def test_every_way_to_read_a_column_has_its_sql(engine, settings, request):
    model = gpuseg.segment(
        everything(),
        num_clusters=4,
        categorical_columns=("code", "rate", "city"),
        numeric_columns=("number flag",),
        **settings,
        **QUICK,
    )
    kept = set(model.model.columns)
    assert set(everything().column_names) - kept <= {"dollar"}
    kinds = {column["reading"]["kind"] for column in model.model.encoder_dict["columns"]}
    assert kinds == {"numeric", "categorical", "datetime"}
    assert any(column.get("missing_share") for column in model.model.encoder_dict["columns"])
    assert any(column.get("cycles") for column in model.model.encoder_dict["columns"])
    assert any(column.get("log_unit") for column in model.model.encoder_dict["columns"])
    for table in (everything(), everything(600, seed=1), with_odd_rows(everything(200, seed=2))):
        assert wrong_ids(engine, model, table, request) == 0


@pytest.mark.slow
@engines
def test_features_and_distances_on_the_way_are_those_of_gpuseg(engine, request):
    model = gpuseg.segment(
        everything(),
        num_clusters=4,
        categorical_columns=("code", "rate", "city"),
        dimension_reduction_threshold=99,
        **QUICK,
    ).model
    table = with_odd_rows(everything(300, seed=3))
    numbered = table.append_column("row", pa.array(range(table.num_rows)))
    scored = ENGINES[engine](model, numbered, request, inner=True).sort_by("row")
    encoder = encoder_of(model)
    _X, encoded = encode_features(NumPyBackend(), encoder, Table("t", table))
    names = [name for name in scored.column_names if re.fullmatch(r"x\d+", name)]
    assert len(names) > 20
    for name in names:
        expected = encoded[:, int(name[1:]) - 1]
        found = scored[name].to_numpy().astype(np.float32)
        np.testing.assert_array_max_ulp(found, expected, maxulp=2)
    differences = encoded[:, None, :].astype(np.float64) - model.centroids
    distances = (differences**2).sum(axis=2)
    for cluster in range(4):
        np.testing.assert_allclose(scored[f"d{cluster}"].to_numpy(), distances[:, cluster], 1e-6)


# -- the query itself --------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    return gpuseg.segment(
        everything(),
        num_clusters=3,
        categorical_columns=("code", "rate", "city"),
        dimension_reduction_threshold=20,
        **QUICK,
    ).model


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_query_is_one_select_in_its_dialect(small, dialect):
    query = scoring_query(small, dialect, 'shop."odd ""name"""')
    (statement,) = sqlglot.parse(query, read=dialect)
    assert isinstance(statement, sqlglot.exp.Select)
    assert 'FROM "shop"."odd ""name""" AS source' in query
    # a name can neither end its comment nor leave its quotes
    columns = {c.name for c in statement.find_all(sqlglot.exp.Column) if c.table == "source"}
    assert columns - {"*"} == set(small.columns)


def test_the_query_reads_like_its_steps(small):
    query = scoring_query(small, "duckdb", "shop.t")
    steps = re.findall(r"^\) AS (\w+)", query, re.MULTILINE)
    assert steps == list(STEPS)
    assert f"-- Segments of the gpuseg model '{small.name}'" in query


def test_without_a_table_name_the_models_table_is_meant(small):
    import dataclasses

    known = dataclasses.replace(small, input_name="shop.customers")
    assert 'FROM "shop"."customers" AS source' in scoring_query(known, "trino")
    for name in ("customers.csv", "query in duckdb:x"):
        with pytest.raises(SettingsError, match=r"give --input-table db\.table"):
            scoring_query(dataclasses.replace(small, input_name=name), "trino")
    with pytest.raises(SettingsError, match="no table of a warehouse"):
        scoring_query(small, "trino", "customers.csv")


def test_what_sql_cannot_do_is_refused(small):
    with pytest.raises(SettingsError, match=r"dialect is 'postgresql'.*did you mean"):
        scoring_query(small, "postgresql", "a.b")
    times = pa.table({"t": pa.array(range(0, 3000, 10), pa.time32("s")), "n": range(300)})
    model = gpuseg.segment(times, num_clusters=2, **QUICK).model
    with pytest.raises(ModelError, match=r"column 't' was of type time32.* 'gpuseg assign'"):
        scoring_query(model, "duckdb", "a.b")


def test_the_date_styles_are_those_of_the_reader():
    assert tuple(_DATES) == DATE_STYLES


# -- the document ------------------------------------------------------------------------


def test_the_document_alone_places_rows(small):
    document = json.loads(json.dumps(model_document(small), allow_nan=False))
    assert (document["format"], document["format_version"]) == ("gpuseg-model-document", 1)
    assert len(document["centroids"]) == document["n_clusters"] == 3
    assert np.array_equal(np.array(document["centroids"], np.float32), small.centroids)
    width = len(document["features"])
    assert np.array(document["projection"]["components"]).shape[1] == width
    assert [c["reading"]["column"] for c in document["encoder"]] == list(small.columns)
    assert {"settings", "versions", "k_scores", "input_name"} <= document.keys()
