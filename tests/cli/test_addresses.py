"""An address whose password cannot be told from the rest: refused, and shown to nobody."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from gpuseg_process import gpuseg
from typer.testing import CliRunner

from gpuseg.addresses import check_address, secrets_of
from gpuseg.cli import app
from gpuseg.errors import GpusegError, SettingsError, SourceError
from gpuseg.settings import resolve
from gpuseg.tables import locate_warehouse
from gpuseg.tables.adbc_connection import Connection

UNREADABLE = [
    "postgresql://u:PASS LEAK@127.0.0.1:1/db",
    "postgresql://u:SEC@RET:PASSLEAK@127.0.0.1:1/db",
    "postgresql://u:a@PASSLEAK@127.0.0.1:1/db",
    "postgresql://u:%zzPASSLEAK@127.0.0.1:1/db",
    "postgresql://u:%00PASSLEAK@127.0.0.1:1/db",
    "postgresql://u:a/PASSLEAK@127.0.0.1:1/db",
    "postgresql://u:a?PASSLEAK@127.0.0.1:1/db",
    "postgresql://u:a#PASSLEAK@127.0.0.1:1/db",
    "postgresql://u:PASSLEAK/db",
    "postgresql://127.0.0.1:1/db?PASSLEAK",
    "postgresql://127.0.0.1:1/db?password=PASS LEAK",
    "postgresql:u:PASS LEAK@127.0.0.1:1/db",
    "postgres://u:a@PASSLEAK@127.0.0.1:1/db",
    "mysql://u:PASS LEAK@127.0.0.1:1/db",
    "adbc:adbc_driver_postgresql?uri=postgresql%3A%2F%2Fu%3Aa%40PASSLEAK%40127.0.0.1",
    "adbc:adbc_driver_postgresql?uri=postgresql://u:PASS LEAK@127.0.0.1:1/db",
]
READABLE = [
    "duckdb:/some@place/a b.duckdb",
    "td",
    "postgresql://",
    "postgresql:///db?host=/tmp",
    "postgresql://ann@host",
    "postgresql://ann:a:b@host:1/db?sslmode=require&connect_timeout=3",
    "postgresql://ann:p%40%2F%3A%3F%23%25%20w@one:1,two:2/db",
    "postgresql://[::1]:5432/db",
    "postgresql://one:1,two/db",
    "adbc:adbc_driver_sqlite?uri=/a b/x@y.sqlite",
    "adbc:driver?uri=ann:p@w@account/db",
]
TABLES = ("--input-table", "d.x", "--output-table", "d.y")
FILES = ("--input-table", "ok.parquet", "--output-table", "o.parquet", "--max-clusters", "2")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the current folder, which holds a table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUSEG_WAREHOUSE", raising=False)
    x = np.random.default_rng(0).normal([[0.0, 0.0], [9.0, 9.0]] * 30)
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1]}).write_parquet(tmp_path / "ok.parquet")
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes().decode("utf-8", "replace") for p in found}


def assert_refused(code: int, stdout: str, stderr: str, folder: Path, given: set[str]) -> None:
    assert (code, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert "the address of the warehouse cannot be read: " in stderr
    assert "percent-encode" in stderr
    assert "PGPASSWORD" in stderr
    assert not any(word in stderr for word in ("LEAK", "PASSL", "PASS ", "SEC", "zz", "127.0"))
    assert set(files(folder)) == given


@pytest.mark.parametrize("arguments", [TABLES, FILES], ids=["tables", "files"])
@pytest.mark.parametrize("address", UNREADABLE)
def test_it_is_refused_before_anything_is_written(folder, address, arguments):
    ran = CliRunner().invoke(app, ["run", *arguments, "--warehouse", address])
    assert_refused(ran.exit_code, ran.stdout, ran.stderr, folder, {"ok.parquet"})


@pytest.mark.parametrize("address", UNREADABLE)
def test_it_is_refused_from_the_environment_and_from_a_config_file(folder, address):
    ran = CliRunner().invoke(app, ["run", *FILES], env={"GPUSEG_WAREHOUSE": address})
    assert_refused(ran.exit_code, ran.stdout, ran.stderr, folder, {"ok.parquet"})
    (folder / "c.yaml").write_text(json.dumps({"warehouse": address}))
    ran = CliRunner().invoke(app, ["run", *FILES, "--config", "c.yaml"])
    assert_refused(ran.exit_code, ran.stdout, ran.stderr, folder, {"ok.parquet", "c.yaml"})


@pytest.mark.parametrize(
    "command",
    [
        ("plan", "--input-table", "ok.parquet"),
        ("load", "ok.parquet", "d.x"),
        ("models", "rollback", "m"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_it(folder, command):
    ran = CliRunner().invoke(app, [*command, "--warehouse", UNREADABLE[0]])
    assert_refused(ran.exit_code, ran.stdout, ran.stderr, folder, {"ok.parquet"})


def test_a_process_refuses_it_as_json_too(folder):
    ran = gpuseg(folder, "run", *FILES, "--log-format", "json", GPUSEG_WAREHOUSE=UNREADABLE[0])
    assert_refused(ran.returncode, ran.stdout, ran.stderr, folder, {"ok.parquet"})


@pytest.mark.parametrize("name", ["pass", "pwd", "PASSWD", "my_secret", "token", "sslpassword"])
def test_a_mistaken_name_of_a_password_is_no_way_out(folder, name):
    address = f"postgresql://127.0.0.1:1/db?{name}=PASSLEAK,LEAK;LEAK"
    ran = CliRunner().invoke(app, ["run", *FILES, "--warehouse", address, "--json"])
    assert ran.exit_code == 0, ran.stderr
    written = files(folder)
    assert any("manifest.json" in path for path in written)
    assert "LEAK" not in ran.stdout + ran.stderr
    assert not [path for path, text in written.items() if "LEAK" in text]


@pytest.mark.parametrize("address", READABLE)
def test_what_can_be_read_goes_on(address):
    check_address(address)
    assert resolve({"warehouse": address}).warehouse == address


def test_python_is_refused_as_well():
    with pytest.raises(SettingsError, match="cannot be read") as raised:
        resolve({"warehouse": UNREADABLE[0]})
    assert "LEAK" not in str(raised.value)
    with pytest.raises(SettingsError, match="warehouse is a list") as raised:
        resolve({"warehouse": [UNREADABLE[0]]})
    assert "LEAK" not in str(raised.value)


def test_the_secrets_of_an_address_are_known_as_written_and_as_meant():
    assert secrets_of("postgresql://u:a%40bc@h/db?pass=xyz&x=1") == ("a%40bc", "a@bc", "xyz")
    assert secrets_of("postgresql://u:ab@h/db") == ()
    uri = "postgresql%3A%2F%2Fu%3Aa%2540bc%40h"
    assert secrets_of(f"adbc:driver?uri={uri}&client_secret=one") == ("a%40bc", "a@bc", "one")
    assert secrets_of("adbc:driver?uri=u:pass@account") == ("pass",)


def test_what_a_driver_tears_out_of_an_address_is_hidden(monkeypatch):
    said = 'invalid integer value "p%40ssLEAK" for "port", not p@ssLEAK'
    module = pytest.importorskip("adbc_driver_manager.dbapi")
    pytest.importorskip("adbc_driver_postgresql")

    def connect(**_options: object) -> None:
        raise module.OperationalError(
            said, status_code=module.adbc_driver_manager.AdbcStatusCode.IO
        )

    monkeypatch.setattr(module, "connect", connect)

    with pytest.raises(GpusegError, match=r'invalid integer value "\*\*\*".*not \*\*\*') as raised:
        Connection(locate_warehouse("postgresql://u:p%40ssLEAK@h/db"), SourceError)
    assert "LEAK" not in str(raised.value)
