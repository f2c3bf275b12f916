"""`gpuseg buckets` as a user types it: what it prints, writes, draws and refuses."""

from __future__ import annotations

import json
from datetime import date, timedelta
from xml.etree import ElementTree as ET

import duckdb
import numpy as np
import polars as pl
import pytest
from gpuseg_process import gpuseg


def customers(n: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, n)
    days = rng.integers(0, 30, n) + np.array([0, 200, 500])[group]
    return pl.DataFrame(
        {
            "id": [f"C{i:05}" for i in range(n)],
            "age": rng.normal(np.array([25, 45, 70])[group], 2).round().astype(int),
            "last <b>purchase</b>": [date(2024, 6, 30) - timedelta(days=int(d)) for d in days],
            "city": np.array(["Rome", "Oslo", "Lima"])[group],
        }
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("buckets")
    customers().write_parquet(folder / "c.parquet")
    process = gpuseg(folder, "run", "--input-table", "c.parquet", "--output-table", "out.parquet",
                     "--model-name", "m", "--num-clusters", "3")  # fmt: skip
    assert process.returncode == 0, process.stderr
    return folder


def test_the_table_the_json_and_the_pictures_say_the_same(shop):
    process = gpuseg(
        shop, "buckets", "--input-table", "c.parquet", "--model-name", "m", "--json",
        "--output-table", "shop.buckets", "--plots", "pictures",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert (found["n_rows"], found["n_clusters"]) == (400, 3)
    assert [column["column"] for column in found["columns"]] == ["age", "last <b>purchase</b>"]
    with duckdb.connect(str(shop / "gpuseg.duckdb"), read_only=True) as connection:
        written = connection.sql("FROM shop.buckets").pl()
        for column in found["columns"]:
            assert [b["method"] for b in column["bucketings"]] == [
                "k_means", "segments", "equal_width", "quantiles", "round",
            ]  # fmt: skip
            for bucketing in column["bucketings"]:
                rows = written.filter(column=column["column"], method=bucketing["method"])
                assert rows["label"].to_list() == bucketing["labels"]
                assert rows["n_rows"].to_list() == bucketing["n_rows"]
                assert rows["high"].to_list()[:-1] == bucketing["cuts"]
                assert rows["low"].to_list()[1:] == bucketing["cuts"]
                assert rows["share"].sum() == pytest.approx(1)
                counted = dict(
                    connection.sql(
                        f"SELECT {bucketing['sql']}, count(*) FROM '{shop}/c.parquet' GROUP BY 1"
                    ).fetchall()
                )
                expected = zip(bucketing["labels"], bucketing["n_rows"], strict=True)
                assert counted == {label: n for label, n in expected if n}
    age = found["columns"][0]["bucketings"][1]
    assert len(age["labels"]) == 3
    assert age["separation"] > 0.95
    for picture in found["plots"]:
        svg = ET.parse(shop / picture).getroot()
        assert svg.tag.endswith("svg")
        assert (shop / picture).with_suffix(".png").stat().st_size > 5000
    text = (shop / found["plots"][1]).read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "months before 2024-06-30" in text


def test_what_people_read(shop):
    process = gpuseg(shop, "buckets", "--input-table", "out.parquet", "--columns", "age")
    assert process.returncode == 0, process.stderr
    assert "k-means" in process.stdout
    assert "WHEN \"age\" < 40 THEN 'under 40'" in process.stdout
    assert "separation" not in process.stdout  # no model was named


def test_the_columns_of_an_earlier_run_are_not_cut(shop):
    process = gpuseg(shop, "buckets", "--input-table", "out.parquet", "--json")
    names = [column["column"] for column in json.loads(process.stdout)["columns"]]
    assert names == ["age", "last <b>purchase</b>"]


def test_as_many_buckets_as_asked_for(shop):
    process = gpuseg(shop, "buckets", "--input-table", "c.parquet", "--columns", "age", "--json",
                     "--num-clusters", "5")  # fmt: skip
    (column,) = json.loads(process.stdout)["columns"]
    assert [score["n_buckets"] for score in column["k_scores"]] == [5]
    assert len(column["bucketings"][0]["labels"]) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no input"),
        (("--input-table", "c.parquet", "--columns", "agee"), "did you mean 'age'"),
        (("--input-table", "c.parquet", "--columns", "city"), "no column of"),
        (("--input-table", "c.parquet", "--model-name", "mm"), "did you mean 'm'"),
        (("--input-table", "c.parquet", "--output-table", "c.parquet"), "overwrite the input"),
        (("--input-query", "FROM 'c.parquet'", "--output-table", "c.parquet"), "overwrite"),
        (("--input-table", "c.parquet", "--plots", "c.parquet"), "is a file"),
        (("--input-table", "c.parquet", "--columns", "age", "--min-clusters", "1"), "at least 2"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(shop, arguments, words):
    before = sorted(shop.rglob("*"))
    process = gpuseg(shop, "buckets", *arguments, "--quiet")
    assert process.returncode == 2, process.stderr
    assert words in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stdout == ""
    assert sorted(shop.rglob("*")) == before
