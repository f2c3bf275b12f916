"""Secrets go, everything else stays."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuseg.redaction import redact_settings, redact_text

SECRET = "Zx9-s3cret"


@pytest.mark.parametrize(
    "settings",
    [
        {"td_api_key": SECRET},
        {"API_TOKEN": SECRET},
        {"options": {"password": SECRET, "nested": [{"client_secret": [SECRET]}]}},
        {"warehouse": f"postgresql://ann:{SECRET}@host:5432/db"},
        {"warehouse": f"postgresql://ann:a/b@c:{SECRET}@host/db"},
        {"warehouse": f"postgresql://:{SECRET}@host/db"},
        {"warehouse": f"postgresql://host/db?user=ann&password={SECRET}"},
        {"warehouse": f"host=h password='a {SECRET}' user=ann"},
        {"warehouse": f"host=h password = {SECRET} user=ann"},
        {"columns": ("a", f"https://u:{SECRET}@host/x")},
        {"input_query": f"select * from read_csv('s3://b?apikey={SECRET}')"},
    ],
)
def test_secrets_disappear(settings):
    assert SECRET not in json.dumps(redact_settings(settings))


def test_everything_else_stays():
    settings = {
        "foreign_key": "customer_id",
        "td_api_key": None,
        "token": "",
        "warehouse": "postgresql://ann@host:5432/db?sslmode=require",
        "min_clusters": 2,
        "columns": ["age", "a@b.c"],
        "force_refit": True,
    }
    assert redact_settings(settings) == settings


@given(st.text(alphabet=st.characters(exclude_categories=["Z", "C"]), min_size=6))
def test_any_password_in_a_url_disappears(password):
    password = f"q7{password}7q"
    text = f"connecting to postgresql://ann:{password}@host/db failed"
    assert redact_text(text) == "connecting to postgresql://ann:***@host/db failed"


def test_options_of_a_driver_are_hidden_whatever_they_are_called():
    address = "adbc:adbc_driver_x?uri=x%3A%2F%2Fann%3Apw%40host&passphrase=pw"
    assert redact_text(f"no {address} here") == "no adbc:adbc_driver_x?*** here"
    assert redact_settings({"warehouse": address}) == {"warehouse": "adbc:adbc_driver_x?***"}
