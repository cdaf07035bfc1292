"""Where the database is: reads a DSN and opens what it names."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from trunkline_server.store.database import Database, Dialect, Limits
from trunkline_server.store.sqlite import SqliteDatabase

_EXAMPLES = "postgres://USER:PASSWORD@HOST:5432/DATABASE or sqlite:///FILE"
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_SSL_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")


class InvalidDsnError(ValueError):
    """A DSN that cannot be used; the message names its field and shows no password."""


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A parsed DSN. Its repr and `display` hold no password."""

    dialect: Dialect
    # Host and port, or the file's path.
    display: str
    dsn: str = field(repr=False)


def parse_dsn(dsn: str, name: str) -> DatabaseAddress:
    """Reads a DSN; `name` is the field that holds it.

    As with SQLAlchemy, `sqlite:///FILE` is relative to the working directory and
    `sqlite:////FILE` absolute. Postgres' parameters are libpq's, TLS' among them.
    Raises InvalidDsnError.
    """
    scheme, separator, rest = dsn.partition("://")
    if separator and scheme in {"postgres", "postgresql"}:
        return _postgres(dsn, name)
    if separator and scheme == "sqlite":
        path = unquote(rest[1:])
        if not rest.startswith("/") or not path or "?" in rest or "#" in rest:
            raise InvalidDsnError(
                f"{name}: a SQLite DSN is sqlite:///FILE, or sqlite:////FILE for an absolute path"
            )
        return DatabaseAddress(Dialect.SQLITE, path, dsn)
    # The scheme is quoted only if there is one: without it, who knows what the text holds.
    wrong = f"{scheme!r} is no database of ours" if separator else "this is no DSN"
    raise InvalidDsnError(f"{name}: {wrong}; write {_EXAMPLES}")


async def open_database(dsn: str, name: str, limits: Limits | None = None) -> Database:
    """The database that the DSN of the field `name` says; connects to nothing yet.

    Raises InvalidDsnError.
    """
    address = parse_dsn(dsn, name)
    limits = limits or Limits()
    if address.dialect is Dialect.SQLITE:
        return SqliteDatabase(Path(address.display), limits)
    # Its client is 5 MB, which those who keep a file are spared.
    from trunkline_server.store.postgres import PostgresDatabase  # noqa: PLC0415

    return await PostgresDatabase.open(address.dsn, address.display, limits)


def _postgres(dsn: str, name: str) -> DatabaseAddress:
    try:
        parts = urlsplit(dsn)
        ports = [_port(host) for host in parts.netloc.rpartition("@")[2].split(",")]
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        # The cause quotes what it could not read, which may be a password with a slash in it.
        raise InvalidDsnError(
            f"{name}: host and port cannot be read; a password is percent-encoded; "
            f"write {_EXAMPLES}"
        ) from None
    display = parts.netloc.rpartition("@")[2] or options.get("host", [""])[0]
    if not display:
        raise InvalidDsnError(f"{name}: the host is missing; write {_EXAMPLES}")
    if not parts.path.strip("/") and "dbname" not in options:
        raise InvalidDsnError(f"{name}: the database's name is missing; write {_EXAMPLES}")
    mode = options.get("sslmode", ["prefer"])[0]
    if mode not in _SSL_MODES:
        raise InvalidDsnError(f"{name}: sslmode must be one of {', '.join(sorted(_SSL_MODES))}")
    for option in _SSL_FILES:
        path = options.get(option, [""])[0]
        if path and not Path(path).is_file():
            raise InvalidDsnError(f"{name}: {option} names {path!r}, which is no file")
    if len(ports) == 1 and ports[0] is None and "host" not in options:
        display += ":5432"
    return DatabaseAddress(Dialect.POSTGRES, display, dsn)


def _port(host: str) -> int | None:
    """The port in `host:port`, or None; a host may be an IPv6 address in brackets."""
    _, colon, port = host.rpartition("]")[2].rpartition(":")
    if not colon:
        return None
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError
    return number
