"""The files of a model: JSON and plain arrays, written whole, read with suspicion.

A model folder holds ``model.json``, one ``.npy`` file for each array, and ``SHA256SUMS``
(``sha256sum -c SHA256SUMS`` checks it by hand). Nothing in it is ever executed, links are
not followed, and no memory is taken for an array before its size agrees with its file.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gpuseg.errors import ModelError
from gpuseg.outputs.durable import sync_folder, write_file

FORMAT = "gpuseg-model"
FORMAT_VERSION = 1

DOCUMENT = "model.json"
SUMS = "SHA256SUMS"

_LARGEST_TEXT_BYTES = 64 * 2**20
_LARGEST_ARRAY_BYTES = 2**30
_MOST_FILES = 1000

_DTYPES = frozenset({"<f4", "<f8", "<i4", "<i8", "|i1", "|u1"})
_ARRAY_FILE = re.compile(r"[a-z0-9_]{1,80}\.npy")
_SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.]{1,100})")
# The header that NumPy writes for version 1.0 of its format, and nothing more general:
# https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z]\d)', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,12},|\d{1,12}(?:, \d{1,12})+)?)\), \} *\n"
)

HostArray = npt.NDArray[Any]


def write_model_files(
    folder: Path, document: Mapping[str, Any], arrays: Mapping[str, HostArray]
) -> None:
    """Write a model into a new folder.

    Parameters
    ----------
    document
        JSON-able, numbers finite; ``format``, ``format_version`` and ``arrays`` are added.
    arrays
        Numeric arrays by name; kept bit for bit, in C order and little-endian.

    Raises
    ------
    ModelError
        If an array is of a type that models do not hold, or not finite.
    """
    files: dict[str, bytes] = {}
    described = {}
    for number, (name, array) in enumerate(arrays.items()):
        file = f"array_{number:03d}.npy"
        files[file], described[name] = _array_bytes(name, array)
        described[name]["file"] = file
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **document, "arrays": described}
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    files[DOCUMENT] = text.encode("utf-8")
    files[SUMS] = "".join(f"{_sha256(data)}  {name}\n" for name, data in files.items()).encode()
    folder.mkdir()
    for name, data in files.items():
        write_file(folder / name, data)
    sync_folder(folder)


def read_model_files(folder: Path) -> tuple[dict[str, Any], dict[str, HostArray]]:
    """Read a model and check every byte of it.

    Returns
    -------
    document : dict
        What ``model.json`` holds.
    arrays : dict of str to array
        Bit for bit as they were saved.

    Raises
    ------
    ModelError
        If something is missing, damaged, edited, too large, or of a newer format.
    """
    if not folder.is_dir():
        raise ModelError(
            f"there is no model in '{folder}'; expected a folder with {DOCUMENT} "
            "(gpuseg models list shows the models that are there)"
        )
    text = _read(folder, DOCUMENT, _LARGEST_TEXT_BYTES)
    document = _parse_document(folder, text)
    sums = _parse_sums(folder, _read(folder, SUMS, _LARGEST_TEXT_BYTES))
    _check_sum(folder, sums, DOCUMENT, text)
    described = document.get("arrays")
    if not isinstance(described, dict) or len(described) > _MOST_FILES:
        damaged(folder, f"{DOCUMENT} does not list its arrays")
    arrays = {name: _read_array(folder, sums, name, entry) for name, entry in described.items()}
    return document, arrays


def read_beside(folder: Path, name: str) -> bytes | None:
    """Read a small file that may stand beside a model and has no checksum; None without it.

    Raises
    ------
    ModelError
        If it is no plain file, or too large.
    """
    if not os.path.lexists(folder / name):
        return None
    return _read(folder, name, _LARGEST_TEXT_BYTES)


def damaged(folder: Path, what: str) -> NoReturn:
    """Raise the error for a model that cannot be trusted."""
    raise ModelError(
        f"the model in '{folder}' is damaged: {what}; restore the folder from a copy, "
        "or fit a new model with 'gpuseg run'"
    )


def _array_bytes(name: str, array: HostArray) -> tuple[bytes, dict[str, Any]]:
    plain = np.ascontiguousarray(array).reshape(array.shape)
    plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    if plain.dtype.str not in _DTYPES:
        raise ModelError(
            f"the array '{name}' is of type {array.dtype}; models hold {', '.join(sorted(_DTYPES))}"
        )
    if not np.isfinite(plain).all():
        raise ModelError(f"the array '{name}' holds NaN or infinite numbers; models hold neither")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, plain, version=(1, 0), allow_pickle=False)
    return buffer.getvalue(), {"dtype": plain.dtype.str, "shape": list(plain.shape)}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(folder: Path, name: str, largest: int) -> bytes:
    """Read a regular file of limited size; links, pipes and devices are refused."""
    try:
        with open(folder / name, "rb", opener=_open_plainly) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                damaged(folder, f"{name} is not a plain file")
            if status.st_size > largest:
                damaged(folder, f"{name} has {status.st_size:,} bytes; at most {largest:,} go")
            return file.read(largest + 1)
    except FileNotFoundError:
        damaged(folder, f"{name} is missing")
    except OSError as error:
        damaged(folder, f"{name} cannot be read ({error.strerror or error})")


def _open_plainly(path: str, flags: int) -> int:
    for flag in ("O_NOFOLLOW", "O_NONBLOCK"):
        flags |= getattr(os, flag, 0)  # Windows has neither
    return os.open(path, flags)


def _parse_document(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
        # lone surrogates would only fail later, when somebody prints them
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"the model in '{folder}' is damaged: {DOCUMENT} is not valid JSON ({error}); "
            "restore the folder from a copy, or fit a new model with 'gpuseg run'"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(
            f'\'{folder / DOCUMENT}\' is not a gpuseg model; expected "format": "{FORMAT}" in it'
        )
    version = document.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        damaged(folder, f"its format version is {version!r}")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"the model in '{folder}' has format version {version}; this gpuseg reads up to "
            f"{FORMAT_VERSION} (upgrade gpuseg, or fit a new model with this version)"
        )
    return document


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number that JSON knows")


def _parse_sums(folder: Path, text: bytes) -> dict[str, str]:
    sums = {}
    lines = text.decode("utf-8", "replace").split("\n")
    if lines.pop() != "" or len(lines) > _MOST_FILES:
        damaged(folder, f"{SUMS} is cut off or too long")
    for line in lines:
        match = _SUMS_LINE.fullmatch(line)
        if not match:
            damaged(folder, f"{SUMS} is not a list of checksums")
        sums[match[2]] = match[1]
    return sums


def _check_sum(folder: Path, sums: Mapping[str, str], name: str, data: bytes) -> None:
    if sums.get(name) != _sha256(data):
        damaged(folder, f"{name} is not the file that was saved (its checksum differs)")


def _read_array(folder: Path, sums: Mapping[str, str], name: str, entry: Any) -> HostArray:
    file = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(file, str) or not _ARRAY_FILE.fullmatch(file):
        damaged(folder, f"the array '{name}' names no file of this folder")
    data = _read(folder, file, _LARGEST_ARRAY_BYTES)
    _check_sum(folder, sums, file, data)
    dtype, shape, start = _parse_npy_header(folder, file, data)
    if [dtype, list(shape)] != [entry.get("dtype"), entry.get("shape")]:
        damaged(folder, f"{file} holds {dtype} of shape {shape}, {DOCUMENT} says otherwise")
    expected = math.prod(shape) * int(dtype[-1])
    if len(data) - start != expected:
        damaged(folder, f"{file} holds {len(data) - start:,} bytes of numbers, not {expected:,}")
    try:
        # a copy, because a header of odd length would leave the numbers unaligned
        array = np.frombuffer(data, dtype, offset=start).reshape(shape).copy()
    except ValueError:
        damaged(folder, f"{file} claims the impossible shape {shape}")
    if not np.isfinite(array).all():
        damaged(folder, f"the array '{name}' holds NaN or infinite numbers")
    return array


def _parse_npy_header(folder: Path, file: str, data: bytes) -> tuple[str, tuple[int, ...], int]:
    start = 10 + int.from_bytes(data[8:10], "little")
    match = _NPY_HEADER.fullmatch(data[10:start])
    if data[:8] != b"\x93NUMPY\x01\x00" or match is None:
        damaged(folder, f"{file} is not a NumPy array file of format 1.0")
    dtype = match[1].decode("ascii")
    if dtype not in _DTYPES:
        damaged(folder, f"{file} holds numbers of type {dtype}")
    shape = tuple(int(n) for n in match[2].decode("ascii").split(",") if n)
    return dtype, shape, start
