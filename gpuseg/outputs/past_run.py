"""A run of the past, from its manifest: what it takes to do it again, and what differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuseg.errors import SettingsError
from gpuseg.outputs.keeping import hash_of
from gpuseg.outputs.manifest import MANIFEST, read_manifest, versions
from gpuseg.records import Table
from gpuseg.redaction import HIDDEN
from gpuseg.settings import PARAMETERS, Settings, resolve


@dataclass(frozen=True)
class PastRun:
    """A run that was.

    Parameters
    ----------
    run_dir
        The folder that holds its manifest; a manifest that was copied elsewhere stands alone.
    facts
        The manifest.
    """

    run_dir: Path
    facts: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """Which run."""
        return str(self.facts["run_id"])

    @property
    def earlier_run_id(self) -> str | None:
        """The run whose model it continued, or whose model placed its rows."""
        found = self.facts.get("earlier_run_id")
        return str(found) if found else None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that the manifest has, without those that held a secret."""
        settings = {name: _without_hidden(value) for name, value in self._settings.items()}
        return {n: v for n, v in settings.items() if v is not None and not _is_hidden(v)}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parameters that held a secret, which manifests do not keep."""
        return tuple(n for n, v in self._settings.items() if _is_hidden(_without_hidden(v)))

    @property
    def _settings(self) -> Mapping[str, Any]:
        return dict(self.facts["settings"])

    def resolve(
        self,
        given: Mapping[str, Any],
        *,
        environ: Mapping[str, str],
        config: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Return its parameters, under those that are given now; see `settings.resolve`.

        Raises
        ------
        SettingsError
            If one that held a secret is not given now, or they contradict each other.
        """
        over = {n for n, v in given.items() if v is not None} | set(config or {})
        over |= {n for n in PARAMETERS if environ.get(f"GPUSEG_{n.upper()}")}
        missing = [name for name in self.left_out if name not in over]
        if missing:
            raise SettingsError(
                f"the manifest of run {self.run_id} leaves {missing[0]} out, because it held a "
                f"secret; give --{missing[0].replace('_', '-')} or GPUSEG_{missing[0].upper()}"
            )
        named = {"input_table", "input_query"}
        parameters = self.parameters
        if over & named:  # the one instead of the other
            parameters = {n: v for n, v in parameters.items() if n not in named}
        return resolve(given, environ=environ, config=parameters | dict(config or {}))

    def is_first_again(self, table: Table) -> bool:
        """Whether it continued no run, and these are the rows that it had."""
        return self.earlier_run_id is None and not _other_rows(self.facts["input"], table)

    @property
    def without_earlier(self) -> str:
        """Say why there is nothing that it can be compared with."""
        if self.earlier_run_id is None:
            return f"run {self.run_id} continued no run, and its input has changed since"
        return f"run {self.run_id} continued run {self.earlier_run_id}, which is not kept"

    def differences(self, table: Table, backend: str, *, continues: bool) -> tuple[str, ...]:
        """Say why the same result cannot be expected: other rows, versions or another engine.

        Parameters
        ----------
        continues
            Whether the model that it continued, or placed rows with, is still there.
        """
        found = []
        if self.earlier_run_id is not None and not continues:
            found.append(
                f"run {self.run_id} continued run {self.earlier_run_id}, which is not kept under "
                "this model's name: segments may be called by other ids"
            )
        rows = _other_rows(self.facts["input"], table)
        if rows:
            found.append(f"the input is not the one that run {self.run_id} read: {rows}")
        then, now = self.facts.get("versions") or {}, versions()
        moved = [
            f"{name} {then.get(name, 'none')} → {now.get(name, 'none')}"
            for name in {**then, **now}
            if then.get(name) != now.get(name)
        ]
        if moved:
            found.append(f"run {self.run_id} was made with other versions: {', '.join(moved)}")
        if self.facts.get("backend") not in (None, backend):
            engine = self.facts["backend"]
            found.append(f"run {self.run_id} was made by the {engine} engine, this is {backend}")
        if self._settings.get("max_seconds") is not None:
            found.append(f"run {self.run_id} had a time budget: what it reached depends on time")
        return tuple(found)


def read_past_run(where: Path) -> PastRun:
    """Return the run of a manifest, or of a run folder.

    Raises
    ------
    SettingsError
        If there is none.
    ModelError
        If the manifest is damaged.
    """
    path = where / MANIFEST if where.is_dir() else where
    if not path.is_file():
        raise SettingsError(
            f"'{where}' is no manifest and no run folder; give RUNS_DIR/MODEL/RUN_ID or its "
            f"{MANIFEST} (gpuseg models history lists the runs of a model)"
        )
    return PastRun(path.parent, read_manifest(path))


def _without_hidden(value: Any) -> Any:
    """Leave a password out of an address: the driver then takes it from the environment."""
    return value.replace(f":{HIDDEN}@", "@") if isinstance(value, str) else value


def _is_hidden(value: Any) -> bool:
    texts = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(text, str) and HIDDEN in text for text in texts)


def _other_rows(then: Mapping[str, Any], table: Table) -> str:
    columns = {column["name"]: column["type"] for column in then.get("columns") or ()}
    now = {column.name: str(column.type) for column in table.arrow.schema}
    moved = [name for name in {**columns, **now} if columns.get(name) != now.get(name)]
    if moved:
        return "other columns or types: " + ", ".join(f"'{name}'" for name in moved[:10])
    if then.get("n_rows") != table.n_rows:
        return f"{then.get('n_rows'):,} rows then, {table.n_rows:,} now"
    if then.get("content_hash") != hash_of(table):
        return "as many rows, but other values"
    return ""
