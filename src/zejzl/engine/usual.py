"""How requests are treated that say nothing of it: settings, made ready for the path of a call."""

from dataclasses import dataclass

from zejzl.engine.journey import Limits
from zejzl.settings import Settings


@dataclass(frozen=True, slots=True)
class Usual:
    """Settings that may change while requests are under way; each request sees one state of them.

    Attributes:
        settings: All of them.
        limits: How far a request may go.
    """

    settings: Settings
    limits: Limits


def usual(settings: Settings) -> Usual:
    """Return what these settings say of requests."""
    return Usual(
        settings,
        Limits(
            deadline=settings.deadline,
            attempt=settings.attempt_timeout,
            first_token=settings.first_token_timeout,
            idle=settings.idle_timeout,
            patience=settings.patience,
            max_attempts=settings.max_attempts,
            hedging=settings.hedging,
        ),
    )
