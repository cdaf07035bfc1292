"""What must be shown on real processes, not measured per call: nothing unbilled, degradation.

Each proof is one module with `async def run(stage) -> Result`, and one row in `registry.py`.
"""
