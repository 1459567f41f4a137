"""Values that JSON has no form for, as the archive writes them. No I/O."""

from __future__ import annotations

import base64
import struct
from datetime import date, datetime, timedelta

_FLOAT = struct.Struct("<f")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001, whether it is UTC is said by what is written behind it
_DIGITS = {1_000: 3, 1_000_000: 6, 1_000_000_000: 9}
_DAY = 86_400


def base64_text(value: bytes) -> str:
    """Bytes in base64 (RFC 4648, section 4), as JSON of Protobuf and of Kafka Connect has them."""
    return base64.b64encode(value).decode()


def shortest(value: float) -> float:
    """The double with the fewest digits that is this 32-bit float: 0.1 and not 0.10000000149011612."""
    wanted = _FLOAT.pack(value)
    for digits in range(1, 9):
        candidate = float(f"{value:.{digits}g}")
        try:
            if _FLOAT.pack(candidate) == wanted:
                return candidate
        except OverflowError:  # Rounded up past the largest one.
            continue
    return float(f"{value:.9g}")


def decimal_text(unscaled: bytes, scale: int) -> str:
    """A decimal, given as big-endian two's complement, with as many digits behind the point as its scale.

    Raises:
        ValueError: it has more than 4300 digits.
    """
    number = int.from_bytes(unscaled, "big", signed=True)
    digits = str(abs(number)).rjust(scale + 1, "0")
    sign = "-" if number < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else f"{sign}{digits}"


def date_text(days: int) -> str | int:
    """A day in ISO 8601 by its number since 1970-01-01; one that no calendar holds stays a number."""
    try:
        return (date(1970, 1, 1) + timedelta(days=days)).isoformat()
    except OverflowError:
        return days


def time_text(value: int, unit: int) -> str | int:
    """A time of day, with as many digits as its unit (parts of a second) has; one that no day has stays a number."""
    seconds, rest = divmod(value, unit)
    if not 0 <= seconds < _DAY:
        return value
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:0{_DIGITS[unit]}}"


def timestamp_text(value: int, unit: int, zone: str) -> str | int:
    """A moment in ISO 8601, with as many digits as its unit has; one outside the years 1 to 9999 stays a number."""
    seconds, rest = divmod(value, unit)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return value
    return f"{moment.isoformat()}.{rest:0{_DIGITS[unit]}}{zone}"


def duration_text(value: bytes) -> str:
    """A duration of Avro (months, days and milliseconds, 32 bits each, little-endian) in ISO 8601."""
    months, days, milliseconds = struct.unpack("<III", value)
    return f"P{months}M{days}DT{milliseconds // 1000}.{milliseconds % 1000:03}S"
