"""`zejzl costs`: what calls cost, from the sums that the database keeps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from zejzl.cli.reports import kept, spent_on
from zejzl.cli.terminal import Terminal, age, counted, line, usd, word
from zejzl.clock import SystemClock
from zejzl.engine.prices import load
from zejzl.events import utc
from zejzl.ports import Spending
from zejzl.settings import Settings

SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What some calls cost together.

    Attributes:
        cost_usd: Money, as far as prices are known.
        unpriced: Calls with tokens of no known price.
        unsettled: Calls whose tokens are estimated.
        unsettled_usd: Of `cost_usd`, what is estimated.
    """

    name: str
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    unsettled: int = 0
    unsettled_usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """What this day of UTC has cost, whoever used the database.

    Attributes:
        limit_usd: The setting `spend_limit_day`.
        ends_in_s: Seconds until the next day.
    """

    day: str
    cost_usd: float
    limit_usd: float | None
    ends_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTables:
    """Which prices are used for new calls.

    Attributes:
        builtin_as_of: Day of the oldest built-in figure.
        own: The file of the setting `prices`.
        own_as_of: Its day, "" if it has none.
    """

    builtin_as_of: str
    own: Path | None = None
    own_as_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostsReport:
    """What calls cost.

    Attributes:
        by: What a row is of: "day", "provider" or "model".
        since: The first day; "" is from the beginning.
        conversation: The one that it is about; None: all.
        rows: By day the oldest first, else the dearest first.
        total: Of the rows.
        before: Of what is older.
        unpriced: Models of calls in `total` whose price was not known.
        conversation_limit_usd: The setting `spend_limit_conversation`.
    """

    by: str
    since: str
    conversation: str | None
    rows: Sequence[Costs]
    total: Costs
    before: Costs
    unpriced: Sequence[str]
    today: Today
    conversation_limit_usd: float | None
    prices: PriceTables


NAMES: Mapping[str, Callable[[Spending], str]] = {
    "day": lambda one: one.day,
    "provider": lambda one: one.provider,
    "model": lambda one: f"{one.provider}/{one.model}",
}


async def costs(
    settings: Settings,
    *,
    by: str,
    days: int | None = None,
    since: date | None = None,
    conversation: str | None = None,
) -> CostsReport:
    """Return what calls cost, as the database has it; no bus is started.

    Args:
        days: So many days of UTC, this one included.
        since: Or: the first day.

    Raises:
        SettingsError: If the price table of the user's own cannot be read.
    """
    prices = _prices(settings.prices)
    wall = SystemClock().wall()
    today = utc(wall).date()
    if days is not None:
        since = today - timedelta(days=days - 1)
    first = since.isoformat() if since is not None else ""
    async with kept(settings) as store:
        spent = [] if store is None else await store.spending()
        found = spent
        if store is not None and conversation is not None:
            found = await store.spending(conversation_id=conversation)
    inside = [one for one in found if one.day >= first]
    rows = [_sum(name, of) for name, of in _grouped(inside, NAMES[by]).items()]
    if by != "day":
        rows.sort(key=lambda row: (-row.cost_usd, -row.calls, row.name))
    return CostsReport(
        by=by,
        since=first,
        conversation=conversation,
        rows=rows,
        total=_sum("total", inside),
        before=_sum("before", [one for one in found if one.day < first]),
        unpriced=list(_grouped((one for one in inside if one.unpriced), NAMES["model"])),
        today=Today(
            day=today.isoformat(),
            cost_usd=spent_on(spent, today.isoformat()),
            limit_usd=settings.spend_limit_day,
            ends_in_s=SECONDS_A_DAY - wall % SECONDS_A_DAY,
        ),
        conversation_limit_usd=settings.spend_limit_conversation,
        prices=prices,
    )


def _prices(own: Path | None) -> PriceTables:
    builtin = load(None).as_of
    if own is None:
        return PriceTables(builtin_as_of=builtin)
    as_of = load(own).as_of
    as_of = "" if as_of == builtin else as_of  # a file that tells no day has the built-in one
    return PriceTables(builtin_as_of=builtin, own=own, own_as_of=as_of)


def _grouped(
    found: Iterable[Spending], name: Callable[[Spending], str]
) -> dict[str, list[Spending]]:
    groups: dict[str, list[Spending]] = {}
    for one in found:
        groups.setdefault(name(one), []).append(one)
    return groups


