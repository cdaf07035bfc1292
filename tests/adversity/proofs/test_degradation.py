"""Degradation, each fault once and briefly; `make proofs` has every mode, and the latencies."""

import os
from dataclasses import replace

import pytest
from bench.proofs.base import Stage
from bench.proofs.degradation import CASES, carry_out

NAMES = ("Redis dead, deny", "Postgres dead, the journal waits", "disk full, deny")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
async def test_an_outage_meets_its_mode_and_loses_nothing(stage: Stage, name: str) -> None:
    if name.startswith("disk") and os.geteuid():
        pytest.skip("a small file system can only be mounted by root")
    (case,) = (each for each in CASES if f"{each.fault.name}, {each.mode}" == name)
    brief = replace(stage, options=replace(stage.options, scale=0.25))
    found = await carry_out(brief, [case])
    # A machine that stalls may enter the mode before the fault; nothing else may differ.
    assert [each for each in found.broken if "failed before" not in each] == []
    rates = found.figures[name]["error_rate"]
    assert rates[2] == (1.0 if case.denies else 0.0)
