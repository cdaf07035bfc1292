"""The configurations of the bench, as the router itself reads them."""

from pathlib import Path

import pytest
from bench.configs import BARE, BEARER, STATELESS, Setup, State, environment, router_config

from trunkline_server.catalogue.known import known
from trunkline_server.settings import Settings, parse


def settings_of(setup: Setup, folder: Path) -> Settings:
    config = router_config("127.0.0.1:1", setup, "own")
    return parse(config, "own.yaml", environment(setup), known(), base=folder)


def test_everything_is_on_unless_it_is_asked_otherwise(tmp_path: Path) -> None:
    """The targets are judged by this configuration."""
    settings = settings_of(Setup(), tmp_path)
    assert [key.name for key in settings.keys] == ["bench"]
    assert [limit.measure for limit in settings.limits.values()] == ["requests"]
    assert [budget.scope for budget in settings.budgets.values()] == ["project"]
    assert settings.ledger.journal == tmp_path / "own-journal"
    assert settings.state.database is not None
    assert settings.state.database.reveal() == f"sqlite:///{tmp_path / 'own.db'}"
    assert settings.state.redis is None
    assert settings.telemetry.otlp_endpoint
    assert BEARER["authorization"].startswith("Bearer ")


@pytest.mark.parametrize(("setup", "keys"), [(STATELESS, 1), (BARE, 0)])
def test_what_is_off_is_off(setup: Setup, keys: int, tmp_path: Path) -> None:
    settings = settings_of(setup, tmp_path)
    assert len(settings.keys) == keys
    assert not settings.limits
    assert not settings.budgets
    assert settings.ledger.journal is None
    assert settings.state.database is None


def test_shared_stores_stand_in_the_configuration(tmp_path: Path) -> None:
    """The password of Postgres comes by the environment."""
    dsn = "postgres://someone:password@127.0.0.1:5432/bench"
    state = State(limit="leased", budget="exact", redis="redis://127.0.0.1:6379/3", postgres=dsn)
    settings = settings_of(Setup(state=state), tmp_path)
    assert settings.state.database is not None
    assert settings.state.database.reveal() == dsn
    assert settings.state.redis is not None
    assert settings.state.redis.reveal() == state.redis
    assert [limit.mode for limit in settings.limits.values()] == ["leased"]
    assert [budget.mode for budget in settings.budgets.values()] == ["exact"]
    assert "password" not in router_config("127.0.0.1:1", Setup(state=state))
