"""The model store: what comes out is what went in, and nothing damaged comes out."""

import contextlib
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuseg.errors import ModelError, SettingsError
from gpuseg.outputs.models import (
    StoredModel,
    champion,
    list_models,
    load_model,
    load_model_folder,
    promote,
    save_model,
)

RUN_IDS = tuple(f"20261123T2230{second:02d}Z-4f2a9c" for second in range(60))


def make_model(**changes):
    rng = np.random.default_rng(7)
    model = StoredModel(
        name="customers",
        run_id=RUN_IDS[0],
        created="2026-11-23T22:30:00Z",
        input_name="shop.customers",
        n_rows=200,
        n_clusters=3,
        silhouette=0.5547,
        columns=("age", "città"),
        k_scores=({"n_clusters": 3, "silhouette": 0.5547, "davies_bouldin": float("inf")},),
        settings={"random_state": 0, "warehouse": "postgresql://ann:s3cret@host/db"},
        versions={"numpy": "2.0.0"},
        backend="numpy",
        encoder_dict={"median": 0.1 + 0.2, "categories": {"città": ["Roma", "Ōsaka", "\u2028"]}},
        encoder_arrays={"components": rng.normal(size=(2, 5)), "signs": np.arange(5)},
        centroids=rng.normal(size=(3, 2)).astype(np.float32),
    )
    return replace(model, **changes)


def store(runs_dir, run_id=RUN_IDS[0], **changes):
    model = make_model(run_id=run_id, **changes)
    run_dir = runs_dir / model.name / run_id
    run_dir.mkdir(parents=True)
    return save_model(run_dir, model)


def rewrite(folder, file, data):
    """Replace a file and its checksum, as somebody who means it would."""
    (folder / file).write_bytes(data)
    names = sorted(p.name for p in folder.iterdir() if p.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def edit(folder, **changes):
    document = json.loads((folder / "model.json").read_text(encoding="utf-8")) | changes
    rewrite(folder, "model.json", json.dumps(document).encode())


# -- round trip ----------------------------------------------------------------------


def test_a_model_comes_back_bit_for_bit(tmp_path):
    saved, loaded = make_model(), load_model_folder(store(tmp_path))

    assert loaded.centroids.dtype == np.float32
    assert loaded.centroids.tobytes() == saved.centroids.tobytes()
    assert loaded.encoder_dict == saved.encoder_dict
    assert loaded.encoder_arrays.keys() == saved.encoder_arrays.keys()
    for name, array in saved.encoder_arrays.items():
        assert loaded.encoder_arrays[name].dtype == array.dtype
        assert loaded.encoder_arrays[name].tobytes() == array.tobytes()
    same = {f.name for f in fields(saved)} - {
        "centroids", "encoder_arrays", "k_scores", "settings",
    }  # fmt: skip
    for name in same:
        assert getattr(loaded, name) == getattr(saved, name), name
    assert loaded.k_scores == ({"n_clusters": 3, "silhouette": 0.5547, "davies_bouldin": None},)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 4), np.float32),
        np.float64(3.5).reshape(()),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.arange(12, dtype=np.int64)[::3],
        np.arange(3, dtype=np.uint8),
    ],
    ids=["empty", "scalar", "fortran", "big-endian", "strided", "bytes"],
)
def test_any_numeric_array_of_the_encoder_comes_back(tmp_path, array):
    loaded = load_model_folder(store(tmp_path, encoder_arrays={"a": array})).encoder_arrays["a"]
    assert loaded.shape == array.shape
    assert loaded.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(loaded, array)
    assert loaded.flags.aligned
    assert loaded.flags.writeable


@pytest.mark.parametrize(
    "changes",
    [
        {"centroids": np.zeros((3, 2), np.float64)},
        {"centroids": np.zeros((2, 2), np.float32)},
        {"centroids": np.full((3, 2), np.nan, np.float32)},
        {"n_clusters": 0, "centroids": np.zeros((0, 2), np.float32)},
        {"encoder_arrays": {"a": np.array(["text"])}},
        {"encoder_arrays": {"a": np.array([object()])}},
        {"encoder_arrays": {"a": np.array([1.0, np.inf])}},
    ],
)
def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path, changes):
    with pytest.raises(ModelError):
        save_model(tmp_path, make_model(**changes))
    assert list(tmp_path.iterdir()) == []


