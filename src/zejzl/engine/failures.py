"""How a call ended badly, as an error of the tree and in words."""

import asyncio
from contextlib import suppress

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
from zejzl.messages import Usage
from zejzl.policies.diagnosis import diagnose, fact

_FIELDS = {
    "provider": str,
    "model": str,
    "status": int | None,
    "code": str,
    "request_id": str,
    "retry_after": int | float | None,
    "failure_class": FailureClass,
    "usage": Usage | None,
}


def as_provider_error(pick: Pick, failure: Exception, now: float, ends: float) -> ProviderError:
    """Return what a call raised as an error of the tree, with the name the bus has for it.

    Nothing that a provider raises makes this fail. Of an error of the tree that is not whole,
    because a user's own class leaves a field out or holds something else there, one is made.

    Args:
        pick: The call.
        failure: What it raised.
        now: The present.
        ends: The request's deadline.
    """
    target, limited = pick.target, pick.limit
    if isinstance(failure, ProviderError) and _is_whole(failure):
        with suppress(Exception):  # one that can be told nothing, or says nothing, is made anew
            failure.provider = target.name  # the name in this bus, not the adapter's own
            failure.model = failure.model or target.model
            str(failure)
            return failure
    error: ProviderError
    late = limited and now - pick.started >= 0.99 * limited
    if late and isinstance(failure, TimeoutError) and not isinstance(failure, ProviderError):
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


def _is_whole(error: ProviderError) -> bool:
    """Say whether the fields of an error hold what they should."""
    return (
        all(isinstance(fact(error, name), kind) for name, kind in _FIELDS.items())
        and bool(error.args)
        and isinstance(error.args[0], str)
        and error.retry_after in (None, diagnose(error).retry_after)  # some numbers are no wait
    )


def own_failure(ended: BaseException) -> Exception | None:
    """Return what a provider's own work failed with; None: this task is to end, not only that.

    A CancelledError is the caller's leaving, unless nobody has cancelled this task: then the
    provider's own work was cancelled, and that is a failure like any other.
    """
    if isinstance(ended, Exception):
        return ended
    task = asyncio.current_task()
    if isinstance(ended, asyncio.CancelledError) and task and not task.cancelling():
        failure = Transient("its own work was cancelled")
        failure.__cause__ = ended
        return failure
    return None


def in_words(failure: BaseException) -> str:
    """Return what happened, on one line."""
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        return "cancelled: the caller left"
    return shorten(f"{type(failure).__name__}: {words(failure)}")
