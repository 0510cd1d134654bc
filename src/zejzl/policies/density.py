"""How many tokens a text will be counted as: learned from what a provider has counted.

Every vendor counts in its own way, and most tell only afterwards. From texts of known length and
their counts the tokens per byte are learned, for questions and for answers; whoever has to know
beforehand, or in place of a count that never came, multiplies.

Pure. Units: tokens, UTF-8 bytes.
"""

PER_BYTE = 0.25  # tokens, before anything was counted
USUAL_ANSWER = 256.0  # tokens, before any answer came
MEMORY = 0.98  # of what was learned so far, at each further count
FIRST_BYTES = 64.0  # that the first guess weighs as much as


class Density:
    """Tokens per byte of one model's questions and answers, and the usual length of an answer."""

    __slots__ = (
        "_answer_bytes",
        "_answer_tokens",
        "_answers",
        "_prompt_bytes",
        "_prompt_tokens",
        "usual",
    )

    def __init__(self) -> None:
        self._prompt_bytes = self._answer_bytes = FIRST_BYTES
        self._prompt_tokens = self._answer_tokens = FIRST_BYTES * PER_BYTE
        self.usual = USUAL_ANSWER
        self._answers = 0

    def prompt_tokens(self, octets: int) -> int:
        """Return how many tokens a question of so many bytes will be counted as."""
        return round(octets * self._prompt_tokens / self._prompt_bytes)

    def answer_tokens(self, octets: int) -> int:
        """Return how many tokens so many bytes of an answer will be counted as."""
        return round(octets * self._answer_tokens / self._answer_bytes)

    def asked(self, octets: int, tokens: int) -> None:
        """Take in how many tokens a question was counted as."""
        self._prompt_bytes = MEMORY * self._prompt_bytes + octets
        self._prompt_tokens = MEMORY * self._prompt_tokens + tokens

    def answered(self, octets: int, tokens: int) -> None:
        """Take in how many tokens an answer was counted as."""
        self._answer_bytes = MEMORY * self._answer_bytes + octets
        self._answer_tokens = MEMORY * self._answer_tokens + tokens
        self._answers += 1
        self.usual += (tokens - self.usual) * max(1.0 - MEMORY, 1.0 / self._answers)
