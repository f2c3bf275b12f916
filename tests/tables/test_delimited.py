"""CSV: the dialect is found, what was found is said, and values are those of the file."""

import csv
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.errors import DataError, SettingsError
from gpuseg.tables import CsvOptions, locate, peek, read_table


def read(tmp_path, content, name="t.csv", **options):
    path = Path(tmp_path) / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(locate(str(path)), csv=CsvOptions(**options))


def values(table):
    return table.arrow.to_pydict()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,b\n1,x\n", {"a": [1], "b": ["x"]}),
        ("a;b\n1;x\n", {"a": [1], "b": ["x"]}),
        ("a\tb\n1\tx\n", {"a": [1], "b": ["x"]}),
        ("a|b\n1|x\n", {"a": [1], "b": ["x"]}),
        ("a,b\r\n1,x\r\n2,y", {"a": [1, 2], "b": ["x", "y"]}),
        ("a,b\r1,x\r", {"a": [1], "b": ["x"]}),
        ("a,b\n\n1,x\n\n\n", {"a": [1], "b": ["x"]}),
        ('a,b\n1,"x,\n""y"""\n', {"a": [1], "b": ['x,\n"y"']}),
        ('a,b\n1,"x\r\ny"\r\n', {"a": [1], "b": ["x\r\ny"]}),
        ('a,b\n"",\n', {"a": [""], "b": [None]}),
        ("a,b\n1, x \n", {"a": [1], "b": [" x "]}),
        ("a;b\n1,5;x\n,5;y\n", {"a": [1.5, 0.5], "b": ["x", "y"]}),
        ("a;b\n1,555;x\n", {"a": ["1,555"], "b": ["x"]}),
        ('a,b\n"1,5",x\n', {"a": [1.5], "b": ["x"]}),
        ("a,b\n'x,y',1\n'z',2\n", {"a": ["x,y", "z"], "b": [1, 2]}),
        ("a,b\nit's,1\n", {"a": ["it's"], "b": [1]}),
        ("a\n1\n\n2\n", {"a": [1, None, 2]}),
        ('a\n""\nx\n', {"a": ["", "x"]}),
        ("text\nHello, world\nbye; now\n", {"text": ["Hello, world", "bye; now"]}),
        ("a,b", {"a": [], "b": []}),
        ("a,b\n", {"a": [], "b": []}),
        ("1,2\n3,4\n", {"column_1": [1, 3], "column_2": [2, 4]}),
        ("1,5;2,5\n3,5;4,5\n", {"column_1": [1.5, 3.5], "column_2": [2.5, 4.5]}),
        ("id,2019,2020\n7,8,9\n", {"id": [7], "2019": [8], "2020": [9]}),
        ("a,a,,a_2\n1,2,3,4\n", {"a": [1], "a_2_": [2], "column_3": [3], "a_2": [4]}),
        ('"a\nb",c\n1,2\n', {"a\nb": [1], "c": [2]}),
        ("x,y\nNaN,1\n2,3\n", None),
    ],
)  # fmt: skip
def test_dialects(tmp_path, content, expected):
    if expected is None:
        assert str(values(read(tmp_path, content))["x"]) == "[nan, 2.0]"
    else:
        assert values(read(tmp_path, content)) == expected


def test_quirks_of_real_tables(tmp_path):
    # semicolons, a byte order mark, Windows line ends, no end of the last line
    campaign = b"\xef\xbb\xbfID;Income;Dt_Customer\r\n5524;58138;2012-09-04\r\n1;;2014-03-08"
    found = values(read(tmp_path, campaign))
    assert list(found) == ["ID", "Income", "Dt_Customer"]
    assert found["Income"] == [58138, None]
    assert str(found["Dt_Customer"][1]) == "2014-03-08"
    # blanks before words, and a blank among numbers
    census = "age,workclass,class\n39, State-gov, <=50K\n50, ?, >50K\n"
    assert values(read(tmp_path, census))["workclass"] == [" State-gov", " ?"]
    churn = "customerID,tenure,TotalCharges\n7590-VHVEG,1,29.85\n4472-LVYGI,0, \n"
    assert values(read(tmp_path, churn))["TotalCharges"] == ["29.85", " "]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", "UTF-8"),
        ("utf-8-sig", "UTF-8 with byte order mark"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16-LE"),
        ("cp1252", "cp1252"),
    ],
)
def test_encodings_are_found(tmp_path, encoding, said):
    text = "näme,ort\nJosé,Zürich\nZoë,Orléans\nChloé,Besançon\n"
    table = read(tmp_path, text.encode(encoding))
    assert values(table) == {
        "näme": ["José", "Zoë", "Chloé"],
        "ort": ["Zürich", "Orléans", "Besançon"],
    }
    assert f"encoding {said}," in table.notes[0]


