"""A change that findings ask for: what to set, what it could gain, how to verify it. A value.

Times are in seconds, shares from 0 to 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast, get_args

from zejzl.learning.evidence import (
    VERSION,
    Effect,
    Evidence,
    Fields,
    digest,
    effect_of,
    evidence_of,
)

Action = Literal[
    "retry_policy",
    "timeout",
    "reorder_providers",
    "cache",
    "add_guard",
    "lower_concurrency",
    "raise_max_tokens",
    "shield",
    "parallelise",
    "prompt_feedback",
]
# The contract's word for keeping people away from what mostly fails, unless they insist.
KEEP_AWAY: Final[Action] = "shield"
Metric = Literal["success", "seconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How to find out whether it helped.

    Attributes:
        metric: What is compared: the share of successes, or seconds.
        minimum_effect: The least that is worth having, in the unit of the expected gain.
        n_needed: Requests or cases in each arm that show so much, 8 times in 10.
        stop_rule: When to stop looking.
    """

    metric: Metric
    minimum_effect: float
    n_needed: int
    stop_rule: str

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {
            "metric": self.metric,
            "minimum_effect": self.minimum_effect,
            "n_needed": self.n_needed,
            "stop_rule": self.stop_rule,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Improvement:
    """One change that findings ask for.

    Attributes:
        finding_ids: What it rests on.
        target: What is changed: a provider, a step, a setting.
        parameters: What the change is, in detail.
        settings: Settings of a bus with their new values; empty where it is advice.
        expected_gain: What it could bring at most, by what was measured; an experiment tells.
        cost_risk: What it costs, and what could go wrong.
        status: "proposed", and later what became of it.
        feedback: What a person thought of it: "verdict" and "note".
    """

    finding_ids: tuple[str, ...]
    action: Action
    target: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    expected_gain: Effect
    cost_risk: str
    evidence: Evidence = field(default_factory=Evidence)
    how_to_verify: Verification
    status: str = "proposed"
    feedback: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Action and a digest of the target: the same as long as it is the same change."""
        return f"{self.action}-{digest({'target': self.target})}"

    @property
    def applicable(self) -> bool:
        """Whether a bus can take it."""
        return bool(self.settings)

    @property
    def reversible(self) -> bool:
        """Whether a bus can give it back."""
        return bool(self.settings)

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values: v, id and the fields."""
        return {
            "v": VERSION,
            "id": self.id,
            "finding_ids": list(self.finding_ids),
            "action": self.action,
            "target": self.target,
            "parameters": dict(self.parameters),
            "settings": dict(self.settings),
            "applicable": self.applicable,
            "expected_gain": self.expected_gain.to_json(),
            "cost_risk": self.cost_risk,
            "evidence": self.evidence.to_json(),
            "how_to_verify": self.how_to_verify.to_json(),
            "reversible": self.reversible,
            "status": self.status,
            "feedback": dict(self.feedback),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, object]) -> "Improvement":
        """Return the improvement that `to_json` wrote.

        Raises:
            StoreTooNew: If a newer version wrote it.
            ValueError: If it is none.
        """
        read = Fields(body, "improvement")
        action = read.text("action")
        if action not in get_args(Action):
            raise ValueError(f"not an improvement: action {action!r:.40}")
        ids = body.get("finding_ids")
        if not isinstance(ids, Sequence) or not all(isinstance(each, str) for each in ids):
            raise ValueError(f"not an improvement: finding_ids {ids!r:.40}")
        return cls(
            finding_ids=tuple(ids),
            action=cast(Action, action),
            target=read.text("target"),
            parameters=read.mapping("parameters"),
            settings=read.mapping("settings"),
            expected_gain=effect_of(body.get("expected_gain")),
            cost_risk=read.text("cost_risk"),
            evidence=evidence_of(body.get("evidence")),
            how_to_verify=_verification_of(body.get("how_to_verify")),
            status=read.text("status"),
            feedback=read.texts("feedback"),
        )


def _verification_of(body: object) -> Verification:
    read = Fields(body, "verification", version=None)
    metric = read.text("metric")
    if metric not in get_args(Metric):
        raise ValueError(f"not a verification: metric {metric!r:.40}")
    return Verification(
        metric=cast(Metric, metric),
        minimum_effect=read.number("minimum_effect"),
        n_needed=read.count("n_needed"),
        stop_rule=read.text("stop_rule"),
    )
