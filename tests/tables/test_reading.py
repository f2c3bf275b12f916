"""Files of every kind: what comes out, and what is said when it is not what it seems."""

import datetime as dt
import gzip
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.errors import DataError, SettingsError, SourceError, TableNotFoundError
from gpuseg.tables import Output, load, locate, peek, publish, read_table

ROWS = pa.table({"a": [1, 2, None], "b": ["x", "", None], "c": [0.5, -1e300, None]})
ALL = ["t.parquet", "t.arrow", "t.csv", "t.csv.gz", "t.tsv", "t.jsonl", "t.jsonl.gz", "parts/"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(place, **options):
    return read_table(locate(place), **options).arrow


def read_lines(*lines):
    Path("t.jsonl").write_text("\n".join(lines))
    return read("t.jsonl")


@pytest.mark.parametrize("place", ALL)
def test_every_format_keeps_rows_and_types(place):
    publish([Output(locate(place), ROWS)])
    assert read(place).equals(ROWS)
    assert read(place, columns=["c", "a"]).column_names == ["c", "a"]
    with pytest.raises(DataError, match="did you mean 'a'"):
        read(place, columns=["aa"])


@pytest.mark.parametrize("place", ALL)
def test_peek_agrees_with_reading(place):
    publish([Output(locate(place), ROWS)])
    summary = peek(locate(place))
    assert (summary.n_rows, summary.rows_exact) == (3, True)
    assert summary.columns == (("a", "int64"), ("b", "string"), ("c", "double"))
    assert summary.sample.equals(ROWS)


@pytest.mark.parametrize("place", ["t.parquet", "t.arrow", "t.csv", "parts/"])
def test_a_table_without_rows_is_a_table(place):
    publish([Output(locate(place), ROWS.slice(0, 0))])
    assert read(place).num_rows == 0
    assert read(place).column_names == ["a", "b", "c"]
    assert peek(locate(place)).n_rows == 0


KINDS = pa.table(
    {
        "i8": pa.array([1], pa.int8()), "u64": pa.array([2**64 - 1], pa.uint64()),
        "f32": pa.array([0.1], pa.float32()), "dec": pa.array([Decimal("1.50")]),
        "ns": pa.array([1], pa.timestamp("ns", "Europe/Rome")), "day": [dt.date(2024, 1, 1)],
        "time": pa.array([1], pa.time64("us")), "for": pa.array([1], pa.duration("s")),
        "word": pa.array(["x"]).dictionary_encode(), "list": [[1, None]],
        "struct": [{"a": 1, "b": "x"}], "bytes": [b"\x00"],
        "large": pa.array(["x"], pa.large_string()),
        "nothing": pa.nulls(1), "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
    }
)  # fmt: skip


@pytest.mark.parametrize("place", ["t.parquet", "t.arrow"])
def test_arrow_types_come_back(place):
    publish([Output(locate(place), KINDS)])
    assert read(place).schema == KINDS.schema
    assert read(place).equals(KINDS)


@pytest.mark.parametrize("place", ["t.csv", "t.jsonl"])
def test_text_can_hold_every_type(place):
    publish([Output(locate(place), KINDS)])
    assert read(place).column_names == KINDS.column_names


TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, st.none() | st.floats(allow_nan=False)), max_size=5))
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_text_files_read_back_equal(tmp_path_factory, suffix, rows):
    rows = [("word", "wörd", 0.5), *rows]  # keeps the columns what they are
    columns = dict(zip(["s", "t", "x"], map(list, zip(*rows, strict=True)), strict=True))
    place = f"{tmp_path_factory.getbasetemp()}/any.{suffix}"
    publish([Output(locate(place), pa.table(columns))])
    assert read(place).to_pydict() == columns


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, max_size=5))
def test_one_column_reads_back_equal(tmp_path_factory, texts):
    place = f"{tmp_path_factory.getbasetemp()}/one.csv"
    publish([Output(locate(place), pa.table({"s": ["word", *texts]}))])
    assert read(place).to_pydict() == {"s": ["word", *texts]}


# -- JSON lines --------------------------------------------------------------------------


def test_json_text_stays_text():
    table = read_lines('{"d": "2024-01-01", "n": {"t": "2024-01-01 10:00:00"}, "i": 1}')
    assert table.to_pylist() == [{"d": "2024-01-01", "n": {"t": "2024-01-01 10:00:00"}, "i": 1}]


