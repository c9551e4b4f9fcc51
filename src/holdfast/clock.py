"""Time: integer microseconds since 1970 UTC inside, datetimes with a zone and RFC 3339 text at the edges."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime, timedelta

from holdfast.errors import Invalid


def now() -> int:
    """The clock: microseconds since 1970 UTC."""
    return time.time_ns() // 1000


@functools.lru_cache(1)
def boot() -> str:
    """What names the time since this machine started last; "" where it can't be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def to_micros(when: datetime | int | str) -> int:
    """A time as integer microseconds since 1970 UTC, from a datetime with a zone, RFC 3339 text, or itself.

    Raises:
        Invalid: the datetime or text has no zone, or is no time.
    """
    if isinstance(when, int) and not isinstance(when, bool):
        return when
    given = when
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise Invalid(f"{given!r} is not an RFC 3339 time such as 2026-01-31T12:00:00Z", value=given) from None
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise Invalid(f"{str(given)!r} has no time zone, as 2026-01-31T12:00:00Z has UTC", value=str(given))
    delta = when - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_micros(at: int) -> datetime:
    """Microseconds since 1970 UTC as a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=at)


def rfc3339(at: int) -> str:
    """Microseconds since 1970 UTC as RFC 3339 text with `Z` and six digits."""
    return from_micros(at).isoformat(timespec="microseconds").replace("+00:00", "Z")
