"""How a call ended badly, as an error of the tree and in words."""

import asyncio

from zejzl.engine.targets import Pick
from zejzl.errors import (
    ERRORS,
    AttemptTimeout,
    FailureClass,
    ProviderError,
    Transient,
    shorten,
    words,
)
from zejzl.policies.diagnosis import diagnose


def as_provider_error(pick: Pick, failure: Exception, now: float, ends: float) -> ProviderError:
    """Return what a call raised as an error of the tree, with the name the bus has for it.

    Args:
        pick: The call.
        failure: What it raised.
        now: The present.
        ends: The request's deadline.
    """
    target, limited = pick.target, pick.limit
    if isinstance(failure, ProviderError):
        failure.provider = target.name  # the name in this bus, not the adapter's own
        failure.model = failure.model or target.model
        return failure
    error: ProviderError
    if isinstance(failure, TimeoutError) and limited and now - pick.started >= 0.99 * limited:
        at_end = now >= ends
        error = AttemptTimeout(
            "no answer before the deadline" if at_end else f"no answer in {limited:g} s",
            provider=target.name,
            model=target.model,
            failure_class=FailureClass.DEADLINE if at_end else None,
        )
    else:
        found = diagnose(failure)
        error = ERRORS.get(found.failure_class, Transient)(
            in_words(failure),
            provider=target.name,
            model=target.model,
            retry_after=found.retry_after,
            failure_class=found.failure_class,
        )
    error.__cause__ = failure
    return error


def in_words(failure: BaseException) -> str:
    """Return what happened, on one line."""
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        return "cancelled: the caller left"
    return shorten(f"{type(failure).__name__}: {words(failure)}")
