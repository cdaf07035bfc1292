"""Known providers, models and prices, compiled at load."""
