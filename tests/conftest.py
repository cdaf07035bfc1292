"""What every test may use: fixtures that start real servers."""

pytest_plugins = ["tests.support.servers"]
