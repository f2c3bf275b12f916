"""A loopback Treasure Data for each test, and clients that do not wait long for it."""

from __future__ import annotations

import pytest

pytest.importorskip("pytd", reason="the extra 'td' is not installed")

from treasure_data.loopback import loopback_treasure_data


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Run a server, and lead the clients to it by the variables that they read anyway."""
    monkeypatch.chdir(tmp_path)
    with loopback_treasure_data() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        for name in ("HTTP_PROXY", "http_proxy", "GPUSEG_WAREHOUSE"):
            monkeypatch.delenv(name, raising=False)
        yield running


@pytest.fixture
def quick(monkeypatch):
    """Shorten what the clients wait; what they do stays the same."""
    from gpuseg.activation import cdp, master_run, pushing
    from gpuseg.tables import treasure_data_client, treasure_data_import

    monkeypatch.setattr(treasure_data_client, "MAX_RETRY_SECONDS", -1)
    monkeypatch.setattr(treasure_data_client, "STEP_WAITS_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(treasure_data_client, "TIMEOUT_SECONDS", 10.0)
    monkeypatch.setattr(treasure_data_client, "TRINO_ATTEMPTS", 2)
    monkeypatch.setattr(treasure_data_import, "POLL_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(cdp, "WAITS_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(cdp, "TIMEOUT_SECONDS", 10.0)
    monkeypatch.setattr(master_run, "POLL_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(pushing, "EDIT_SECONDS", 0.01)
