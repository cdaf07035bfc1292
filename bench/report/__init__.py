"""From figures to Markdown, JSON and plots."""
