"""How much callers may use and spend: limits and budgets."""
