"""A PostgreSQL server of the tests' own: in a folder of its own, on a free loopback port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "s3cret/p@ss"
QUOTED_PASSWORD = "s3cret%2Fp%40ss"


def programs() -> Path | None:
    """Return the folder of initdb and pg_ctl; Debian keeps it out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


def require_postgres() -> Path:
    """Return the programs' folder, or skip; under GPUSEG_REQUIRE_POSTGRES=1 absence fails."""
    found = programs()
    reason = "there is no PostgreSQL server here (apt-get install postgresql)"
    if found is None and os.environ.get("GPUSEG_REQUIRE_POSTGRES") == "1":
        pytest.fail(reason)
    if found is None:
        pytest.skip(reason)
    return found


class Server:
    """Starts on creation; `kill` is what a power cut is."""

    def __init__(self) -> None:
        self._programs = require_postgres()
        self.folder = Path(tempfile.mkdtemp(prefix="gpuseg-postgres-"))
        # initdb refuses to run as root
        self._as_user = []
        if os.geteuid() == 0:
            self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            shutil.chown(self.folder, "nobody")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = self.folder / "password"
        words.write_text(PASSWORD)
        self._run(
            "initdb", "-D", self.data, "-U", "gpuseg", "-E", "UTF8", "--no-locale", "--no-sync",
            "--auth=scram-sha-256", f"--pwfile={words}",
        )  # fmt: skip
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(
        self,
        options: str = "",
        *,
        user: str = "gpuseg",
        password: str | None = QUOTED_PASSWORD,
        database: str = "postgres",
    ) -> str:
        login = user if password is None else f"{user}:{password}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}{options}"

    def sql(self, statements: str, **login: Any) -> list[tuple]:
        """Run statements as a user would, each committed; return the last one's rows."""
        import adbc_driver_postgresql.dbapi as driver

        with driver.connect(self.url(**login), autocommit=True) as connection:
            rows: list[tuple] = []
            for statement in filter(str.strip, statements.split(";")):
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    rows = cursor.fetchall()
            return rows

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run(
            "pg_ctl", "-D", self.data, "-l", self.folder / "log", "-o", options, "-w", "start"
        )

    def kill(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self._as_user, str(self._programs / program), *map(str, arguments)]
        subprocess.run(
            command, check=True, cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