def _sum(name: str, found: Sequence[Spending]) -> Costs:
    return Costs(
        name=name,
        calls=sum(one.calls for one in found),
        prompt_tokens=sum(one.prompt_tokens for one in found),
        completion_tokens=sum(one.completion_tokens for one in found),
        cost_usd=sum((one.cost_usd for one in found), 0.0),
        unpriced=sum(one.unpriced for one in found),
        unsettled=sum(one.unsettled for one in found),
        unsettled_usd=sum((one.unsettled_usd for one in found), 0.0),
    )


# Showing it ----------------------------------------------------------------------------------


def show_costs(terminal: Terminal, found: CostsReport) -> None:
    """Print what calls cost, and what these figures are."""
    if not found.rows:
        _show_nothing(terminal, found)
    else:
        _show_rows(terminal, found)
    _show_limits(terminal, found)
    prices = found.prices
    own = "your own win over them: a TOML file in ZEJZL_PRICES"
    if prices.own is not None:
        day = f", as of {prices.own_as_of}" if prices.own_as_of else ""
        own = f"your own win over them: {prices.own}{day}"
    terminal.say(
        f"prices: built in, as of {prices.builtin_as_of} or later; {own} "
        f"(`{word()} costs --help` shows the form)",
        "dim",
        prose=True,
    )


def _show_rows(terminal: Terminal, found: CostsReport) -> None:
    total = found.total
    parts: list[tuple[str, Callable[[Costs], str]]] = [
        ("calls", lambda row: f"{row.calls:,}"),
        ("prompt tokens", lambda row: f"{row.prompt_tokens:,}"),
        ("answer tokens", lambda row: f"{row.completion_tokens:,}"),
        ("USD", _money),
    ]
    if total.unsettled:
        parts.append(("estimated", lambda row: usd(row.unsettled_usd) if row.unsettled else ""))
    if total.unpriced:
        parts.append(("no price", lambda row: f"{row.unpriced:,}" if row.unpriced else ""))
    heads = [head for head, _ in parts]
    most = max(row.cost_usd for row in found.rows) or 1.0
    rows = [*found.rows, total] if len(found.rows) > 1 else found.rows
    terminal.table(
        [found.by, *heads],
        [[row.name, *(cell(row) for _, cell in parts)] for row in rows],
        right=heads,
        bars=[row.cost_usd / most if row is not total else 0.0 for row in rows],
    )
    if found.before.calls:
        terminal.say(f"before {found.since}: {_in_brief(found.before)}")
    if total.unsettled:
        terminal.say(
            f"estimated, of the USD ({counted(total.unsettled, 'call')}): the provider counted no "
            "tokens, or nobody heard the end (cut, late, cancelled, under way)",
            prose=True,
        )
    if total.unpriced:
        terminal.say(
            f"no price is known for {', '.join(found.unpriced)}: that money is missing here; a "
            "price that you add counts for calls from then on",
            "yellow",
            prose=True,
        )


def _money(row: Costs) -> str:
    """Return a row's money; none at all is not the same as none that is known."""
    return "–" if row.unpriced and not row.cost_usd else usd(row.cost_usd)


def _in_brief(costs: Costs) -> str:
    return f"${usd(costs.cost_usd)} for {counted(costs.calls, 'call')}"


def _show_nothing(terminal: Terminal, found: CostsReport) -> None:
    whose = f" in the conversation {line(found.conversation)}" if found.conversation else ""
    if found.before.calls:
        before = f"before that: {_in_brief(found.before)}; --since and --days reach further back"
        terminal.say(f"no calls{whose} since {found.since}; {before}")
    elif whose:
        terminal.say(f"no calls{whose} that are still kept; `{word()} history --all` lists some")
    else:
        terminal.say(f"no calls yet, so nothing was spent: `{word()} ask hello` makes one")


def _show_limits(terminal: Terminal, found: CostsReport) -> None:
    today, limit = found.today, found.conversation_limit_usd
    if today.limit_usd is not None:
        terminal.say(
            f"today, {today.day} UTC: {_of_limit(today.cost_usd, today.limit_usd)} "
            f"(spend_limit_day); the next day begins in {age(today.ends_in_s)}",
            prose=True,
        )
    if found.conversation is not None and limit is not None:
        spent = found.total.cost_usd + found.before.cost_usd
        terminal.say(f"this conversation: {_of_limit(spent, limit)} (spend_limit_conversation)")


def _of_limit(spent: float, limit: float) -> str:
    return f"${usd(spent)} of ${limit:g} are spent, {spent / limit:.0%}"
