"""What a guardrail says of prompt and answer, from the trace of an answer.

The texts that a guardrail matched are left out: they are what it is there to keep back.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trunkline import v1

# Where an assessment has what it looked for: the policy, its lists, and the field that names
# each entry of a list; where there is none, the list's own name does.
_POLICIES: Sequence[tuple[str, str, str]] = (
    ("topicPolicy", "topics", "name"),
    ("contentPolicy", "filters", "type"),
    ("wordPolicy", "customWords", ""),
    ("wordPolicy", "managedWordLists", "type"),
    ("sensitiveInformationPolicy", "piiEntities", "type"),
    ("sensitiveInformationPolicy", "regexes", "name"),
    ("contextualGroundingPolicy", "filters", "type"),
)
# What the service writes of a guardrail that did something, in answers of InvokeModel.
INTERVENED = "INTERVENED"

_ACTED = frozenset({"BLOCKED", "ANONYMIZED"})


def read_findings(trace: Mapping[str, Any]) -> list[v1.FilterFinding]:
    """The findings of an answer's trace, those alike once, in the trace's order."""
    guardrail = trace.get("guardrail") or {}
    found: dict[bytes, v1.FilterFinding] = {}
    for subject, assessment in _assessments(guardrail):
        for finding in _findings(assessment):
            finding.subject = subject
            found.setdefault(finding.SerializeToString(deterministic=True), finding)
    return list(found.values())


def native_findings(answer: Mapping[str, Any]) -> list[v1.FilterFinding]:
    """The findings beside a model's own answer, where InvokeModel has them in other words."""
    trace = answer.get("amazon-bedrock-trace")
    if not trace:
        return []
    guardrail = trace.get("guardrail") or {}
    outputs: dict[str, list[Any]] = {}
    for output in guardrail.get("outputs") or ():
        for name, assessment in output.items():
            outputs.setdefault(name, []).append(assessment)
    told = {"inputAssessment": guardrail.get("input"), "outputAssessments": outputs}
    return read_findings({"guardrail": told})


def _assessments(
    guardrail: Mapping[str, Any],
) -> Iterator[tuple[v1.FilterSubject.ValueType, Mapping[str, Any]]]:
    for assessment in (guardrail.get("inputAssessment") or {}).values():
        yield v1.FILTER_SUBJECT_PROMPT, assessment
    for assessments in (guardrail.get("outputAssessments") or {}).values():
        for assessment in assessments:
            yield v1.FILTER_SUBJECT_ANSWER, assessment


def _findings(assessment: Mapping[str, Any]) -> Iterator[v1.FilterFinding]:
    for policy, entries, naming in _POLICIES:
        for entry in (assessment.get(policy) or {}).get(entries) or ():
            acted = entry.get("action") in _ACTED
            detected = entry.get("detected")
            yield v1.FilterFinding(
                category=(entry.get(naming) if naming else None) or entries,
                severity=_severity(entry),
                # Older traces leave it out where nothing but what acted is told.
                detected=_detected(policy, acted=acted) if detected is None else detected,
                filtered=acted,
            )
    for finding in (assessment.get("automatedReasoningPolicy") or {}).get("findings") or ():
        for kind in finding:
            # Reported, never acted on.
            yield v1.FilterFinding(category=f"automatedReasoning {kind}", detected=kind != "valid")


def _detected(policy: str, *, acted: bool) -> bool:
    """Whether an entry that does not say so was found. Scores of grounding are always told; all
    else is only told when found."""
    return acted or policy != "contextualGroundingPolicy"


def _severity(entry: Mapping[str, Any]) -> str:
    if "confidence" in entry:
        confidence: str = entry["confidence"]
        return confidence
    return f"{entry['score']:g}" if "score" in entry else ""
