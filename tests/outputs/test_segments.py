"""Segments as data: descriptions, names that go on, names that are refused, nothing leaked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outputs.test_models import RUN_IDS, make_model

from gpuseg.errors import ModelError, SettingsError
from gpuseg.explained import Segment, Trait
from gpuseg.outputs.models import load_model, promote, rename_segment, save_model
from gpuseg.outputs.segments import (
    check_segment_name,
    continued_segments,
    discreet,
    drafted_segments,
    segments_from_dicts,
    segments_table,
    segments_to_dicts,
)

TRAITS = (
    (
        Trait("spend", "numeric", 2.0, 92.14, 50.2),
        Trait("city", "categorical", 1.4, 0.78, 0.3, "Rome"),
    ),
    (
        Trait("joined", "datetime", -1.0, 15000.0, 15800.0),
        Trait("vip", "boolean", 1.0, 0.9, 0.1),
    ),
    (),
)
SEGMENTS = drafted_segments(TRAITS, range(len(TRAITS)))


def called(cluster, name, segments=SEGMENTS):
    return tuple(s._replace(name=name) if s.cluster_id == cluster else s for s in segments)


def test_segments_are_described_in_numbers():
    assert [segment.description for segment in SEGMENTS] == [
        "spend 92.1 on average (everyone 50.2); city is Rome for 78 % (everyone 30 %)",
        "joined around 2011-01-26 (everyone 2013-04-05); vip is 1 for 90 % (everyone 10 %)",
        "no column sets it apart",
    ]
    table = segments_table(SEGMENTS, [6, 3, 1])
    assert table.column_names == ["cluster_id", "name", "size", "share", "description"]
    assert table["name"].to_pylist() == ["High spend, Rome", "Early joined, vip", "Average"]
    assert table["share"].to_pylist() == [0.6, 0.3, 0.1]


def test_discreet_segments_hold_no_value():
    hidden = discreet(called(2, "My people"))
    assert [segment.name for segment in hidden] == [
        "High spend, distinct city",
        "Early joined, distinct vip",
        "My people",
    ]
    for secret in ("Rome", "92", "50.2", "78", "2011"):
        assert secret not in repr(hidden)


def test_segments_come_back_from_json():
    stored = json.loads(json.dumps(segments_to_dicts(called(1, "Früh"))))
    assert segments_from_dicts(stored) == called(1, "Früh")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=9), child),
    )
)
def test_anything_else_is_a_model_error(data):
    try:
        assert segments_from_dicts(data) == ()
    except ModelError:
        return


def test_names_go_on_where_segments_do():
    earlier = called(0, "Big spenders")
    kept, warnings = continued_segments(SEGMENTS, earlier)
    assert kept == earlier
    assert warnings == ()
    changed = ((Trait("age", "numeric", 1.0, 60.0, 40.0),), *TRAITS[1:])
    other = drafted_segments(changed, range(3))
    # what somebody called it goes on with the id, whatever sets it apart now
    kept, (warning,) = continued_segments(other, earlier)
    assert [segment.name for segment in kept] == ["Big spenders", "Early joined, vip", "Average"]
    assert kept[0].draft == "High age"
    assert "segment 0 is still called 'Big spenders'" in warning
    # a draft that was never edited is nobody's loss, and new names go around kept ones
    fresh, warnings = continued_segments(other, called(1, "high AGE"))
    assert [segment.name for segment in fresh] == ["High age 2", "high AGE", "Average"]
    assert warnings == ()


def test_fewer_segments_lose_the_names_of_the_rest():
    kept, (warning,) = continued_segments(SEGMENTS[:2], called(2, "The rest"))
    assert len(kept) == 2
    assert "segment 2, which was called 'The rest', does not go on" in warning


def test_names_follow_ids_and_not_positions():
    drafted = drafted_segments(TRAITS, (1, 2, 7))
    assert [segment.cluster_id for segment in drafted] == [1, 2, 7]
    earlier = (
        Segment(0, "Gone", "Gone", "", ()),
        Segment(2, "Ours", "Draft", "", TRAITS[0]),
        Segment(7, "Average", "Average", "", ()),
    )
    kept, (warning,) = continued_segments(drafted, earlier)
    assert [segment.name for segment in kept] == ["High spend, Rome", "Ours", "Average"]
    assert "segment 2 is still called" in warning
    assert segments_table(kept, [5, 4, 1])["cluster_id"].to_pylist() == [1, 2, 7]
    assert segments_table(kept, [5, 4, 1])["size"].to_pylist() == [5, 4, 1]


@pytest.mark.parametrize(
    ("cluster", "name", "words"),
    [
        (3, "x", r"no segment 3 with a name; it has: 0, 1, 2"),
        (-1, "x", "no segment -1"),
        (0, "  ", "cannot be the name"),
        (0, "x" * 81, "cannot be the name"),
        (0, "a\nb", "cannot be the name"),
        (0, "\u202egnp", "cannot be the name"),
        (0, "AVERAGE", "segment 2 of model 'm' is called 'Average' already"),
    ],
)
def test_names_that_are_refused(cluster, name, words):
    with pytest.raises(SettingsError, match=words):
        check_segment_name(SEGMENTS, cluster, name, "m")


# -- with the model ----------------------------------------------------------------------


@pytest.fixture
def runs_dir(tmp_path):
    model = make_model(segments=SEGMENTS)
    run_dir = tmp_path / model.name / model.run_id
    run_dir.mkdir(parents=True)
    save_model(run_dir, model)
    promote(tmp_path, model.name, model.run_id)
    return tmp_path


def names(runs_dir):
    return [segment.name for segment in load_model(runs_dir, "customers").segments]


def test_a_new_name_is_kept_with_the_model_and_can_be_taken_back(runs_dir):
    assert load_model(runs_dir, "customers").segments == SEGMENTS
    rename_segment(runs_dir, "customers", 0, " Große Körbe ")
    rename_segment(runs_dir, "customers", 2, "High spend, Rome")  # free again
    assert names(runs_dir) == ["Große Körbe", "Early joined, vip", "High spend, Rome"]
    rename_segment(runs_dir, "customers", 2, "Rest")
    rename_segment(runs_dir, "customers", 0, "High spend, Rome")
    assert names(runs_dir) == ["High spend, Rome", "Early joined, vip", "Rest"]
    assert load_model(runs_dir, "customers").segments[0] == SEGMENTS[0]


def test_two_segments_can_exchange_their_names(runs_dir):
    rename_segment(runs_dir, "customers", 0, "aside")
    rename_segment(runs_dir, "customers", 1, "High spend, Rome")
    rename_segment(runs_dir, "customers", 0, "Early joined, vip")
    assert names(runs_dir) == ["Early joined, vip", "High spend, Rome", "Average"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"0": 5}', '{"x": "a"}', '{"7": "a"}', '{"0": ""}', '{"0": "a", "1": "A"}',
     "[" * 100_000],
    ids=["empty", "list", "number", "key", "unknown", "blank", "twins", "deep"],
)  # fmt: skip
def test_a_damaged_file_of_names_is_a_model_error(runs_dir, content):
    path = runs_dir / "customers" / RUN_IDS[0] / "model" / "names.json"
    path.write_text(content)
    with pytest.raises(ModelError, match="remove that file to use the drafts"):
        load_model(runs_dir, "customers")


def test_a_link_in_place_of_the_names_is_refused(runs_dir, tmp_path):
    path = runs_dir / "customers" / RUN_IDS[0] / "model" / "names.json"
    (tmp_path / "elsewhere.json").write_text('{"0": "x"}')
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ModelError, match=r"names\.json"):
        load_model(runs_dir, "customers")


def test_a_model_from_before_names_has_none(tmp_path):
    model = make_model()
    run_dir = tmp_path / model.name / model.run_id
    run_dir.mkdir(parents=True)
    save_model(run_dir, model)
    promote(tmp_path, model.name, model.run_id)
    assert load_model(tmp_path, "customers").segments == ()
    with pytest.raises(SettingsError, match="older than names"):
        rename_segment(tmp_path, "customers", 0, "x")


def test_segments_that_are_not_those_of_the_clusters_are_damage(tmp_path):
    model = make_model(segments=SEGMENTS[:2])
    run_dir = tmp_path / model.name / model.run_id
    run_dir.mkdir(parents=True)
    save_model(run_dir, model)
    with pytest.raises(ModelError, match="names 2 segments and has 3 clusters"):
        load_model(tmp_path, "customers", model.run_id)
