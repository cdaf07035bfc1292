"""Reads what Azure's content filters say of prompts and answers.

The shapes are those of recorded answers (tests/corpus/test_azure.py, test_responses.py).
"""

from collections.abc import Iterable, Iterator
from typing import Any

from trunkline import v1
from trunkline_server.providers.openai_parts import text_of

# Azure's severities, from the mildest on.
_SEVERITIES = ("", "safe", "low", "medium", "high")


def response_findings(document: dict[str, Any]) -> Iterator[v1.FilterFinding]:
    """What a body of the Responses API holds in `content_filters`."""
    reports = document.get("content_filters")
    for report in reports if isinstance(reports, list) else ():
        if isinstance(report, dict):
            subject = {
                "prompt": v1.FILTER_SUBJECT_PROMPT,
                "completion": v1.FILTER_SUBJECT_ANSWER,
            }.get(text_of(report.get("source_type")), v1.FILTER_SUBJECT_UNSPECIFIED)
            yield from findings(report.get("content_filter_results"), subject)


def findings(results: Any, subject: v1.FilterSubject.ValueType) -> Iterator[v1.FilterFinding]:
    """One finding for each category in `content_filter_results`.

    A category that has no `detected` is found where its severity is not "safe". Entries that
    are no objects, and the account of a filter that failed, are passed over.
    """
    if not isinstance(results, dict):
        return
    for category, result in results.items():
        if category == "error" or not isinstance(result, dict):
            continue
        severity = text_of(result.get("severity"))
        filtered = result.get("filtered") is True
        detected = filtered or severity not in {"", "safe"}
        if isinstance(result.get("detected"), bool):
            detected = result["detected"]
        yield v1.FilterFinding(
            subject=subject,
            category=category,
            severity=severity,
            detected=detected,
            filtered=filtered,
        )


class Findings:
    """What has been found so far in one chat completion. Streams tell it piece by piece, each
    for the text up to there; of a category that comes again the worst counts."""

    def __init__(self) -> None:
        self._found: dict[tuple[v1.FilterSubject.ValueType, str], v1.FilterFinding] = {}
        self._last: Any = None

    def __iter__(self) -> Iterator[v1.FilterFinding]:
        return iter(self._found.values())

    def of_prompt(self, document: dict[str, Any]) -> None:
        """Reads what a body or a chunk says of the prompt."""
        reports = document.get("prompt_filter_results")
        for report in reports if isinstance(reports, list) else ():
            if isinstance(report, dict):
                found = findings(report.get("content_filter_results"), v1.FILTER_SUBJECT_PROMPT)
                self._take(found)

    def of_answer(self, choice: dict[str, Any]) -> None:
        """Reads what a choice says of the answer."""
        results = choice["content_filter_results"]
        # Most chunks repeat the one before.
        if results != self._last:
            self._last = results
            self._take(findings(results, v1.FILTER_SUBJECT_ANSWER))

    def _take(self, found: Iterable[v1.FilterFinding]) -> None:
        for finding in found:
            known = self._found.setdefault((finding.subject, finding.category), finding)
            if known is not finding:
                known.detected |= finding.detected
                known.filtered |= finding.filtered
                known.severity = max(known.severity, finding.severity, key=_rank)


def filtered_for(error: dict[str, Any]) -> str:
    """What a prompt was blocked for, by the object that tells of it: "hate (high), jailbreak"."""
    # Of both spellings, recordings have the first.
    results = error.get("content_filter_result") or error.get("content_filter_results")
    return ", ".join(
        f"{each.category} ({each.severity})" if each.severity else each.category
        for each in findings(results, v1.FILTER_SUBJECT_PROMPT)
        if each.filtered
    )


def _rank(severity: str) -> int:
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else len(_SEVERITIES)