def test_sums_can_be_checked_by_hand(tmp_path):
    folder = store(tmp_path)
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert len(list(folder.iterdir())) == 5  # document, sums, three arrays


def test_secrets_stay_out_of_the_files(tmp_path):
    folder = store(tmp_path, input_name="postgresql://ann:s3cret@host/db#t")
    for path in folder.iterdir():
        assert b"s3cret" not in path.read_bytes()


# -- damage --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return store(tmp_path_factory.mktemp("sound"))


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_flipped_byte_is_noticed(sound, tmp_path, data):
    folder = tmp_path / "flipped"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(ModelError):
        load_model_folder(folder)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_forged_files_with_right_sums_end_in_a_model_or_a_model_error(sound, tmp_path, data):
    folder = tmp_path / "forged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    name = data.draw(st.sampled_from(["model.json", "array_000.npy", "array_001.npy"]))
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    rewrite(folder, name, bytes(content))
    with contextlib.suppress(ModelError):
        assert np.isfinite(load_model_folder(folder).centroids).all()


@pytest.mark.parametrize("name", ["model.json", "SHA256SUMS", "array_000.npy"])
@pytest.mark.parametrize("kept", [0, 1, 9, 10, 70, -1])
def test_truncated_files_are_refused(tmp_path, name, kept):
    folder = store(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    with pytest.raises(ModelError):
        load_model_folder(folder)


def test_ids_and_reach_come_back(tmp_path):
    kept = {"cluster_ids": (2, 5, 9), "next_cluster_id": 12, "reach": (0.5, 0.0, 3.25)}
    loaded = load_model_folder(store(tmp_path, **kept))
    assert {name: getattr(loaded, name) for name in kept} == kept


def test_models_of_before_there_were_ids_call_clusters_by_position(tmp_path):
    folder = store(tmp_path)
    document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    for name in ("cluster_ids", "next_cluster_id", "reach"):
        del document[name]
    rewrite(folder, "model.json", json.dumps(document).encode())
    loaded = load_model_folder(folder)
    assert (loaded.cluster_ids, loaded.next_cluster_id, loaded.reach) == ((0, 1, 2), 3, ())


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster_ids": [0, 1]},
        {"cluster_ids": [0, 2, 1]},
        {"cluster_ids": [0, 1, 1]},
        {"cluster_ids": [-1, 0, 1]},
        {"cluster_ids": ["0", "1", "2"]},
        {"cluster_ids": 3},
        {"next_cluster_id": "12"},
        {"reach": [1.0]},
        {"reach": [1.0, -1.0, 2.0]},
        {"reach": "far"},
    ],
)
def test_ids_that_cannot_be_are_damage(tmp_path, changes):
    folder = store(tmp_path)
    edit(folder, **changes)
    with pytest.raises(ModelError, match="is damaged"):
        load_model_folder(folder)


@pytest.mark.parametrize("name", ["model.json", "SHA256SUMS", "array_000.npy"])
def test_missing_files_are_named(tmp_path, name):
    folder = store(tmp_path)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load_model_folder(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match="there is no model in"):
        load_model_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["link", "loop", "pipe", "folder"])
def test_only_plain_files_are_read(tmp_path, kind):
    folder = store(tmp_path)
    path = folder / "array_000.npy"
    aside = path.rename(tmp_path / "aside.npy")
    if kind == "link":
        path.symlink_to(aside)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(ModelError, match=r"array_000\.npy"):
        load_model_folder(folder)


def test_a_huge_sparse_file_is_refused_before_it_is_read(tmp_path):
    folder = store(tmp_path)
    with (folder / "array_000.npy").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(ModelError, match="at most"):
        load_model_folder(folder)


def npy(descr="<f4", shape="(3, 2)", body=24, fortran="False", magic=b"\x93NUMPY\x01\x00"):
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return magic + len(header).to_bytes(2, "little") + header + bytes(body)


