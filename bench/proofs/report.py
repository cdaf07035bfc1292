"""The report of proofs: what was promised, whether it held, and the figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.proofs.base import Proof, Result, Table
from bench.report.markdown import filled, table


def section(proof: Proof, result: Result) -> str:
    """One proof as Markdown."""
    verdict = "**Broken:**" if result.broken else "Held."
    parts = [
        f"## {proof.title}",
        filled(f"`--only {proof.name}`. Promise: {proof.promise}. {verdict}"),
        "\n".join(f"- {each}" for each in result.broken),
        *(table(each) for each in result.tables),
        *(filled(note) for note in result.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def write(folder: Path, facts: Mapping[str, str], results: Mapping[Proof, Result]) -> Path:
    """PROOFS.md; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Trunkline, proven", *(section(proof, result) for proof, result in results.items())]
    parts.append("## Machine and versions")
    parts.append(table(Table(["what", "value"], [[key, value] for key, value in facts.items()])))
    path = folder / "PROOFS.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def as_json(facts: Mapping[str, str], results: Mapping[Proof, Result]) -> dict[str, Any]:
    """The report for programs."""
    return {
        "machine": dict(facts),
        "proofs": {
            proof.name: {"broken": list(result.broken), "figures": dict(result.figures)}
            for proof, result in results.items()
        },
    }
