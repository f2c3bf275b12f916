"""Names of models and runs: folder names that work everywhere and lead nowhere else."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from shlex import quote

from gpuseg.errors import ModelError, SettingsError
from gpuseg.settings import PARAMETERS

#: A run is named by the second it began in (UTC) and six random hexadecimal digits.
RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")

_LONGEST = 100
_LONGEST_BYTES = 200  # file systems count bytes and allow 255; leave room for additions

_RESERVED_ON_WINDOWS = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{i}" for port in ("com", "lpt") for i in range(10)}
)
_TABLE_ENDINGS = re.compile(
    r"\.(parquet|csv|tsv|jsonl|ndjson|json|arrow|feather|ipc|txt)$", re.IGNORECASE
)


def check_model_name(name: str) -> str:
    """Return `name` if it can be the name of a folder on every system.

    Raises
    ------
    SettingsError
        If it is empty or too long, starts with a dot, ends with a dot or a blank, holds a
        separator, a wildcard or an invisible character, or is reserved by Windows.
    """
    problem = _problem(name)
    if problem:
        raise SettingsError(
            f"the model name {name[:120]!r} {problem}; use letters, digits, blanks, '-', '_' "
            f"and '.', at most {_LONGEST} of them, beginning with a letter or digit"
        )
    return name


def default_model_name(input_name: str) -> str:
    """Make a model name from the name of a table.

    Examples
    --------
    >>> default_model_name("ml_datasets.gluon_train")
    'ml_datasets.gluon_train'
    >>> default_model_name("data/CC GENERAL.csv.gz")
    'cc_general'
    """
    last = re.split(r"[/\\]", input_name.strip().rstrip("/\\"))[-1]
    stem = _TABLE_ENDINGS.sub("", re.sub(r"(?i)\.gz$", "", last))
    plain = unicodedata.normalize("NFKC", stem).lower()
    slug = re.sub(r"[^\w.-]+", "_", plain)[:48].strip("._-") or "model"
    return f"table_{slug}" if _problem(slug) else slug


def check_run_id(run_id: str) -> str:
    """Return `run_id` if it looks like one.

    Raises
    ------
    ModelError
        If it does not.
    """
    if not RUN_ID.fullmatch(run_id):
        raise ModelError(
            f"{run_id[:120]!r} is not a run id; they look like 20261123T223045Z-4f2a9c "
            "(gpuseg models list shows them)"
        )
    return run_id


def model_folder(runs_dir: Path, name: str) -> Path:
    """Return the folder of a model, which may not exist yet, but is no link to elsewhere.

    Raises
    ------
    SettingsError
        If the name cannot be the name of a folder.
    ModelError
        If something put a symbolic link in its place.
    """
    return refuse_link(runs_dir / check_model_name(name))


def refuse_link(path: Path) -> Path:
    """Return `path` unless it is a symbolic link.

    Raises
    ------
    ModelError
        If it is one.
    """
    if path.is_symlink():
        raise ModelError(
            f"'{path}' is a symbolic link; models and runs are kept in real folders inside "
            "the runs folder (remove the link, or point --runs-dir to its target)"
        )
    return path


def _problem(name: str) -> str:
    if not name:
        return "is empty"
    if len(name) > _LONGEST or len(name.encode("utf-8", "replace")) > _LONGEST_BYTES:
        return "is too long"
    hidden = next((c for c in name if c != " " and unicodedata.category(c)[0] in "CZ"), None)
    if hidden:
        return f"holds the invisible character U+{ord(hidden):04X}"
    bad = next((c for c in name if c in '/\\:*?"<>|'), None)
    if bad:
        return f"holds {bad!r}"
    if name[0] in ". -" or name[-1] in ". ":
        return "begins with a dot, a blank or a dash, or ends with a dot or a blank"
    if name.split(".")[0].rstrip().lower() in _RESERVED_ON_WINDOWS:
        return "is reserved by Windows"
    return ""


def promote_command(name: str, run_id: str, runs_dir: str) -> str:
    """Return what to type so that a run that was refused is published."""
    elsewhere = (
        "" if runs_dir == PARAMETERS["runs_dir"].default else f" --runs-dir {quote(runs_dir)}"
    )
    return f"gpuseg models promote {quote(name)} {run_id}{elsewhere}"
