"""The report: complete, self-contained, harmless whatever the data is called."""

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from gpuseg.explained import Explanation, Segment, ShapMeans
from gpuseg.outputs.notebook import segmentation_html
from gpuseg.outputs.report import write_report
from gpuseg.outputs.report_files import REPORT_DATA
from gpuseg.outputs.report_input import ReportInput
from gpuseg.records import Segmentation, StageCost
from gpuseg.settings import Settings

HOSTILE = (
    "<script>alert(1)</script>",
    "</style></svg><img src=x onerror=alert(1)>",
    '"><b onclick="x">',
    "$\\frac{1$",
    "cost_$_{x^",
    "\\undefined \\x",
    "a\x00b\x08c\x1b[31m",
    "\u202egnp.exe",
    "{{ 7 * 7 }}{% raw %}",
    "]]><!-- &amp; -->",
    "col\nwith\nlines",
    "顧客 ქართული 🙂",
    "x" * 300,
)
WITHOUT_CHARTS = {"profiles": None, "shap_values": None, "feature_importance": None,
                  "sketch": None}  # fmt: skip
CHARTS = {
    "silhouette", "knife", "map", "profile", "top_features", "shap", "shap_by_segment",
    "shap_signed", "importance", "spread",
}  # fmt: skip
VOID = {"meta", "br", "img", "hr", "link", "input", "wbr"}


def make_column(name, kind, counts, **facts):
    return {"name": name, "type": "text", "kind": kind, "missing_share": 0.25,
            "n_distinct": len(counts[0]), "counts": counts, **facts}  # fmt: skip


def make_sketch(names, n_clusters, value, points, labels):
    """What `sketch` gives for a table of numbers, dates and categories by turns."""
    columns = []
    for i, name in enumerate(names):
        counts = [[c + 1, 2, 3] for c in range(n_clusters)]
        if i % 3 == 2:
            facts = {"values": [value, "other"], "others": 7}
            columns.append(make_column(name, "categorical", counts, **facts))
        else:
            facts = {"edges": [-1000.25, 0.125, 17.5, 4321.5], "mean": 12345.678, "std": 77.5,
                     "low": -999.5, "median": 1234.5, "high": 5678.25}  # fmt: skip
            kind = ("numeric", "datetime")[i % 3]
            columns.append(make_column(name, kind, counts, **facts))
    return {
        "n_rows_seen": len(points),
        "columns": columns,
        "map": {"points": points.tolist(), "labels": labels.tolist(),
                "variance_shares": [0.5, 0.25]},
        "silhouettes": [
            {"n_rows": 40, "mean": 0.3, "below_zero": 0.1, "outline": [0.812345, 0.3, -0.1]}
            for _ in range(n_clusters)
        ],
    }  # fmt: skip


