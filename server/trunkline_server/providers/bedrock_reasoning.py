"""How hard a model thinks, in the words of its family.

Converse has one field for it, `outputConfig.effort`; the rest goes to the model itself. The
families' own words are those of their vendors' parameters in the Bedrock user guide.
"""

from collections.abc import Mapping
from typing import Any

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.codec import CodecTarget

Body = dict[str, Any]

# Claude's least budget for thinking; it must also stay below the output limit.
_MIN_BUDGET = 1024

_EFFORTS: Mapping[v1.ReasoningEffort.ValueType, str] = {
    # No family's scale begins below low.
    v1.REASONING_EFFORT_MINIMAL: "low",
    v1.REASONING_EFFORT_LOW: "low",
    v1.REASONING_EFFORT_MEDIUM: "medium",
    v1.REASONING_EFFORT_HIGH: "high",
}

# Thinking tokens that stand for an effort on models of Claude that know only budgets.
_BUDGETS: Mapping[v1.ReasoningEffort.ValueType, int] = {
    v1.REASONING_EFFORT_MINIMAL: 1024,
    v1.REASONING_EFFORT_LOW: 2048,
    v1.REASONING_EFFORT_MEDIUM: 8192,
    v1.REASONING_EFFORT_HIGH: 24576,
}


def put_reasoning(
    body: Body, extra: Body, config: v1.GenerationConfig, target: CodecTarget
) -> None:
    """Sets what the request says of reasoning in the body and in the model's own fields.

    An account of the thinking comes without being asked for, where the model gives one. Raises
    TrunklineError(INVALID_REQUEST) naming the field for what the model's family cannot be told.
    """
    family = target.flags.get("family")
    if family == "claude":
        by_budget = target.flags.get("effort") == "budget"
        effort = None if by_budget else _EFFORTS.get(config.reasoning.effort)
        thinking = _thinking(config, effort, by_budget=by_budget)
        if thinking:
            extra["thinking"] = thinking
        if effort:
            body.setdefault("outputConfig", {})["effort"] = effort
    elif family == "nova":
        _put_nova(extra, config.reasoning)
    elif family == "openai":
        _put_openai(extra, config.reasoning)
    elif config.reasoning.budget_tokens:
        raise invalid("config.reasoning.budget_tokens", "this model does not offer it")
    elif config.reasoning.effort in _EFFORTS:
        raise invalid("config.reasoning.effort", "this model does not offer it")


def _thinking(config: v1.GenerationConfig, effort: str | None, *, by_budget: bool) -> Body | None:
    """Claude's own `thinking`; None when it is not to be sent."""
    reasoning = config.reasoning
    if reasoning.HasField("budget_tokens"):
        budget = _checked_budget(config)
        if not budget:
            return {"type": "disabled"}
    elif reasoning.effort == v1.REASONING_EFFORT_NONE:
        return {"type": "disabled"}
    else:
        budget = _budget_for_effort(config) if by_budget else 0
    if budget:
        return {"type": "enabled", "budget_tokens": budget}
    if by_budget or not (effort or reasoning.include_reasoning):
        return None
    # Models of this kind keep their thinking to themselves unless asked.
    display = {"display": "summarized"} if reasoning.include_reasoning else {}
    return {"type": "adaptive", **display}


def _checked_budget(config: v1.GenerationConfig) -> int:
    field = "config.reasoning.budget_tokens"
    budget = config.reasoning.budget_tokens
    if budget == 0:
        return 0
    if config.reasoning.effort == v1.REASONING_EFFORT_NONE:
        raise invalid(field, "contradicts an effort of none")
    if budget < _MIN_BUDGET:
        raise invalid(field, f"must be 0 or at least {_MIN_BUDGET} for this provider")
    if config.HasField("max_output_tokens") and budget >= config.max_output_tokens:
        raise invalid(field, f"must be below the output limit of {config.max_output_tokens}")
    return budget


def _budget_for_effort(config: v1.GenerationConfig) -> int:
    """The thinking tokens for an effort, 0 for none asked, at most three quarters of the limit."""
    budget = _BUDGETS.get(config.reasoning.effort, 0)
    if not budget or not config.HasField("max_output_tokens"):
        return budget
    limit = config.max_output_tokens
    if limit <= _MIN_BUDGET:
        raise invalid(
            "config.max_output_tokens", f"must exceed {_MIN_BUDGET} for this provider to reason"
        )
    return max(_MIN_BUDGET, min(budget, limit * 3 // 4))


def _put_nova(extra: Body, reasoning: v1.ReasoningConfig) -> None:
    if reasoning.budget_tokens:
        raise invalid("config.reasoning.budget_tokens", "this model knows only an effort")
    effort = _EFFORTS.get(reasoning.effort)
    if reasoning.HasField("budget_tokens") or reasoning.effort == v1.REASONING_EFFORT_NONE:
        extra["reasoningConfig"] = {"type": "disabled"}
    elif effort:
        extra["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": effort}


def _put_openai(extra: Body, reasoning: v1.ReasoningConfig) -> None:
    if reasoning.HasField("budget_tokens"):
        raise invalid("config.reasoning.budget_tokens", "this model knows only an effort")
    if reasoning.effort == v1.REASONING_EFFORT_NONE:
        raise invalid("config.reasoning.effort", "this model cannot but reason")
    effort = _EFFORTS.get(reasoning.effort)
    if effort:
        extra["reasoning_effort"] = effort
