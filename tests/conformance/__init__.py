"""One list of cases that every client passes against a real router; README.md describes it."""
