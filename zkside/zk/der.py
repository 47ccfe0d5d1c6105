"""As much of X.509 as it takes to see whose a certificate is, and until when; the standard library shows that of
peers alone."""

from __future__ import annotations

from datetime import UTC, datetime

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def validity(der: bytes) -> tuple[float, float]:
    """Not before and not after, in seconds of Unix time. Raises: ValueError."""
    try:
        _, times, _ = _element(_from_validity(der), _SEQUENCE)
        tag, begins, times = _element(times)
        end_tag, ends, _ = _element(times)
        return _instant(tag, begins), _instant(end_tag, ends)
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("not an X.509 certificate") from error


def subject(der: bytes) -> bytes:
    """Whose it is: a Name as it is encoded, for comparing. Raises: ValueError."""
    try:
        _, _, rest = _element(_from_validity(der), _SEQUENCE)
        _, name, _ = _element(rest, _SEQUENCE)
        return name
    except IndexError as error:
        raise ValueError("not an X.509 certificate") from error


def _from_validity(der: bytes) -> bytes:
    """What a certificate has from its validity on."""
    _, certificate, _ = _element(der, _SEQUENCE)
    _, rest, _ = _element(certificate, _SEQUENCE)
    tag, _, behind = _element(rest)
    if tag == _VERSION:
        rest = behind
    for _ in ("serial number", "signature algorithm", "issuer"):
        _, _, rest = _element(rest)
    return rest


def _element(data: bytes, wanted: int | None = None) -> tuple[int, bytes, bytes]:
    """The first element's tag and content, and what stands behind it."""
    tag, length, start = data[0], data[1], 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data) or (wanted is not None and tag != wanted):
        raise ValueError("not an X.509 certificate")
    return tag, data[start : start + length], data[start + length :]


def _instant(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        # RFC 5280, 4.1.2.5.1: two digits of the year, which lies between 1950 and 2049.
        text = ("20" if int(text[:2]) < 50 else "19") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not an X.509 certificate")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
