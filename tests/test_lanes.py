"""What stands before a provider: what is known of it, and who asks."""

from zejzl.magic.breakers import CircuitBreaker
from zejzl.magic.lanes import MOST_MODELS, Asked, Full, Lane, Permit, Raised, asked_by
from zejzl.policies.admission import Criticality, loyalty
from zejzl.policies.breaker import Refused


def test_each_model_has_a_context_of_its_own() -> None:
    lane = Lane("a")

    lane.context("small").refuse(1_000)

    assert lane.context("small").too_long(1_000)
    assert not lane.context("large").too_long(1_000)


def test_models_beyond_a_thousand_are_not_told_apart_and_not_remembered() -> None:
    lane = Lane("a")
    for n in range(MOST_MODELS):
        lane.context(str(n)).refuse(n)

    lane.context("one more").refuse(5)

    assert lane.context("one more").refused == float("inf")
    assert (lane.context("0").refused, lane.context("999").refused) == (0, 999)


def test_a_usual_call_is_asked_for_without_a_thought() -> None:
    usual = [asked_by(Criticality.NORMAL, None, streamed=streamed) for streamed in (False, True)]

    assert usual == [Asked(Criticality.NORMAL, 1.0, False), Asked(Criticality.NORMAL, 1.0, True)]
    assert asked_by(Criticality.NORMAL, None, streamed=True) is usual[1]


def test_any_other_brings_its_class_and_its_conversations_share() -> None:
    asked = asked_by(Criticality.SHEDDABLE, "support-42", streamed=True)
    alone = asked_by(Criticality.CRITICAL, None, streamed=False)

    assert asked == Asked(Criticality.SHEDDABLE, loyalty("support-42"), True)
    assert alone == Asked(Criticality.CRITICAL, 1.0, False)
    assert asked_by(Criticality.NORMAL, "support-42", streamed=False).share == asked.share


def test_a_permit_is_of_a_call_that_is_not_late_and_cannot_be() -> None:
    lane = Lane("a")
    lane.limiter.in_flight = 3
    permit = Permit(CircuitBreaker(), lane, 7, True, False)

    assert (permit.token, permit.placed, permit.streamed) == (7, True, False)
    assert (permit.late, permit.late_at, permit.crowd) == (False, float("inf"), 3)


def test_reasons_for_a_refusal_are_told_apart() -> None:
    assert isinstance(Full(0.0, "x"), Refused) and isinstance(Raised(0.0, "x"), Refused)
    assert not isinstance(Full(0.0, "x"), Raised)