def test_japanese_is_found(tmp_path):
    text = "名前,値\n東京都,1\n大阪府,2\n北海道札幌市,3\n"
    assert values(read(tmp_path, text.encode("cp932")))["名前"][2] == "北海道札幌市"


def test_a_foreign_letter_beyond_the_sample_is_found(tmp_path):
    rows = "a,b\n" + "1,x\n" * 200_000
    table = read(tmp_path, rows.encode() + "2,été\n".encode("cp1252"))
    assert table.arrow["b"][-1].as_py() == "été"
    assert "cp1252" in table.notes[0]


def with_cities(cities, n=300):
    """Lines as they come from a shop: one foreign word each, and short."""
    return "city,a,b\n" + "".join(f"{cities[i % len(cities)]},{i},{i % 7}\n" for i in range(n))


@pytest.mark.parametrize(
    ("cities", "encoding"),
    [
        ("São Paulo,Español,Malmö,Besançon,Århus", "cp1252"),
        ("Köln,Düsseldorf,Großenhain", "cp1252"),
        ("Logroño,Cádiz,Coruña", "cp1252"),
        ("København,Tromsø,Nærbø", "cp1252"),
        ("Forlì,Città,Genève,Nîmes", "cp1252"),
        ("Łódź,Kraków,Wrocław,Gdańsk,Częstochowa", "cp1250"),
        ("Plzeň,Třebíč,České Budějovice,Žďár", "cp1250"),
        ("Győr,Pécs,Székesfehérvár,Nyíregyháza", "cp1250"),
        ("Bucureşti,Iaşi,Braşov,Timişoara", "cp1250"),
        ("Čakovec,Varaždin,Poreč,Županja", "cp1250"),
        ("Москва,Казань,Омск,Новосибирск,Екатеринбург", "cp1251"),
        ("Αθήνα,Πάτρα,Λάρισα", "cp1253"),
        ("İstanbul,Şanlıurfa,Eskişehir,Muğla", "cp1254"),
        ("東京,大阪,札幌", "cp932"),
        ("北京,上海", "gb18030"),
    ],
)
def test_a_guessed_encoding_keeps_the_cities_and_is_a_warning(tmp_path, cities, encoding):
    table = read(tmp_path, with_cities(cities.split(",")).encode(encoding))
    assert set(values(table)["city"]) == set(cities.split(","))
    [warning] = table.warnings
    assert f"guessed as {encoding}" in warning
    assert "--csv-encoding" in warning


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_encoding_that_the_file_says_is_no_warning(tmp_path, encoding):
    assert not read(tmp_path, with_cities(["Malmö"]).encode(encoding)).warnings


def test_a_given_encoding_is_no_warning(tmp_path):
    assert not read(tmp_path, with_cities(["Malmö"]).encode("cp1252"), encoding="cp1252").warnings


