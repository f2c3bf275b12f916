"""Signatures of callables as short text, also of compiled ones that `inspect` cannot see.

A signature is written like a Python one whose defaults are all ``...``: names, order and
kinds are what a call depends on.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Sequence
from typing import Any


def signature_text(called: Any) -> str | None:
    """Return e.g. ``(X, y=..., *, sample_weight=...)``; None when nothing tells it."""
    try:
        return _of_python(inspect.signature(called))
    except (TypeError, ValueError):
        return _of_docstring(called.__doc__ or "")


def mistake(
    signature: str, n_positional: int, keywords: Sequence[str], *, complete: bool = True
) -> str | None:
    """Say what is wrong with a call of so many positional arguments and these keywords.

    With `complete` false, there may be more arguments than those.

    Examples
    --------
    >>> mistake("(X, y=..., *, sample_weight=...)", 1, ["sample_weights"])
    "no keyword 'sample_weights'; it takes (X, y=..., *, sample_weight=...)"
    >>> mistake("(X, y=..., *, sample_weight=...)", 2, ["sample_weight"])
    """
    parameters = _parsed(signature)
    positional = [*parameters.posonlyargs, *parameters.args]
    if n_positional > len(positional) and parameters.vararg is None:
        return f"{n_positional} positional arguments; it takes {signature}"
    by_name = {p.arg for p in (*parameters.args, *parameters.kwonlyargs)}
    for keyword in keywords:
        if keyword not in by_name and parameters.kwarg is None:
            return f"no keyword {keyword!r}; it takes {signature}"
    if not complete:
        return None
    taken = {p.arg for p in positional[:n_positional]} | set(keywords)
    n_required = len(positional) - len(parameters.defaults)
    required = {p.arg for p in positional[:n_required]}
    defaults = zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True)
    required |= {p.arg for p, default in defaults if default is None}
    if required - taken:
        return f"{sorted(required - taken)} missing; it takes {signature}"
    return None


def _parsed(signature: str) -> ast.arguments:
    function = ast.parse(f"def f{signature}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    return function.args


def _of_python(signature: inspect.Signature) -> str:
    nothing = inspect.Parameter.empty
    plain = [
        p.replace(annotation=nothing, default=nothing if p.default is nothing else Ellipsis)
        for p in signature.parameters.values()
        if p.name != "self"
    ]
    text = str(inspect.Signature(plain))
    return text.replace("=Ellipsis", "=...")


def _of_docstring(text: str) -> str | None:
    """Read the first line that Cython writes: ``f(int axis=-1, *, bool b=False) -> x``."""
    text = text.strip().replace("\\*", "*")
    if not re.match(r"[\w.]+\(", text):
        return None
    inside = _split(text[text.index("(") + 1 :])
    if inside is None:
        return None
    signature = f"({', '.join(p for p in map(_name, inside) if p)})"
    try:
        _parsed(signature)
    except SyntaxError:  # written by hand, like "[out1, out2]"
        return None
    return signature


def _split(text: str) -> list[str] | None:
    """Cut at the commas outside brackets and quotes, up to the closing bracket."""
    parts, depth, quote, start = [], 0, "", 0
    for i, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}" and depth:
            depth -= 1
        elif sign == ")" or (sign == "," and not depth):
            parts.append(text[start:i])
            start = i + 1
            if sign == ")":
                return parts
    return None


def _name(parameter: str) -> str | None:
    """Drop type and default of a parameter: ``bool b=False`` is ``b=...``."""
    declared, equals, _default = parameter.partition("=")
    words = declared.partition(":")[0].split()
    if not words or words[-1] in ("self", "cls"):
        return None
    return words[-1] + ("=..." if equals else "")
