"""The tour, 5: what to type next."""

from zejzl.cli.terminal import Terminal, word

NEXT = {
    'ask "why is the sky blue?"': "one question, one answer",
    "chat": "a conversation; /help tells the rest",
    "demo": "ten seconds of faults, with healing and without",
    "providers": "who can be asked, and which keys are missing",
    "status --watch": "breakers, retry budget, limits, live",
    "heal": "what failed, and what was done about it",
    'pantheon "count the tokens of each file in docs"': "the nine agents do a task",
    "learn": "what happened, what is slow or failing, what to do first",
    "costs": "calls, tokens, money",
    "local start": "a small language model on this machine",
}
CODE = """\
from ai_framework import AsyncMessageBus

async with AsyncMessageBus() as bus:
    print(await bus.send_message("hello"))"""


def look() -> dict[str, str]:
    """Return command → what it does."""
    return {f"{word()} {command}": does for command, does in NEXT.items()}


def show(terminal: Terminal, found: dict[str, str]) -> None:
    """Print what to type next."""
    terminal.table(["type", "for"], [*found.items()])
    terminal.say("\nIn your own program", "bold")
    terminal.say(CODE)
