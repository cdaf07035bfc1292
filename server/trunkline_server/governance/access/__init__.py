"""What callers may do: roles, tiers and policies."""