def test_json_integers_are_not_rounded():
    assert read_lines('{"a": 12345678901234567890}', '{"a": 1}').to_pydict() == {
        "a": [Decimal(12345678901234567890), Decimal(1)]
    }
    assert read_lines('{"a": 1e20}', '{"a": 0.5}').to_pydict() == {"a": [1e20, 0.5]}
    with pytest.raises(DataError, match=r"beyond 2\^53"):
        read_lines('{"a": 9007199254740993}', '{"a": 0.5}')


def test_json_keys_may_be_missing():
    assert read_lines('{"a": 1}', "", '{"b": "x"}').to_pydict() == {
        "a": [1, None],
        "b": [None, "x"],
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"a": 1}', '{"a": "x"}'], "line 2"),
        (["[1, 2]"], "line 1"),
        (['{"a": 1'], "line 1"),
        (['{"a": 1, "a": 2}'], "line 1"),
        ([""], "Empty"),
    ],
)
def test_broken_json_is_said(lines, message):
    with pytest.raises(DataError, match=message):
        read_lines(*lines)


# -- files that are not what they seem ---------------------------------------------------


@pytest.mark.parametrize("place", [p for p in ALL if p != "parts/"])
def test_a_missing_file_gets_a_hint(place):
    Path("s" + place[1:]).write_text("a")
    for look in (read_table, peek):
        with pytest.raises(TableNotFoundError, match=f"did you mean 's{place[1:]}'"):
            look(locate(place))
    with pytest.raises(TableNotFoundError, match=r"no file|folder"):
        read(f"none/{place}")


def test_a_folder_without_parts_is_said():
    Path("parts").mkdir()
    with pytest.raises(TableNotFoundError, match=r"no \.parquet"):
        read("parts")
    with pytest.raises(TableNotFoundError):
        read("none/")


@pytest.mark.parametrize("place", ["t.parquet", "t.arrow", "t.csv", "t.jsonl"])
def test_rubbish_is_said(place):
    Path(place).write_bytes(b"")
    with pytest.raises(DataError, match=place):
        read(place)
    Path(place).write_bytes(bytes(range(256)) * 20)
    with pytest.raises(DataError, match=place):
        read(place)


@pytest.mark.parametrize("place", ["t.parquet", "t.arrow", "t.csv.gz", "t.jsonl.gz"])
def test_half_a_file_is_said(place):
    publish([Output(locate(place), pa.table({"a": list(range(10_000))}))])
    content = Path(place).read_bytes()
    Path(place).write_bytes(content[: len(content) // 2])
    with pytest.raises((DataError, SourceError), match=place):
        read(place)


def test_gzip_with_rubbish_is_said():
    Path("t.csv.gz").write_bytes(gzip.compress(b"a\n1\n")[:-9] + b"rubbish")
    with pytest.raises((DataError, SourceError), match=r"t\.csv\.gz"):
        read("t.csv.gz")


def test_names_that_a_table_cannot_have_are_refused():
    for names, message in ((["a", "a"], "two columns called 'a'"), (["a", ""], "has no name")):
        pq.write_table(pa.table([[1], [2]], names=names), "t.parquet")
        with pytest.raises(DataError, match=message):
            read("t.parquet")
    pq.write_table(pa.table({}), "t.parquet")
    with pytest.raises(DataError, match="no columns"):
        read("t.parquet")


def test_a_query_needs_a_warehouse():
    publish([Output(locate("t.csv"), ROWS)])
    with pytest.raises(SettingsError, match="warehouse"):
        read_table(locate("t.csv"), query="SELECT 1")


# -- load --------------------------------------------------------------------------------


def test_load_puts_a_file_into_the_warehouse():
    Path("t.csv").write_text("id;name\n007;x\n008;y\n")
    loaded = load(locate("t.csv"), locate("db.t"))
    assert loaded.n_rows == 2
    assert "semicolon" in loaded.notes[0]
    load(locate("t.csv"), locate("db.t"), append=True)
    assert read("db.t").to_pydict() == {"id": ["007", "008"] * 2, "name": ["x", "y"] * 2}
    for file, table in (("db.t", "db.u"), ("t.csv", "u.csv")):
        with pytest.raises(SettingsError, match="expected FILE"):
            load(locate(file), locate(table))


def test_progress_ends_at_one():
    publish([Output(locate(place), ROWS) for place in (*ALL, "s.t")])
    for place in (*ALL, "s.t"):
        seen: list[float] = []
        read(place, progress=seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 1.0


def test_a_truncated_gzip_file_is_damaged_not_out_of_reach(tmp_path):
    path = tmp_path / "cut.csv.gz"
    whole = gzip.compress(b"".join(b"%d,%d\n" % (i, i * i % 977) for i in range(20_000)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged"):
        read_table(locate(str(path)))