@pytest.mark.parametrize(
    "data",
    [
        npy(shape="(999999999999, 999999999999)"),
        npy(shape="(0, 999999999999, 999999999999)", body=0),
        npy(shape="(" + "1, " * 200 + "1)"),
        npy(shape="(-3, -2)"),
        npy(shape="(3, 3)"),
        npy(descr="|O"),
        npy(descr="|V4"),
        npy(descr="<M8"),
        npy(descr="<c8", body=48),
        npy(fortran="True"),
        npy(shape="(__import__('os').abort(), 2)"),
        npy(magic=b"\x93NUMPY\x02\x00"),
        npy(magic=b"PK\x03\x04aaaa"),
        npy(body=23),
        npy(body=25),
        b"",
        b"\x80\x04\x95",
    ],
)
def test_foreign_arrays_are_refused_even_with_right_sums(tmp_path, data):
    folder = store(tmp_path)
    rewrite(folder, "array_000.npy", data)
    with pytest.raises(ModelError, match=r"array_000\.npy"):
        load_model_folder(folder)


@pytest.mark.parametrize("n_bytes", [20, 28])
def test_the_size_of_an_array_file_is_checked_before_its_shape_is_believed(tmp_path, n_bytes):
    folder = store(tmp_path)
    rewrite(folder, "array_000.npy", npy(body=n_bytes))
    with pytest.raises(ModelError, match=f"holds {n_bytes} bytes of numbers, not 24"):
        load_model_folder(folder)


def test_nan_centroids_are_refused(tmp_path):
    folder = store(tmp_path)
    rewrite(folder, "array_000.npy", npy(body=0) + np.full(6, np.nan, "<f4").tobytes())
    with pytest.raises(ModelError, match="NaN"):
        load_model_folder(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "other"}, "is not a gpuseg model"),
        ({"format_version": 2}, "format version 2; this gpuseg reads up to 1"),
        ({"format_version": True}, "format version is True"),
        ({"format_version": "1"}, "format version is '1'"),
        ({"n_clusters": 4}, r"expected float32 of shape \(4, n_features\)"),
        ({"n_clusters": "3"}, "'n_clusters' is '3', expected int"),
        ({"n_rows": None}, "'n_rows' is 'None', expected int"),
        ({"columns": [1]}, "'columns' is not a list of names"),
        ({"columns": "age"}, "'columns' is 'age', expected list"),
        ({"encoder_dict": []}, "'encoder_dict'"),
        ({"arrays": {}}, "centroids are missing"),
        ({"arrays": None}, "does not list its arrays"),
        ({"arrays": {"centroids": None}}, "names no file"),
        ({"arrays": {"centroids": {"file": "../../../etc/passwd"}}}, "names no file"),
        ({"arrays": {"centroids": {"file": "array_009.npy"}}}, "array_009.npy is missing"),
        ({"arrays": {"centroids": {"file": "array_001.npy"}}}, "says otherwise"),
    ],
)
def test_contradictions_in_the_document_are_named(tmp_path, changes, words):
    folder = store(tmp_path)
    edit(folder, **changes)
    with pytest.raises(ModelError, match=words):
        load_model_folder(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"format": "gpuseg-model", "format_version": NaN}',
        b'{"a":' * 100_000,
        b'{"a": "\\ud800", "format": "gpuseg-model", "format_version": 1}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "list", "cut", "not utf-8", "nan", "deep", "surrogate", "long number"],
)
def test_documents_that_are_not_json_are_refused(tmp_path, text):
    folder = store(tmp_path)
    rewrite(folder, "model.json", text)
    with pytest.raises(ModelError):
        load_model_folder(folder)


# -- the store -----------------------------------------------------------------------


def test_the_champion_is_loaded_by_name(tmp_path):
    store(tmp_path, RUN_IDS[0], silhouette=0.1)
    store(tmp_path, RUN_IDS[1], silhouette=0.2)
    with pytest.raises(ModelError, match=r"no current model 'customers'.*models there: customers"):
        load_model(tmp_path, "customers")
    promote(tmp_path, "customers", RUN_IDS[1])
    assert load_model(tmp_path, "customers").silhouette == 0.2
    promote(tmp_path, "customers", RUN_IDS[0])
    assert load_model(tmp_path, "customers").silhouette == 0.1
    assert load_model(tmp_path, "customers", RUN_IDS[1]).silhouette == 0.2
    assert champion(tmp_path, "customers") == RUN_IDS[0]


def test_an_unknown_model_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(ModelError, match="models there: none"):
        load_model(tmp_path / "nowhere", "customers")
    store(tmp_path)
    with pytest.raises(ModelError, match="did you mean 'customers'"):
        load_model(tmp_path, "custmers")


