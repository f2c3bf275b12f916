"""What gpuseg uses of the GPU libraries, read from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LIBRARIES = {"cupy", "cupyx", "cuml", "cudf", "rmm", "pylibcudf"}

_MENTION = re.compile(rf"\b({'|'.join(sorted(LIBRARIES))}|xp)\b")


class Use(NamedTuple):
    """A name of a GPU library where it stands, and how it is called, if it is."""

    place: str  # file:line
    name: str  # e.g. cupy.concatenate
    called: bool
    n_positional: int = 0
    keywords: tuple[str, ...] = ()
    open_ended: bool = False  # a * or ** argument: keywords may be more, arguments unknown
    names: tuple[str, ...] = ()  # what the positional arguments are called, where it is known
    guessed: bool = False  # a method of something that may be an array


def uses_in(folder: Path) -> list[Use]:
    """Return every use in the Python files of a folder."""
    return [
        use
        for path in sorted(folder.rglob("*.py"))
        for use in uses_of(path.read_text(encoding="utf-8"), str(path.relative_to(folder)))
    ]


def uses_of(source: str, file: str) -> list[Use]:
    """Return every use in a source text.

    ``xp`` stands for the array library of a backend, which on a GPU is CuPy.
    """
    if not _MENTION.search(source):
        return []
    nodes = list(ast.walk(ast.parse(source)))
    known = _imported(nodes)
    called = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    found = list(_imports(nodes, file))
    for node in nodes:
        name = _dotted(node, known)
        if name is None or id(node) in inner or "." not in name:
            continue
        place = f"{file}:{getattr(node, 'lineno', 0)}"
        found.append(_call(place, name, called[id(node)]) if id(node) in called else
                     Use(place, name, called=False))  # fmt: skip
    return found + list(_methods(nodes, file, known))


def _methods(nodes: list[ast.AST], file: str, known: dict[str, str]) -> Iterator[Use]:
    """Yield calls of methods as if all were arrays', in files where arrays may be CuPy's."""
    modules = {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        if _dotted(node.func, known) or (isinstance(owner, ast.Name) and owner.id in modules):
            continue
        use = _call(f"{file}:{node.lineno}", f"cupy.ndarray.{node.func.attr}", node)
        # of a host array that comes by, the arguments may be too few for CuPy
        yield use._replace(guessed=True, open_ended=True)


def _call(place: str, name: str, call: ast.Call) -> Use:
    positional = [a for a in call.args if not isinstance(a, ast.Starred)]
    keywords = tuple(k.arg for k in call.keywords if k.arg is not None)
    open_ended = len(positional) + len(keywords) < len(call.args) + len(call.keywords)
    return Use(place, name, True, len(positional), keywords, open_ended)


def _imported(nodes: list[ast.AST]) -> dict[str, str]:
    """Return what local names stand for."""
    known = {library: library for library in LIBRARIES} | {"xp": "cupy"}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in LIBRARIES and alias.asname:
                    known[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return known


def _imports(nodes: list[ast.AST], file: str) -> Iterator[Use]:
    """Yield what is imported from a library by name: a wrong path is found before a call."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            for alias in node.names:
                yield Use(f"{file}:{node.lineno}", f"{node.module}.{alias.name}", called=False)


def _dotted(node: ast.AST, known: dict[str, str]) -> str | None:
    """Return the full name of an expression like ``xp.linalg.eigh``; None for any other."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    if node.attr == "xp":  # device.xp, self.xp
        return "cupy"
    if node.attr.startswith("__"):
        return None
    start = _dotted(node.value, known)
    return None if start is None else f"{start}.{node.attr}"
