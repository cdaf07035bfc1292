"""The table over all providers leaves nothing out: each dialect's own test holds it to reading
what it claims, and this one that whatever is recorded is claimed or explained."""

from collections import Counter
from importlib import import_module
from pathlib import Path

from tests.corpus import table


def claimed() -> set[str]:
    everything = table.recorded()
    origins = [
        recording.origin
        for name in table.contributors()
        for recording in import_module(name).recordings()
    ]
    return {origin if origin in everything else origin.rpartition("#")[0] for origin in origins}


def test_every_recording_is_claimed_or_explained() -> None:
    everything, read = table.recorded(), claimed()
    assert read <= everything.keys()
    unexplained = Counter(
        (provider, path)
        for origin, (provider, path) in everything.items()
        if origin not in read and not table.why_unclaimed(provider, path)
    )
    assert not unexplained


def test_every_explanation_explains_something() -> None:
    read = claimed()
    left = [place for origin, place in table.recorded().items() if origin not in read]
    used = {table.why_unclaimed(*place) for place in left}
    assert {reason for _, _, reason in table.UNCLAIMED} <= used


def test_every_dialect_with_recordings_contributes() -> None:
    modules = [
        import_module(f"tests.corpus.{path.stem}")
        for path in Path(table.__file__).parent.glob("test_*.py")
        if path.name != Path(__file__).name
    ]
    with_recordings = {module.__name__ for module in modules if hasattr(module, "recordings")}
    assert set(table.contributors()) == with_recordings