def test_a_damaged_model_is_not_promoted(tmp_path):
    store(tmp_path, RUN_IDS[0])
    promote(tmp_path, "customers", RUN_IDS[0])
    (store(tmp_path, RUN_IDS[1]) / "array_000.npy").unlink()
    for run_id in (RUN_IDS[1], RUN_IDS[2]):
        with pytest.raises(ModelError):
            promote(tmp_path, "customers", run_id)
    assert champion(tmp_path, "customers") == RUN_IDS[0]


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"3", b"\xff", b'{"run_id": "../../x"}', b'{"run_id": 7}', b"[" * 9999],
)
def test_a_damaged_champion_file_is_a_model_error(tmp_path, content):
    store(tmp_path)
    (tmp_path / "customers" / "champion.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"champion\.json' is damaged"):
        load_model(tmp_path, "customers")
    (entry,) = list_models(tmp_path)
    assert entry.model is not None
    assert "champion.json" in entry.problem


def test_models_are_listed_with_their_problems(tmp_path):
    assert list_models(tmp_path / "nowhere") == ()
    store(tmp_path, RUN_IDS[1])
    (store(tmp_path, RUN_IDS[0]) / "array_000.npy").unlink()
    store(tmp_path, RUN_IDS[2], name="another")
    promote(tmp_path, "customers", RUN_IDS[1])
    (tmp_path / "customers" / f".{RUN_IDS[5]}.partial").mkdir()
    (tmp_path / "stray.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "customers")
    listed = list_models(tmp_path)
    assert [(e.name, e.run_id, e.is_champion) for e in listed] == [
        ("another", RUN_IDS[2], False),
        ("customers", RUN_IDS[0], False),
        ("customers", RUN_IDS[1], True),
    ]
    assert [bool(e.problem) for e in listed] == [False, True, False]
    assert [e.model is None for e in listed] == [False, True, False]


def test_readers_always_see_a_whole_champion(tmp_path):
    for run_id in RUN_IDS[:4]:
        store(tmp_path, run_id)
    promote(tmp_path, "customers", RUN_IDS[0])

    def promote_often(run_id):
        for _ in range(25):
            promote(tmp_path, "customers", run_id)

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(promote_often, run_id) for run_id in RUN_IDS[:4]]
        while not all(writer.done() for writer in writers):
            assert load_model(tmp_path, "customers").run_id in RUN_IDS[:4]
    for writer in writers:
        writer.result()
    assert not list((tmp_path / "customers").glob(".*.partial"))


# -- no way out ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../customers", "a/b", "..", "", ".hidden"])
def test_names_do_not_leave_the_folder(tmp_path, name):
    store(tmp_path)
    for action in (load_model, champion):
        with pytest.raises(SettingsError):
            action(tmp_path / "runs", name)
    with pytest.raises(SettingsError):
        promote(tmp_path / "runs", name, RUN_IDS[0])


@pytest.mark.parametrize("run_id", ["../x", "..", "latest", RUN_IDS[0] + "\n", "20261123T223045Z"])
def test_run_ids_do_not_leave_the_folder(tmp_path, run_id):
    store(tmp_path)
    with pytest.raises(ModelError, match="is not a run id"):
        load_model(tmp_path, "customers", run_id)
    with pytest.raises(ModelError, match="is not a run id"):
        promote(tmp_path, "customers", run_id)


@pytest.mark.parametrize("level", ["name", "run", "model", "champion"])
def test_links_do_not_leave_the_folder(tmp_path, level):
    store(tmp_path / "outside")
    promote(tmp_path / "outside", "customers", RUN_IDS[0])
    inside = tmp_path / "inside"
    parts = ["customers", RUN_IDS[0], "model"]
    if level == "champion":
        store(inside)
        (inside / "customers" / "champion.json").symlink_to(
            tmp_path / "outside" / "customers" / "champion.json"
        )
    else:
        depth = ["name", "run", "model"].index(level)
        link = inside.joinpath(*parts[: depth + 1])
        link.parent.mkdir(parents=True)
        link.symlink_to(Path(tmp_path / "outside").joinpath(*parts[: depth + 1]))
    with pytest.raises(ModelError, match="symbolic link"):
        load_model(inside, "customers", None if level == "champion" else RUN_IDS[0])


def test_the_runs_folder_itself_may_be_a_link(tmp_path):
    store(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert load_model(tmp_path / "link", "customers", RUN_IDS[0]).n_rows == 200
