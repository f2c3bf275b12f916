"""Read parameters from a YAML file or from a digdag workflow.

A digdag ``.dig`` file is YAML in which a task with the operator ``ipynb>`` and
``notebook: clustering`` carries the notebook's parameters, so a present workflow
moves over without edits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from gpuseg.errors import SettingsError

#: Keys of an ``ipynb>`` task that steer the notebook service, not the clustering.
NOTEBOOK_SERVICE_KEYS = frozenset({"notebook", "docker", "share_model", "timeout", "type"})

_VARIABLE = re.compile(r"\$\{\s*([\w.]+)\s*\}")


class _Loader(yaml.SafeLoader):
    """YAML as digdag writes it: ``!include`` is there but not followed."""


_Loader.add_constructor("!include", lambda _loader, _node: None)


def read_config(
    path: Path, *, environ: Mapping[str, str], now: datetime | None = None
) -> dict[str, Any]:
    """Return the parameters in a YAML or ``.dig`` file.

    Parameters
    ----------
    path
        A mapping of parameter names (dashes or underscores), or a digdag workflow with
        exactly one ``ipynb>`` task whose notebook is ``clustering``.
    environ
        Values for ``${variables}`` that the workflow itself does not define, by the same
        name; session variables that are not there are taken from the clock.
    now
        The clock, for tests.

    Raises
    ------
    SettingsError
        If the file is missing, is not YAML, or holds no or several clustering tasks.
    """
    content = _load(path)
    if path.suffix != ".dig":
        return {str(key).replace("-", "_"): value for key, value in content.items()}
    tasks = list(_clustering_tasks(content, {}))
    if len(tasks) != 1:
        raise SettingsError(
            f"'{path}' holds {len(tasks)} tasks with the operator 'ipynb>' and "
            "'notebook: clustering'; exactly one was expected"
        )
    task, exported = tasks[0]
    variables = _session_variables(now or datetime.now(UTC)) | dict(environ) | exported
    return {
        key: _substitute(value, variables, path)
        for key, value in task.items()
        if key not in NOTEBOOK_SERVICE_KEYS
    }


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
    except FileNotFoundError as error:
        raise SettingsError(f"the config file '{path}' does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the config file '{path}' cannot be read: {error}") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise SettingsError(f"the config file '{path}' is not valid YAML{line}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"the config file '{path}' must hold 'parameter: value' lines")
    return content


def _clustering_tasks(
    node: Any, exported: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each clustering task with the ``_export`` variables that hold there."""
    if not isinstance(node, dict):
        return
    own = node.get("_export")
    exported = exported | _flatten(own) if isinstance(own, dict) else exported
    for key, value in node.items():
        if key == "ipynb>" and isinstance(value, dict) and value.get("notebook") == "clustering":
            yield value, exported
        else:
            yield from _clustering_tasks(value, exported)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _session_variables(now: datetime) -> dict[str, Any]:
    seconds = int(now.timestamp())
    return {
        "session_id": seconds,
        "session_unixtime": seconds,
        "session_time": now.isoformat(timespec="seconds"),
        "session_date": now.date().isoformat(),
        "session_date_compact": now.strftime("%Y%m%d"),
    }


def _substitute(value: Any, variables: Mapping[str, Any], path: Path) -> Any:
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in variables:
            raise SettingsError(
                f"'{path}' uses ${{{name}}}, which neither its _export nor the environment "
                f"defines; set the environment variable {name}"
            )
        # a variable may use others, but not itself
        others = {key: known for key, known in variables.items() if key != name}
        return str(_substitute(str(variables[name]), others, path))

    return _VARIABLE.sub(replace, value)