class Page(HTMLParser):
    """Collects tags and text, and fails on tags that do not pair up."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.attributes, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def make_profile(cluster, name, kind, share, z, value):
    row = {"cluster_id": cluster, "feature": name, "kind": kind, "share": share, "z": z,
           "mean": 12345.678, "median": 1.0, "p10": 0.5, "p90": 9.0, "overall_mean": 23456.789,
           "lift": 2.5, "top_values": None, "missing_share": 0.0}  # fmt: skip
    if kind == "categorical":
        row |= dict.fromkeys(("mean", "median", "p10", "p90", "overall_mean"))
        row |= {"z": abs(z), "top_values": value}
    return row


def make_report(names=("age", "joined", "città"), n_clusters=3, value="Roma 61 %", **changes):
    rng = np.random.default_rng(3)
    kinds = ("numeric", "datetime", "categorical")
    profiles = [
        make_profile(c, name, kinds[i % 3], 1 / n_clusters, float(rng.normal()) * 2, value)
        for c in range(n_clusters)
        for i, name in enumerate(names)
    ]
    shap_values = [
        {"cluster_id": c, "feature": name, "mean_abs_shap": float(rng.uniform(0, 0.2)),
         "mean_shap": float(rng.normal() / 10), "rank": 1}
        for c in range(n_clusters)
        for name in names
    ]  # fmt: skip
    scores = [
        {"n_clusters": k, "silhouette": 0.1 * k, "silhouette_stderr": 0.0, "method": "exact",
         "inertia": 10.0 / k, "calinski_harabasz": 5.0, "davies_bouldin": None,
         "min_cluster_share": 0.2, "stability": 1.0, "chosen": k == n_clusters}
        for k in range(2, max(n_clusters, 3) + 1)
    ]  # fmt: skip
    labels = np.sort(np.arange(120) % n_clusters).astype(np.int32)
    run = ReportInput(
        model_name="customers",
        run_id="20261123T223045Z-4f2a9c",
        created="2026-11-23T22:30:45Z",
        input_name="shop.customers",
        cluster_sizes=tuple(int(n) for n in np.bincount(labels, minlength=n_clusters)),
        silhouette=0.3,
        reason=f"k = {n_clusters} has the highest mean silhouette",
        k_scores=pa.Table.from_pylist(scores),
        columns=pa.Table.from_pylist(
            [
                {"column": n, "role": "numeric", "decision": "kept", "reason": f"'{value}' is used"}
                for n in names
            ]
        ),
        backend="numpy",
        backend_reason="no GPU was found",
        settings=asdict(Settings(input_table="shop.customers")),
        versions={"python": "3.11", "gpuseg": "0.1.0"},
        stages={"read": StageCost(0.12, 10**8), "sweep": StageCost(75.0, 2 * 10**8)},
        profiles=pa.Table.from_pylist(profiles),
        feature_importance=pa.Table.from_pylist(
            [{"feature": n, "importance": 1 / len(names), "rank": i} for i, n in enumerate(names)]
        ),
        shap_values=pa.Table.from_pylist(shap_values),
        rules=pa.Table.from_pylist(
            [
                {
                    "cluster_id": 0,
                    "rule": f"x is {value}",
                    "sql": "",
                    "coverage": 0.8,
                    "precision": 1.0,
                }
            ]
        ),
        oob_accuracy=0.97,
        n_explained_rows=120,
        sketch=make_sketch(names, n_clusters, value, rng.normal(size=(120, 2)), labels),
        notes=(f"note about '{value}'",),
        warnings=(f"warning about '{value}'",),
    )
    return replace(run, **changes)


def write(tmp_path, run):
    write_report(tmp_path, run)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, write(folder, make_report())


# -- what is in it -------------------------------------------------------------------


def test_every_chart_is_there_with_words_and_a_table(plain):
    folder, text = plain
    figures = re.findall(r'<figure class="chart.*?</figure>', text, re.DOTALL)
    assert set(re.findall(r'<figure class="[\w ]+" id="chart-(\w+)"', text)) == CHARTS
    for figure in figures:
        assert len(re.search(r'<svg [^>]*role="img" aria-label="([^"]+)"', figure)[1]) > 40
        assert figure.count("<summary>Table view") == 1
        assert len(re.findall(r"<t[hd]", figure)) > 4
        assert re.search(r"<h3 [^>]*>\w[^<]{10,}</h3>", figure)
    files = {path.name for path in (folder / "plots").iterdir()}
    assert files == {f"{name}.{ending}" for name in CHARTS for ending in ("png", "svg")}


def test_the_page_says_what_matters(plain):
    words = " ".join(" ".join(Page(plain[1]).text).replace("\xa0", " ").split())
    for expected in (
        "Segments of shop.customers",
        "120 rows fall into 3 segments",
        "What tells the segments apart: ",
        "120 rows and 3 columns (3 × text); 25 % of all cells are empty",
        "Roma 61 % 29 %",
        "1,234 (from -1,000 to 5,678)",
        "Seed 0",
        "weak structure",
        "k = 3 has the highest mean silhouette",
        "recognises the segment of 97 % of the rows",
        "Roma 61 %",
        "12,346 on average, all rows 23,457",
        "2003-10-20 on average, all rows 2034-03-22",
        "x is Roma 61 %",
        "no GPU was found",
        "1 min 15 s",
        "random_state",
        "warning about 'Roma 61 %'",
    ):
        assert expected in words


def test_it_needs_nothing_from_elsewhere(plain):
    _folder, text = plain
    page = Page(text)
    assert not {"link", "iframe", "img", "object", "embed", "form"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", without_scripts(text))
    targets = [v for k, v in page.attributes if k in ("href", "src", "xlink:href", "action")]
    assert targets
    assert all(target.startswith("#") for target in targets)
    addresses = set(re.findall(r"https?://[\w./-]+", text))
    # names of XML namespaces, and D3's own name in its first line
    assert {a for a in addresses if "www.w3.org" not in a} == {"https://d3js.org"}
    assert "default-src 'none'" in text
    assert len(text.encode()) < 3_000_000


def without_scripts(text):
    return re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def test_only_our_scripts_may_run(plain):
    _folder, text = plain
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 3
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])
    assert re.search(r"script-src (.*?);", policy)[1] == " ".join(f"'sha256-{d}'" for d in digests)
    assert "unsafe-inline" not in policy.split("script-src")[1]


def embedded(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_script_draws_from_the_numbers_of_the_still_pictures(plain):
    data = embedded(plain[1])
    assert set(data["charts"]) == CHARTS
    assert data["charts"]["silhouette"]["data"]["k"] == [2, 3]
    spread = data["charts"]["spread"]["data"]["features"]
    assert spread[0]["segments"][1] == [pytest.approx(100 * n / 7, abs=0.01) for n in (2, 2, 3)]
    assert spread[0]["everyone"] == [pytest.approx(100 * n / 21, abs=0.01) for n in (6, 6, 9)]
    assert [f["bins"] for f in spread][2] == ["Roma 61 %", "other", "7 others"]


def test_ids_are_unique_and_references_lead_somewhere(plain):
    attributes = Page(plain[1]).attributes
    ids = [value for key, value in attributes if key == "id"]
    assert len(ids) == len(set(ids))
    used = {v[1:] for k, v in attributes if k in ("href", "xlink:href")}
    used |= {v[5:-1] for k, v in attributes if k == "clip-path"}
    assert used <= set(ids)


def test_charts_follow_the_theme_on_the_page_and_are_fixed_in_files(plain):
    folder, text = plain
    for svg in re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL):
        assert "var(--" in svg
        assert not re.search(r"#[0-9a-f]{6}", svg)
    for path in (folder / "plots").glob("*.svg"):
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        assert "var(--" not in path.read_text(encoding="utf-8")
        assert root.findall("{http://www.w3.org/2000/svg}text")[-1].get("font-weight") == "700"


def test_pngs_are_wide_enough_for_a_slide(plain):
    for path in (plain[0] / "plots").glob("*.png"):
        content = path.read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(content[16:20], "big") == 1120


def test_the_same_run_gives_the_same_page(plain, tmp_path):
    assert write(tmp_path, make_report()) == plain[1]


# -- hostile and awkward data --------------------------------------------------------


def test_hostile_names_are_shown_and_harmless(tmp_path):
    run = make_report(names=HOSTILE, value=HOSTILE[0])
    text = write(
        tmp_path,
        replace(
            run,
            model_name=HOSTILE[1],
            input_name=HOSTILE[0],
            reason=HOSTILE[2],
            backend_reason=HOSTILE[3],
            settings={HOSTILE[0]: HOSTILE[1], "columns": HOSTILE},
            versions={HOSTILE[0]: HOSTILE[1]},
            notes=HOSTILE,
            warnings=HOSTILE,
        ),
    )
    page = Page(text)
    assert page.tags.count("script") == 4
    assert json.dumps(embedded(text)).count("<script>alert(1)</script>") > 0
    assert "img" not in page.tags
    assert not [key for key, _value in page.attributes if key.startswith("on")]
    assert "<script>alert(1)</script>" in page.text
    assert "\x00" not in text
    assert "\u202e" not in text
    assert "{{ 7 * 7 }}" in text
    for path in (tmp_path / "plots").glob("*.svg"):
        assert "<script" not in path.read_text(encoding="utf-8")


def test_odd_names_are_drawn(tmp_path):
    odd = ("'", "#1f2328", "var(--ink)", "", " ", "None")
    text = write(tmp_path, make_report(names=odd, n_clusters=2, input_name="\ud800 half"))
    assert ">var(--ink)</text>" in text
    assert ">var(--ink)</text>" in (tmp_path / "plots" / "shap.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {**WITHOUT_CHARTS, "rules": None, "oob_accuracy": None, "n_explained_rows": None},
        {**WITHOUT_CHARTS, "stages": {}, "settings": {}, "warnings": (), "notes": ()},
        {**WITHOUT_CHARTS, "silhouette": -0.2},
        {"cluster_sizes": (119, 1, 0)},
        {"segments": (Segment(0, "A", "A", "", ()), Segment(1, "B", "<i>C", "", ()))},
        {"tree_text": "a <= 1?\n  yes: <i>", "tree_fidelity": 0.9},
    ],
    ids=["placed only", "bare", "negative silhouette", "empty segment", "named", "tree"],
)  # fmt: skip
def test_what_is_missing_is_left_out(tmp_path, changes):
    Page(write(tmp_path, make_report(**changes)))


@pytest.mark.parametrize("name", ["/home/ann/t.csv", "C:\\tables\\t.csv", "s3://bucket/t.csv/"])
def test_the_title_is_the_table_and_not_the_way_to_it(tmp_path, name):
    text = write(tmp_path, make_report(input_name=name, **WITHOUT_CHARTS))
    assert "<title>Segments of t.csv</title>" in text


def test_a_constant_map_and_a_zero_heatmap_are_drawn(tmp_path):
    run = make_report(n_clusters=2)
    zero = run.shap_values.to_pandas().assign(mean_shap=0.0, mean_abs_shap=0.0)
    write(
        tmp_path,
        replace(
            run,
            sketch=run.sketch
            | {"map": {"points": [[0, 0]] * 5, "labels": [0] * 5, "variance_shares": [0, 0]}},
            shap_values=pa.Table.from_pandas(zero),
        ),
    )


def test_many_columns_and_clusters_stay_small(tmp_path):
    names = [f"column_{i:04d}_with_a_long_name" for i in range(400)]
    points = np.random.default_rng(0).normal(size=(2000, 2))
    sketch = make_sketch(names, 10, "x", points, np.arange(2000) % 10)
    run = make_report(names=names, n_clusters=10, sketch=sketch)
    assert len(write(tmp_path, run).encode()) < 3_000_000


# -- discretion ----------------------------------------------------------------------


def test_hidden_contents_are_nowhere_in_the_files(tmp_path):
    run = make_report(
        value="Kunigunde",
        warnings=("'age' has 'Kunigunde' in 3 rows", "the last day is 2014-06-29"),
        settings={"input_query": "select * from t where name = 'Kunigunde'"},
    )
    contents = ("Kunigunde", "12,346", "23,457", "2003-10-20", "2014-06-29", "4,32", "4321",
                "1,234", "0.812345", "12345.678", "select * from")  # fmt: skip
    shown = write(tmp_path, run) + (tmp_path / REPORT_DATA).read_text(encoding="utf-8")
    assert all(text in shown for text in contents)

    folder = tmp_path / "hidden"
    folder.mkdir()
    page = Page(write(folder, replace(run, hide_table_contents=True)))
    assert "'age' has '…' in 3 rows" in page.text
    assert {("id", "chart-profile"), ("id", "chart-spread")} <= set(page.attributes)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert "map.svg" not in [path.name for path in files]
    for path in files:
        assert not any(text.encode() in path.read_bytes() for text in contents)


def test_secrets_are_nowhere_in_the_file(tmp_path):
    url = "postgresql://ann:Zx9-s3cret@host/db"
    run = make_report(
        input_name=url,
        backend_reason=url,
        settings={"warehouse": url, "td_api_key": "Zx9-s3cret"},
        warnings=(url,),
        notes=(url,),
        **WITHOUT_CHARTS,
    )
    assert "Zx9-s3cret" not in write(tmp_path, run)


# -- the notebook --------------------------------------------------------------------


def make_segmentation(**changes):
    run = make_report(names=HOSTILE)

    class Model:
        name = HOSTILE[0]

    labels = np.repeat(np.arange(3), [5, 3, 2]).astype(np.int32)
    zeros = np.zeros((3, 1))
    facts = {
        "table": pa.table({"cluster_id": labels}),
        "labels": labels,
        "n_clusters": 3,
        "silhouette": 0.55,
        "reason": HOSTILE[1],
        "k_scores": run.k_scores,
        "columns": run.columns,
        "explanation": Explanation(
            feature_importance=run.feature_importance,
            shap_values=run.shap_values,
            profiles=run.profiles,
            oob_accuracy=0.9,
            shap=ShapMeans(zeros, zeros, zeros, zeros[:, 0], 0.0, 10),
        ),
        "rules": None,
        "model": Model(),
        "backend": "numpy",
        "backend_reason": "",
        "stages": {},
        "n_features": 3,
        "warnings": (HOSTILE[0],),
    }
    return Segmentation(**(facts | changes))


def test_a_notebook_shows_the_segments_escaped():
    page = Page(segmentation_html(make_segmentation()))
    assert not {"script", "img", "style"} & set(page.tags)
    words = " ".join(page.text)
    assert "10 rows in 3 segments" in words
    assert "50 %" in words
    assert "reasonable structure" in words
    Page(segmentation_html(make_segmentation(explanation=None)))


def test_the_input_is_taken_from_a_segmentation(tmp_path):
    run = ReportInput.of(
        make_segmentation(),
        settings={},
        versions={},
        input_name="t",
        run_id="r",
        created="2026-11-23T22:30:45Z",
    )
    assert run.cluster_sizes == (5, 3, 2)
    assert run.oob_accuracy == 0.9
    assert run.shap_values is not None
    write(tmp_path, replace(run, **WITHOUT_CHARTS))


def test_the_command_line_starts_without_what_draws():
    code = (
        "import sys, gpuseg.cli, gpuseg.outputs.notebook;"
        "print([m for m in ('resvg_py', 'jinja2', 'playwright') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"