@pytest.mark.parametrize("n_lines", [290, 40_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_utf8_with_foreign_lines_names_the_first(tmp_path, n_lines, end):
    good = with_cities(["São Paulo", "Malmö", "Łódź"], n_lines)
    bad = "Español,1,2\nÅrhus,3,4\n" * 5
    content = good.replace("\n", end).encode() + bad.replace("\n", end).encode("latin-1")
    with pytest.raises(DataError, match=rf"line {n_lines + 2} is not UTF-8.*--csv-encoding"):
        read(tmp_path, content)
    assert values(read(tmp_path, content, encoding="latin-1"))["city"][-1] == "Århus"


def test_a_null_character_is_text(tmp_path):
    assert values(read(tmp_path, "a,b\n1,some text with a \0 in it\n"))["b"] == [
        "some text with a \0 in it"
    ]


def test_gzip_is_told_by_content(tmp_path):
    content = gzip.compress(b"a,b\n1,x\n")
    assert values(read(tmp_path, content, "t.csv.gz")) == {"a": [1], "b": ["x"]}
    assert values(read(tmp_path, content, "t.csv")) == {"a": [1], "b": ["x"]}
    assert values(read(tmp_path, "a,b\n1,x\n", "t.csv.gz")) == {"a": [1], "b": ["x"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n1,2\n3\n", "line 3 has 1 of 2 values"),
        ("a,b\n1,2\n3,4,5\n6,7\n", "line 3 has 3 of 2 values"),
        ('a,b\n1,"x\ny"\n3\n4,5\n', "line 4 has 1 of 2 values"),
        ('a,b\n1,"2\n3,4\n5,6\n', "opens in line 2 is never closed"),
        ('a,b\n1,2\n"2\n3,4\n5,6\n', "line 3 has 1 of 2 values.*not closed"),
    ],
)  # fmt: skip
def test_broken_files_name_the_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_a_ragged_line_far_down_is_named(tmp_path):
    rows = "a,b\n" + "1,x\n" * 300_000 + "secret\n" + "1,x\n"
    with pytest.raises(DataError, match="line 300002 has 1 of 2") as caught:
        read(tmp_path, rows)
    assert "secret" not in str(caught.value)


def test_options_override_what_is_found(tmp_path):
    assert values(read(tmp_path, "a;b,c\n1;2,3\n", separator=";")) == {"a": [1], "b,c": [2.3]}
    assert values(read(tmp_path, "a;b\n1;1,234\n", decimal=","))["b"] == [1.234]
    assert values(read(tmp_path, "1,2\n3,4\n", header="yes")) == {"1": [3], "2": [4]}
    assert values(read(tmp_path, "a,b\n", header="none")) == {"column_1": ["a"], "column_2": ["b"]}
    assert values(read(tmp_path, b"a,b\n1,\xb9\n", encoding="iso8859-2"))["b"] == ["š"]
    assert values(read(tmp_path, "a,b\n1,?\n2,3\n", null_values=("?",)))["b"] == [None, 3]
    assert values(read(tmp_path, "a,b\n%x,y%,1\n", quote="%")) == {"a": ["x,y"], "b": [1]}


@pytest.mark.parametrize(
    "options",
    [{"separator": ";;"}, {"quote": "ß"}, {"decimal": ";"}, {"header": "maybe"},
     {"separator": ",", "decimal": ","}, {"separator": "\n"}],
)  # fmt: skip
def test_impossible_options_are_refused(options):
    with pytest.raises(SettingsError):
        CsvOptions(**options)


def test_an_unknown_or_wrong_encoding_is_said(tmp_path):
    with pytest.raises(SettingsError, match="klingon"):
        read(tmp_path, "a\n1\n", encoding="klingon")
    with pytest.raises(DataError, match="utf-8"):
        read(tmp_path, b"a,b\n1,\xe9\n", encoding="utf-8")


def test_notes_say_what_was_decided(tmp_path):
    notes = read(tmp_path, "a;a;x\n1,234;2;\n").notes
    assert "semicolon" in notes[0]
    assert "decimal sign ." in notes[0]
    assert any("'a_2'" in note for note in notes)
    assert any("Kept as text" in note and note.endswith("a") for note in notes)


def test_a_row_longer_than_a_block_is_read(tmp_path):
    long = "x" * 9_000_000
    assert values(read(tmp_path, f"a,b\n1,{long}\n2,y\n"))["b"] == [long, "y"]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=6), separator=st.sampled_from(",;\t|"))
def test_what_python_quotes_is_read_back(tmp_path_factory, rows, separator):
    rows = [("word", "wörd"), *rows]  # keeps the columns text
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=separator, quoting=csv.QUOTE_ALL)
    writer.writerows([("first", "second"), *rows])
    folder = tmp_path_factory.getbasetemp()
    found = values(read(folder, sink.getvalue()))
    assert list(zip(found["first"], found["second"], strict=True)) == rows


def test_peek_reads_the_beginning_only(tmp_path):
    path = tmp_path / "big.csv"
    path.write_text("a,b\n" + "12345,some text\n" * 300_000)
    summary = peek(locate(str(path)))
    assert summary.n_rows == pytest.approx(300_000, rel=0.01)
    assert not summary.rows_exact
    assert summary.columns == (("a", "int64"), ("b", "string"))
    assert summary.n_bytes == pytest.approx(read_table(locate(str(path))).arrow.nbytes, rel=0.2)
    small = (
        peek(locate(str(tmp_path / "small.csv")))
        if ((tmp_path / "small.csv").write_text("a,b\n1,2\n"))
        else None
    )
    assert small is not None
    assert (small.n_rows, small.rows_exact) == (1, True)


def test_a_wide_file_is_read(tmp_path):
    n = 5_000
    names = ",".join(f"c{i}" for i in range(n))
    table = read(tmp_path, names + "\n" + ",".join(["1.5"] * n) + "\n").arrow
    assert table.num_columns == n
    assert set(table.schema.types) == {pa.float64()}
