"""What to do about a failure, in words that fit the place where it is told."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote

from zejzl import errors
from zejzl.errors import FailureClass
from zejzl.policies.backoff import SPREAD
from zejzl.settings import VENDOR_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a failure is told: what can be typed there, and what was asked.

    Attributes:
        others: How to let somebody else answer.
        anew: How to leave the conversation.
        model: How to name a model; so too `deadline` and `patience`.
        park: How to keep a question until somebody can answer; "" where it cannot be.
        pinned: Whether the question was for one provider and nobody else.
        shown: Whether the beginning of the answer stands above.
    """

    others: str
    anew: str
    model: str
    deadline: str
    patience: str
    park: str = ""
    pinned: bool = False
    shown: bool = False

    @property
    def or_others(self) -> str:
        """How to let another provider answer, where that is not so already."""
        return f", or {self.others}" if self.pinned else ""


SHELL = Place(
    others="let others answer too: --failover",
    anew="use another --conversation",
    model="--model",
    deadline="--deadline, ZEJZL_DEADLINE",
    patience="--patience",
    park="--park",
)
CHAT = Place(
    others="ask somebody else: /provider",
    anew="begin another conversation: /new",
    model="/model",
    deadline="ZEJZL_DEADLINE",
    patience="ZEJZL_PATIENCE",
)

LATER = "try again later{place.or_others}"
KEY = "check {key} in the environment or .env"
PRICE = "add its price: `{zejzl} costs --help` shows how"
DEADLINE = 60.0  # seconds, where nothing else is set
LONG = 600.0  # seconds for which nobody sits and waits
MODEL = "check the model's name ({place.model})"

# What to do about a failure; the first class that fits.
_ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (errors.SettingsError, "correct it in the environment, .env or zejzl.toml"),
    (errors.NoSuchProvider, "see `{zejzl} providers` for who can be asked and which keys to set"),
    (errors.NoSuchRequest, "see `{zejzl} parked` for what waits, `{zejzl} history --all` for all"),
    (errors.RequestUnderWay, "wait for its end, then do the same again"),
    (errors.Parked, "`{zejzl} parked --result {id}` shows the answer once there is one"),
    (
        errors.GivenUp,
        "`{zejzl} parked --replay {id}` tries it again, `{zejzl} parked --drop {id}` forgets it",
    ),
    (errors.ConversationBusy, "wait for the earlier answer, or {place.anew}"),
    (
        errors.SpendLimitReached,
        "`{zejzl} costs` shows what was spent; the limits are ZEJZL_SPEND_LIMIT_DAY and "
        "ZEJZL_SPEND_LIMIT_CONVERSATION",
    ),
    (errors.CircuitOpen, LATER),
    (errors.RateLimited, LATER),
    (errors.ProviderOverloaded, LATER),
    (errors.ConnectFailed, "check the network and the address that `{zejzl} providers` shows"),
    (errors.Transient, "try again{place.or_others}"),
    (errors.AuthFailed, KEY),
    (errors.QuotaExhausted, "add credit to the account behind {key}, or ask another provider"),
    (errors.ContextOverflow, "ask something shorter, or {place.anew}"),
    (errors.ContentFiltered, "put it in other words, or ask another provider"),
    (errors.BadRequest, MODEL + "; `{zejzl} providers` shows it"),
    (ImportError, "run ./start.sh"),
)
_TIMES = {
    FailureClass.DEADLINE: "allow more time: {place.deadline}",
    FailureClass.FIRST_TOKEN_TIMEOUT: "allow more time (ZEJZL_ATTEMPT_TIMEOUT; of a stream: "
    "ZEJZL_FIRST_TOKEN_TIMEOUT){place.or_others}",
    FailureClass.STALLED: "allow longer silences: ZEJZL_IDLE_TIMEOUT",
}


def advice(problem: BaseException, place: Place, zejzl: str) -> list[str]:
    """Return what to do about a failure, one thing a line.

    Args:
        zejzl: The word that calls the command line.
    """
    who = getattr(problem, "provider", "") or getattr(problem, "name", "")
    keys = " or ".join(VENDOR_KEYS.get(who, ("its key",)))
    words = {"place": place, "zejzl": zejzl, "key": keys, "id": quote(getattr(problem, "id", ""))}
    return [said.format(**words) for said in _fitting(problem, place)]


def _fitting(problem: BaseException, place: Place) -> Iterator[str]:
    if isinstance(problem, errors.Incomplete) and place.shown:
        yield "what had arrived is shown above; ask again for the whole answer"
    kind = getattr(problem, "failure_class", None)
    if isinstance(problem, errors.Transient) and kind in _TIMES:
        yield _TIMES[kind]
    elif isinstance(problem, errors.Incomplete) and place.shown:
        return
    elif isinstance(problem, errors.RateLimited) and problem.retry_after is not None:
        seconds = math.ceil(problem.retry_after * (1.0 + SPREAD))
        if seconds > LONG:
            yield f"{LATER}{_or_park(place)}"
            return
        longer = " (and more than that: {place.deadline})" if seconds >= DEADLINE else ""
        yield f"{LATER}, or let it wait so long: {{place.patience}} {seconds}{longer}"
    elif isinstance(problem, errors.CircuitOpen) and _key_refused(problem):
        yield f"{KEY}{{place.or_others}}"
    elif isinstance(problem, errors.SpendLimitReached) and "no price" in problem.reason:
        yield PRICE
    elif isinstance(problem, errors.SettingsError) and problem.setting == "prices":
        yield "correct it there: the setting `prices` (ZEJZL_PRICES) names the file"
    elif isinstance(problem, errors.SettingsError) and hasattr(problem, "__notes__"):
        return  # they say where it is
    elif isinstance(problem, errors.BadRequest) and problem.status == 404:
        yield MODEL + ", and whether the address should end in /v1: `{zejzl} providers` shows both"
    else:
        yield from [said for kind, said in _ADVICE if isinstance(problem, kind)][:1]


def _or_park(place: Place) -> str:
    return f", or keep it until somebody can answer: {place.park}" if place.park else ""


def _key_refused(problem: errors.CircuitOpen) -> bool:
    return f"{problem.name}: its key was refused" in problem.reason
