"""Times of day and days of the week, in some place's time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """A span that comes back: from `start` up to, not including, `end`, in minutes after
    midnight, on some days.

    One that ends at or before its start ends on the next day, and belongs to the day on which
    it starts; equal bounds make it last the whole day. Raises ValueError for a zone that is
    not known.
    """

    start: int = 0
    end: int = _DAY_MINUTES
    days: frozenset[str] = frozenset(DAYS)
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if not 0 <= self.start < _DAY_MINUTES or not 0 <= self.end <= _DAY_MINUTES:
            raise ValueError("times of day are from 00:00 to 24:00")
        if not self.days or self.days - set(DAYS):
            raise ValueError(f"days must be among {', '.join(DAYS)}")
        zone_named(self.zone)

    def holds(self, wall: float) -> bool:
        """Whether a moment, in Unix seconds, is within."""
        moment = datetime.fromtimestamp(wall, zone_named(self.zone))
        minute = moment.hour * 60 + moment.minute
        today = DAYS[moment.weekday()] in self.days
        if self.start < self.end:
            return today and self.start <= minute < self.end
        yesterday = DAYS[(moment - timedelta(days=1)).weekday()] in self.days
        return (today and minute >= self.start) or (yesterday and minute < self.end)


def zone_named(name: str) -> tzinfo:
    """A time zone by its IANA name; raises ValueError. The standard library remembers them."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # OSError for names that are directories of the database.
        raise ValueError(f"no time zone is called {name!r}") from None
