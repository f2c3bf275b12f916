"""The report: complete, self-contained, harmless whatever the data is called."""

import re
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pytest

from gpuseg.outputs.notebook import segmentation_html
from gpuseg.outputs.report import write_report
from gpuseg.outputs.report_input import ReportInput
from gpuseg.records import Explanation, Segmentation, ShapMeans, StageCost
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
                  "map_points": None, "map_labels": None}  # fmt: skip
CHARTS = {"silhouette", "map", "profile", "top_features", "shap", "shap_signed", "importance"}
VOID = {"meta", "br", "img", "hr", "link", "input", "use", "path"}


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
        map_points=rng.normal(size=(120, 2)).astype(np.float32),
        map_labels=labels,
        notes=(f"note about '{value}'",),
        warnings=(f"warning about '{value}'",),
    )
    return replace(run, **changes)


def write(tmp_path, run):
    write_report(tmp_path / "report.html", run)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, write(folder, make_report())


# -- what is in it -------------------------------------------------------------------


def test_every_chart_is_there_with_words_and_a_table(plain):
    folder, text = plain
    assert set(re.findall(r'<figure class="chart" id="chart-(\w+)"', text)) == CHARTS
    assert text.count("<svg ") == text.count('role="img"') == len(CHARTS)
    assert all(len(alt) > 40 for alt in re.findall(r'role="img" aria-label="([^"]+)"', text))
    assert text.count("<summary>Show as a table</summary>") == len(CHARTS)
    files = {path.name for path in (folder / "plots").iterdir()}
    assert files == {f"{name}.{ending}" for name in CHARTS for ending in ("png", "svg")}


def test_the_page_says_what_matters(plain):
    words = " ".join(" ".join(Page(plain[1]).text).split())
    for expected in (
        "Segments of shop.customers",
        "120 rows fall into 3 segments",
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
    assert not {"script", "link", "iframe", "img", "object", "embed", "form"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)
    targets = [v for k, v in page.attributes if k in ("href", "src", "xlink:href", "action")]
    assert targets
    assert all(target.startswith("#") for target in targets)
    addresses = set(re.findall(r"https?://[\w./-]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in text
    assert len(text.encode()) < 3_000_000


def test_ids_are_unique_and_references_lead_somewhere(plain):
    attributes = Page(plain[1]).attributes
    ids = [value for key, value in attributes if key == "id"]
    assert len(ids) == len(set(ids))
    used = {v[1:] for k, v in attributes if k in ("href", "xlink:href")}
    used |= {v[5:-1] for k, v in attributes if k == "clip-path"}
    assert used <= set(ids)


def test_charts_follow_the_theme(plain):
    _folder, text = plain
    for svg in re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL):
        assert "<style" not in svg
        assert "var(--ink)" in svg or "var(--muted)" in svg
        assert "#1f2328" not in svg


def test_the_same_run_gives_the_same_page_in_any_style_and_leaves_the_style_alone(plain, tmp_path):
    with mpl.rc_context({"text.usetex": True, "font.size": 40, "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert write(tmp_path, make_report()) == plain[1]
        assert dict(mpl.rcParams) == before


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
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "b" not in page.tags
    assert not [key for key, _value in page.attributes if key.startswith("on")]
    assert "<script>alert(1)</script>" in page.text
    assert "\x00" not in text
    assert "\u202e" not in text
    assert "{{ 7 * 7 }}" in text
    for path in (tmp_path / "plots").glob("*.svg"):
        assert "<script" not in path.read_text(encoding="utf-8")


def test_odd_names_are_drawn(tmp_path):
    odd = ("'", "#1f2328", "fill: #1f2328", "", " ", "None")
    text = write(tmp_path, make_report(names=odd, n_clusters=2, input_name="\ud800 half"))
    assert "fill: #1f2328</text>" in text


@pytest.mark.parametrize(
    "changes",
    [
        {**WITHOUT_CHARTS, "rules": None, "oob_accuracy": None, "n_explained_rows": None},
        {**WITHOUT_CHARTS, "stages": {}, "settings": {}, "warnings": (), "notes": ()},
        {**WITHOUT_CHARTS, "silhouette": -0.2},
        {"cluster_sizes": (119, 1, 0)},
    ],
    ids=["placed only", "bare", "negative silhouette", "empty segment"],
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
            map_points=np.zeros((5, 2), np.float32),
            map_labels=np.zeros(5, np.int32),
            shap_values=pa.Table.from_pandas(zero),
        ),
    )


def test_many_columns_and_clusters_stay_small(tmp_path):
    names = [f"column_{i:04d}_with_a_long_name" for i in range(400)]
    points = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)
    labels = (np.arange(2000) % 10).astype(np.int32)
    run = make_report(names=names, n_clusters=10, map_points=points, map_labels=labels)
    assert len(write(tmp_path, run).encode()) < 3_000_000


# -- discretion ----------------------------------------------------------------------


def test_hidden_contents_are_nowhere_in_the_files(tmp_path):
    run = make_report(
        value="Kunigunde",
        warnings=("'age' has 'Kunigunde' in 3 rows", "the last day is 2014-06-29"),
        settings={"input_query": "select * from t where name = 'Kunigunde'"},
    )
    contents = ("Kunigunde", "12,346", "23,457", "2003-10-20", "2014-06-29")
    less = {"shap_values": None, "feature_importance": None, "map_points": None}
    shown = write(tmp_path, replace(run, **less))
    assert all(text in shown for text in contents)

    folder = tmp_path / "hidden"
    folder.mkdir()
    page = Page(write(folder, replace(run, hide_table_contents=True)))
    assert "'age' has '…' in 3 rows" in page.text
    assert ("id", "chart-profile") in page.attributes
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


def test_importing_the_report_does_not_import_matplotlib():
    code = (
        "import sys, gpuseg.outputs.report, gpuseg.outputs.notebook, gpuseg.outputs.models;"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
