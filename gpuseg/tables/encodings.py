"""The encoding of a text file, and its bytes without compression."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gpuseg.errors import DataError, SettingsError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with byte order mark"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
#: What tables are written in; a detector that may choose among 90 often chooses badly.
_ONE_BYTE = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "latin_1", "mac_roman"]
_MANY_BYTES = ["cp932", "euc_jp", "gb18030", "big5", "cp949"]
_WIDE = ["utf_16_le", "utf_16_be"]
#: Lines that hold foreign letters tell the encoding; this much of them is enough.
_EVIDENCE_BYTES = 1 << 16
#: What cp1250 writes in words of Central Europe and cp1252 in no word of Western Europe. Most
#: bytes are a letter in both, so only their neighbours tell: `ñ` is Spanish before a vowel.
_CENTRAL = re.compile(
    rb"(?<=[a-z])[\xb3\xb9\xba\xbe\xbf](?=[a-z])"  # ł ą ş ľ ż: ³ ¹ º ¾ ¿
    rb"|[\xa3\xaf\xbc](?=[a-z])"  # Ł Ż Ľ: £ ¯ ¼
    rb"|[\x8a\x8e\x9a\x9e](?=[A-Za-z])|(?<=[A-Za-z])[\x9a\x9e]"  # Š Ž š ž
    rb"|[\x8c\x9c](?=[b-df-hj-np-tv-z])"  # Ś ś, where œ has a vowel after it
    rb"|\xf1(?![aeiou\xe0-\xff])|\xf5(?!e)|\xe3(?=[a-df-np-rt-z])"  # ń ő ă: ñ õ ã
    rb"|[\xc8\xe8](?=[aeiou])|[\xec\xf9](?=[a-z\xe0-\xff])"  # č, and ě ů within a word: è ì ù
    rb"|[\xd8\xf8](?=[aiou\xe1\xed])|(?<=[\xe1\xe9\xed])[\xe8\xf2\xf8]"  # ř, and č ň: ø è ò
)
#: UTF-8 with a few foreign bytes has this many times more letters that are UTF-8.
_CLEARLY_MORE = 2


@dataclass(frozen=True)
class Encoding:
    """An encoding under the name for people and the one for the decoder.

    Parameters
    ----------
    is_guess
        Whether neither the user nor the file says so.
    """

    name: str
    codec: str
    is_guess: bool = False

    @property
    def is_utf8(self) -> bool:
        """Whether it is UTF-8, with or without a byte order mark."""
        return self.codec == "utf8"

    def decode(self, data: bytes, *, complete: bool = True) -> str:
        """Decode; unless `complete`, a letter that was cut at the end is left out.

        Raises
        ------
        UnicodeDecodeError
        """
        # the mark is no part of the first name
        return (
            codecs.getincrementaldecoder(self.codec)().decode(data, complete).removeprefix("\ufeff")
        )


def open_bytes(path: Path) -> pa.NativeFile:
    """Open a file for reading, decompressed when its first bytes say gzip."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return pa.input_stream(path, compression="gzip" if is_gzip else None)


def find_encoding(path: Path, given: str | None, n_bytes: int) -> Encoding:
    """Tell the encoding of a text file from its first `n_bytes` bytes.

    Raises
    ------
    SettingsError
        If `given` is not an encoding.
    DataError
        If the bytes are no text, or UTF-8 in most lines and not in others.
    """
    if given:
        return _given(given)
    with open_bytes(path) as stream:
        data = stream.read(n_bytes) if n_bytes < 1 << 62 else stream.read()
    for mark, codec, name in _MARKS:
        if data.startswith(mark):
            return Encoding(name, "utf8" if codec == "utf-8-sig" else codec)
    utf8 = Encoding("UTF-8", "utf8")
    complete = len(data) < n_bytes
    try:
        utf8.decode(data, complete=complete)
    except UnicodeDecodeError as error:
        _check_not_mixed(path, data, error.start, complete=complete)
        return _detect(path, data)
    return _detect(path, data) if _is_wide(data) else utf8


def _given(name: str) -> Encoding:
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        raise SettingsError(
            f"'{name}' is no encoding; try utf-8, utf-16, cp1252 or cp932"
        ) from None
    return Encoding(name, "utf8" if codec in ("utf-8", "utf-8-sig") else codec)


def _is_wide(data: bytes) -> bool:
    """Say whether these look like two-byte letters: every other byte of ASCII is null then."""
    return data.count(0) * 8 > len(data)


def _check_not_mixed(path: Path, data: bytes, first_bad: int, *, complete: bool) -> None:
    """Refuse UTF-8 that has some lines in another encoding: no one encoding reads all of it."""
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(data, complete)
    n_bad = sum("\udc80" <= letter <= "\udcff" for letter in text)
    n_good = sum(letter > "\x7f" for letter in text) - n_bad
    if n_good > _CLEARLY_MORE * n_bad and not _is_wide(data):
        line = len((data[:first_bad] + b"?").splitlines())
        raise DataError(
            f"'{path}', line {line} is not UTF-8, as most other foreign letters in the file are; "
            "expected one encoding throughout: get the file again, or give --csv-encoding"
        )


def _detect(path: Path, data: bytes) -> Encoding:
    import charset_normalizer  # slow to import, and seldom needed

    wide = _is_wide(data)
    if wide:
        evidence = data[:_EVIDENCE_BYTES]
    else:
        foreign = (line for line in data.splitlines(keepends=True) if not line.isascii())
        evidence = b"".join(foreign)[:_EVIDENCE_BYTES]
    candidates = _WIDE if wide else _ONE_BYTE + _MANY_BYTES
    best = charset_normalizer.from_bytes(evidence, cp_isolation=candidates).best()
    if best is None:
        raise DataError(f"'{path}' is no text in a known encoding; give --csv-encoding")
    # among encodings that read the same text, take the one that is most in use
    same = best.could_be_from_charset
    codec = codecs.lookup("cp1252" if "cp1252" in same else best.encoding).name
    if codec in ("cp1250", "cp1252"):
        codec = _western_or_central(evidence, codec)
    return Encoding(codec.upper() if codec.startswith("utf") else codec, codec, is_guess=True)


def _western_or_central(evidence: bytes, detected: str) -> str:
    """Choose between two encodings that the detector often cannot tell apart; Western in doubt."""
    n_foreign = sum(byte > 0x7F for byte in evidence)
    central = 10 * len(_CENTRAL.findall(evidence)) >= n_foreign
    codec = "cp1250" if central else "cp1252"
    try:
        evidence.decode(codec)
    except UnicodeDecodeError:
        return detected
    return codec
