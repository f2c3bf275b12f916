"""Read a stored description back, trusting nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

from gpuseg.errors import ModelError


class Stored:
    """A JSON object whose values are taken out with their type checked.

    Raises
    ------
    ModelError
        From every method, if the value is missing or is not what was asked for.
    """

    def __init__(self, data: Any, what: str) -> None:
        self.what = what
        if not isinstance(data, dict):
            raise ModelError(f"the model's encoder is damaged: {what} is not an object")
        self._data = data

    def text(self, key: str) -> str:
        """Return a text."""
        value = self._get(key)
        return value if isinstance(value, str) else self._refuse(key, "a text")

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            self._refuse(key, "a list of texts")
        return tuple(values)

    def number(self, key: str) -> float:
        """Return a finite number."""
        return self._number(key, self._get(key))

    def number_or_none(self, key: str) -> float | None:
        """Return a finite number, or None where there is null."""
        value = self._get(key)
        return None if value is None else self._number(key, value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Return a list of finite numbers."""
        return tuple(self._number(key, value) for value in self.items(key))

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._get(key)
        return value if isinstance(value, bool) else self._refuse(key, "true or false")

    def items(self, key: str) -> list[Any]:
        """Return a list of anything."""
        value = self._get(key)
        return value if isinstance(value, list) else self._refuse(key, "a list")

    def one_of(self, key: str, known: Sequence[str]) -> str:
        """Return a text that is one of the known ones."""
        return self.member(key, self.text(key), known)

    def member(self, key: str, value: str, known: Sequence[str]) -> str:
        """Return the value if it is one of the known ones."""
        return value if value in known else self._refuse(key, f"one of {list(known)}")

    def expect(self, holds: bool, rule: str) -> None:
        """Refuse the description unless the rule holds."""
        if not holds:
            raise ModelError(f"the model's encoder is damaged: in {self.what}, {rule}")

    def get(self, key: str) -> Any:
        """Return a value of any type."""
        return self._get(key)

    def _get(self, key: str) -> Any:
        if key not in self._data:
            raise ModelError(f"the model's encoder is damaged: {self.what} lacks '{key}'")
        return self._data[key]

    def _number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._refuse(key, "a number")
        try:
            number = float(value)
        except OverflowError:
            self._refuse(key, "a finite number")
        return number if math.isfinite(number) else self._refuse(key, "a finite number")

    def _refuse(self, key: str, expected: str) -> NoReturn:
        found = repr(self._data[key])[:60]
        raise ModelError(
            f"the model's encoder is damaged: '{key}' of {self.what} is {found}, "
            f"expected {expected}"
        )
