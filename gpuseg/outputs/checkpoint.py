"""What a run that dies leaves of its sweep: the next one goes on from there.

``RUNS_DIR/<model>/.checkpoint/`` holds the fits of k-means, and then the scores, of the run
that is at work. A run of the same rows, settings and versions takes them and gives the same
bits as one that was never interrupted; for any other they are nothing. See
docs/decisions/crashes.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.clustering.kmeans import KMeansSweepFit, sweep_kmeans
from gpuseg.clustering.sweep import sweep
from gpuseg.outputs.conclusion import model_name_of
from gpuseg.outputs.durable import sync_folder
from gpuseg.outputs.manifest import versions
from gpuseg.outputs.model_names import model_folder, refuse_link
from gpuseg.records import Array, KMeansFit, KScore, SweepResult
from gpuseg.settings import Settings

log = logging.getLogger("gpuseg")

CHECKPOINT = ".checkpoint"

#: Work of fewer seconds is done again rather than kept: writing it, and telling later whether
#: the rows are the same, would cost more than it saves.
WORTH_SECONDS = 10.0

#: How a file that is cut off, edited or of another version shows itself.
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile,
)  # fmt: skip

_Arrays = dict[str, np.ndarray]


class Checkpoint:
    """Sweeps, and keeps on the way what took long.

    Parameters
    ----------
    folder
        Where it is kept; None for a sweep that keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        #: what was taken from an interrupted run, in words; empty when nothing was
        self.resumed = ""

    @classmethod
    def of(cls, settings: Settings, table_name: str) -> Checkpoint:
        """Return the checkpoint of a run; the caller holds the model's lock.

        With a time budget nothing is kept: its results depend on the clock.
        """
        if settings.max_seconds is not None:
            return cls(None)
        folder = model_folder(Path(settings.runs_dir), model_name_of(settings, table_name))
        return cls(refuse_link(folder / CHECKPOINT))

    def sweep(
        self, backend: Backend, X: Array, k_values: Sequence[int], **options: Any
    ) -> SweepResult:
        """Do what `clustering.sweep.sweep` does, as far as it is not there already.

        Parameters and errors are the same.
        """
        if self._folder is None:
            return sweep(backend, X, k_values, **options)
        kept = _Kept(self._folder, backend, X, {**options, "k_values": list(k_values)})
        fits: dict[int, KMeansSweepFit] | None = kept.load("kmeans", _fits)
        scored = kept.load("scores", _scored) if fits is not None else None
        if fits is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            self.resumed = f"k-means{' and scores' if scored else ''} of an interrupted run"
            log.info("resumed: %s", self.resumed)
        if fits is not None and scored is not None:
            return SweepResult(fits={k: found.fit for k, found in fits.items()}, **scored)

        def kmeans(*given: Any, **more: Any) -> dict[int, KMeansSweepFit]:
            if fits is not None:
                return fits
            found = sweep_kmeans(*given, **more)
            kept.save("kmeans", lambda: _of_fits(backend, found))
            return found

        result = sweep(backend, X, k_values, kmeans=kmeans, **options)
        kept.save("scores", lambda: _of_scored(result))
        return result


def remove_checkpoint(runs_dir: Path, name: str) -> None:
    """Remove what is kept for a run that has come to its end."""
    shutil.rmtree(refuse_link(model_folder(runs_dir, name) / CHECKPOINT), ignore_errors=True)


