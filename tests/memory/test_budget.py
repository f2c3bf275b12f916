"""How much memory a run may take."""

import pytest

from gpuseg.errors import SettingsError
from gpuseg.memory.budget import LEAST_BYTES, free_bytes, in_units, memory_bytes


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("8GiB", 8 * 2**30),
        ("8 GiB", 8 * 2**30),
        ("8GB", 8 * 10**9),
        ("8g", 8 * 2**30),
        ("1.5gib", 3 * 2**29),
        ("2048MiB", 2**31),
        ("5000mb", 5 * 10**9),
        ("2147483648", 2**31),
        ("1tb", 10**12),
    ],
)
def test_sizes_are_read(text, n_bytes):
    assert memory_bytes(text) == n_bytes


def test_a_share_is_of_what_is_free():
    assert memory_bytes("50%") == pytest.approx(free_bytes() / 2, rel=0.2)


def test_by_default_it_is_most_of_what_is_free():
    assert 0.5 * free_bytes() < memory_bytes(None) < 1.01 * max(free_bytes(), LEAST_BYTES)


@pytest.mark.parametrize("text", ["", "much", "8 apples", "-8GiB", "8GiB8", "%", "GiB", "1e9"])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(SettingsError, match="8GiB"):
        memory_bytes(text)


@pytest.mark.parametrize("text", ["512MB", "1", "0GiB", "0%"])
def test_too_little_is_refused_with_the_least(text):
    with pytest.raises(SettingsError, match=f"least that works is {in_units(LEAST_BYTES)}"):
        memory_bytes(text)
