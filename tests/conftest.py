"""What tests of several rooms share."""

import contextlib

import pytest
from postgres_server import Server


@pytest.fixture(scope="session")
def postgres_server():
    """A real PostgreSQL server; skipped with a reason where there is none."""
    with contextlib.closing(Server()) as server:
        yield server