class _Kept:
    """The files of one sweep."""

    def __init__(
        self, folder: Path, backend: Backend, X: Array, options: Mapping[str, Any]
    ) -> None:
        self._folder, self._backend, self._X = folder, backend, X
        self._options = {k: v for k, v in options.items() if k != "progress"}
        self._begun = time.monotonic()
        self._known_key = ""

    def load(self, step: str, read: Callable[[Backend, Any, Any], Any]) -> Any:
        """Return what is kept of a step, or None; what is of no use is removed."""
        path = self._folder / f"{step}.npz"
        if not path.exists():
            return None
        try:
            # opened here, because NumPy leaves a damaged file open
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                facts = json.loads(file["facts"].tobytes())
                if facts["key"] == self._key():
                    return read(self._backend, facts, file)
            log.info("%s belongs to other rows, settings or versions: removed", path.name)
        except _UNREADABLE as error:
            log.warning("'%s' is damaged (%s): removed", path, error)
        path.unlink(missing_ok=True)
        return None

    def save(self, step: str, contents: Callable[[], tuple[dict[str, Any], _Arrays]]) -> None:
        """Keep a step if it took long enough; a disk that refuses is no reason to stop."""
        seconds, self._begun = time.monotonic() - self._begun, time.monotonic()
        if seconds < WORTH_SECONDS:
            return
        path = self._folder / f"{step}.npz"
        partial = path.with_suffix(".partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            facts, arrays = contents()
            text = json.dumps(facts | {"key": self._key()}).encode()
            named: dict[str, Any] = {"facts": np.frombuffer(text, np.uint8), **arrays}
            with partial.open("wb") as file:
                np.savez(file, **named)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)
        except OSError as error:
            log.warning("'%s' cannot be written (%s): not kept", path, error.strerror or error)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def _key(self) -> str:
        """Digest all that the sweep depends on."""
        if not self._known_key:
            X = self._X
            facts = {
                "rows": [*X.shape, str(X.dtype), self._backend.digest(X.reshape(-1)).hex()],
                "backend": self._backend.name,
                "versions": versions(),
                "options": self._options,
            }
            text = json.dumps(facts, sort_keys=True, default=_digest).encode()
            self._known_key = hashlib.blake2b(text, digest_size=16).hexdigest()
        return self._known_key


def _digest(value: Any) -> Any:
    """Stand for a value that JSON does not know: an array by its bits."""
    if isinstance(value, np.ndarray):
        bits = hashlib.blake2b(np.ascontiguousarray(value).data, digest_size=16).hexdigest()
        return [*value.shape, str(value.dtype), bits]
    return repr(value)


# -- what the files hold -----------------------------------------------------------------


def _of_fits(
    backend: Backend, found: Mapping[int, KMeansSweepFit]
) -> tuple[dict[str, Any], _Arrays]:
    facts, arrays = [], {}
    for k, of_k in found.items():
        about = of_k._asdict()
        fit: KMeansFit = about.pop("fit")
        facts.append({"k": k, "inertia": fit.inertia, "n_iter": int(fit.n_iter), "about": about})
        arrays[f"centroids.{k}"] = backend.to_host(fit.centroids)
        small = np.min_scalar_type(k)
        arrays[f"labels.{k}"] = backend.to_host(fit.labels).astype(small)
    return {"fits": facts}, arrays


def _fits(backend: Backend, facts: dict[str, Any], file: Any) -> dict[int, KMeansSweepFit]:
    found = {}
    for about in facts["fits"]:
        k = int(about["k"])
        fit = KMeansFit(
            centroids=backend.from_host(file[f"centroids.{k}"]),
            labels=backend.from_host(file[f"labels.{k}"].astype(np.int32)),
            inertia=about["inertia"],
            n_iter=about["n_iter"],
        )
        found[k] = KMeansSweepFit(fit=fit, **about["about"])
    return found


def _of_scored(result: SweepResult) -> tuple[dict[str, Any], _Arrays]:
    """Take a result apart: all but the fits, which are in a file of their own."""
    facts: dict[str, Any] = {"scores": [asdict(score) for score in result.scores.values()]}
    arrays = {f"samples.{k}": values for k, values in result.samples.items()}
    arrays["scored_rows"] = result.scored_rows
    named = ("fits", "scores", "samples", "scored_rows")
    for field in fields(result):
        if field.name not in named:
            value = getattr(result, field.name)
            is_by_k = isinstance(value, Mapping)
            facts.setdefault("others", {})[field.name] = {
                "is_by_k": is_by_k,
                "value": list(value.items()) if is_by_k else value,
            }
    return facts, arrays


def _scored(_backend: Backend, facts: dict[str, Any], file: Any) -> dict[str, Any]:
    scores = {score["n_clusters"]: KScore(**score) for score in facts["scores"]}
    others = {
        name: {k: _tuples(v) for k, v in about["value"]}
        if about["is_by_k"]
        else _tuples(about["value"])
        for name, about in facts["others"].items()
    }
    samples = {k: file[f"samples.{k}"] for k in scores}
    return {"scores": scores, "samples": samples, "scored_rows": file["scored_rows"], **others}


def _tuples(value: Any) -> Any:
    """Turn JSON's lists back into the tuples of records."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
