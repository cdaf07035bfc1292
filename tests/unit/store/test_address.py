"""DSNs: what is read, and what a wrong one is told."""

import pytest

from trunkline_server.store.address import InvalidDsnError, parse_dsn
from trunkline_server.store.database import Dialect

FIELD = "state.database"


@pytest.mark.parametrize(
    ("dsn", "display"),
    [
        ("postgres://u:p@db.example:6432/trunkline", "db.example:6432"),
        ("postgresql://u@db.example/trunkline", "db.example:5432"),
        ("postgres://u:p%40%2F@[::1]:5432/trunkline", "[::1]:5432"),
        ("postgres://u:p@[::1]/trunkline", "[::1]:5432"),
        ("postgres://u:p@one:1,two:2/trunkline", "one:1,two:2"),
        ("postgres://u:p@db/trunkline?sslmode=verify-full", "db:5432"),
        ("postgres:///trunkline?host=/run/postgresql&user=u", "/run/postgresql"),
        ("postgres://db/?dbname=trunkline", "db:5432"),
    ],
)
def test_postgres(dsn: str, display: str) -> None:
    address = parse_dsn(dsn, FIELD)
    assert (address.dialect, address.display, address.dsn) == (Dialect.POSTGRES, display, dsn)
    assert "p%40" not in repr(address)
    assert "u:p" not in repr(address)


@pytest.mark.parametrize(
    ("dsn", "path"),
    [
        ("sqlite:///state.db", "state.db"),
        ("sqlite:////var/lib/trunkline/state.db", "/var/lib/trunkline/state.db"),
        ("sqlite:///a%20b.db", "a b.db"),
    ],
)
def test_sqlite(dsn: str, path: str) -> None:
    address = parse_dsn(dsn, FIELD)
    assert (address.dialect, address.display) == (Dialect.SQLITE, path)


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("", "this is no DSN"),
        ("s3cret", "this is no DSN"),
        ("mysql://u:s3cret@db/trunkline", "'mysql' is no database of ours"),
        ("postgres://u:s3cret@/trunkline", "the host is missing"),
        ("postgres://u:s3cret@db", "the database's name is missing"),
        ("postgres://u:s3cret@db/", "the database's name is missing"),
        ("postgres://u:s3cret@db:five/trunkline", "host and port cannot be read"),
        ("postgres://u:s3cret@db:70000/trunkline", "host and port cannot be read"),
        ("postgres://u:s3cret/x@db:1/trunkline", "a password is percent-encoded"),
        ("postgres://u:s3cret#x@db:1/trunkline", "a password is percent-encoded"),
        ("postgres://u:s3cret@[::1/trunkline", "host and port cannot be read"),
        ("postgres://u:s3cret@db/trunkline?sslmode=on", "sslmode must be one of allow, disable"),
        ("postgres://u:s3cret@db/trunkline?sslmode", "cannot be read"),
        (
            "postgres://u:s3cret@db/trunkline?sslrootcert=/no/such.pem",
            "sslrootcert names '/no/such.pem', which is no file",
        ),
        ("sqlite://state.db", "a SQLite DSN is sqlite:///FILE"),
        ("sqlite:///", "a SQLite DSN is sqlite:///FILE"),
        ("sqlite:///state.db?mode=ro", "a SQLite DSN is sqlite:///FILE"),
        ("sqlite:state.db", "this is no DSN"),
    ],
)
def test_a_wrong_one_names_its_field_and_no_password(dsn: str, words: str) -> None:
    with pytest.raises(InvalidDsnError) as caught:
        parse_dsn(dsn, FIELD)
    message = str(caught.value)
    assert message.startswith(f"{FIELD}: ")
    assert words in message
    assert "s3cret" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
