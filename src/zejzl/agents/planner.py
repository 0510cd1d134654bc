"""Plans without a model: a task is split by its own structure, and its verbs name the tools.

A numbered list is done in its order; the points of a list with dashes are free of one another.
Elsewhere a new sentence and "then" come after what stands before, "and" and ";" go beside it:

    index the folder notes, count the tokens of each file, then write a report to report.md

What is in quotes is never split. A clause whose verb is not known needs a model. Pure.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from zejzl.agents.models import NeedsModel
from zejzl.agents.plans import MOST_SUBTASKS, Plan, PlanRefused, Subtask
from zejzl.agents.rules import Expectation

LONGEST_TASK = 20_000

_ITEM = re.compile(r"^(?:(?P<number>\d{1,3}[.)])|[-*•])\s+(?P<text>\S.*)$")
_CLOSES = {'"': '"', "'": "'", "`": "`", "“": "”", "«": "»"}
_QUOTE = re.compile(f"[{''.join(_CLOSES)}]")
# A folder that is written as a dot, and not the dot that ends a sentence.
_HERE = re.compile(
    r"\b(?P<lead>(?:in|within|under|below|of|folder|directory|index|list|scan)\s+)"
    r"(?P<where>\.{1,2}/?)(?P<ends>(?=\s(?-i:[A-Z])))?(?=[\s,;!?]|$)",
    re.IGNORECASE,
)
_BREAK = re.compile(
    r"(?P<after>\s*[,;.]?\s*\b(?:and\s+then|then|afterwards|finally)\b[\s,]*|[.!?]\s+(?=\S)|\n+)"
    r"|(?P<beside>\s*;\s*|\s*,\s*(?:and\s+)?|\s+and\s+)"
)
_VERBS = (
    "add append ask calculate compute count evaluate fetch find grep index list look open read "
    "save scan search show store sum tell translate explain summarise summarize what write report "
    "make create"
)
_VERB = re.compile(rf"(?:please\s+)?(?:{'|'.join(_VERBS.split())})\b", re.IGNORECASE)
_MARK = "\x00"  # stands for the quoted text of that number


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing to do.

    Attributes:
        text: In words, with marks for what was quoted.
        quoted: What the marks stand for.
        after: Whether it comes after the clause before it, and not beside it.
    """

    text: str
    quoted: tuple[str, ...]
    after: bool

    @property
    def words(self) -> str:
        """The clause as it was written, about."""
        return re.sub(rf"{_MARK}(\d+){_MARK}", lambda m: f'"{self.quoted[int(m[1])]}"', self.text)


def split(task: str) -> list[Clause]:
    """Return what there is to do, in the order of the text.

    Raises:
        PlanRefused: If there is nothing, or too much.
    """
    if len(task) > LONGEST_TASK:
        raise PlanRefused(f"the task has {len(task)} characters, {LONGEST_TASK} may be")
    quoted: list[str] = []

    def mark(text: str) -> str:
        quoted.append(text)
        return f"{_MARK}{len(quoted) - 1}{_MARK}"

    text = "".join(
        mark(piece) if inside else piece for piece, inside in _pieces(task.replace(_MARK, ""))
    )
    # Long runs of blanks would cost the patterns below a power of their length.
    text = "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
    text = _HERE.sub(
        lambda found: (
            f"{found['lead']}{mark(found['where'])}{'' if found['ends'] is None else '.'}"
        ),
        text,
    )
    items = [found for line in text.splitlines() if (found := _ITEM.match(line))]
    parts: list[tuple[str, bool]] = []
    if items:
        for item in items:
            first, *others = _clauses(item["text"])
            parts += [(first[0], item["number"] is not None), *others]
    else:
        parts = list(_clauses(text))
    clauses = [Clause(words, tuple(quoted), after) for words, after in parts if words]
    if not clauses:
        raise PlanRefused("the task is empty: say what is to be done")
    if len(clauses) > MOST_SUBTASKS // 2:
        raise PlanRefused(f"the task has {len(clauses)} clauses, {MOST_SUBTASKS // 2} may be")
    return clauses


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield (piece, whether it stood in quotes); each character is looked at once or twice."""
    start = place = 0
    unclosed = set[str]()  # what is not closed once is not closed further on
    while opened := _QUOTE.search(text, place):
        place, closing = opened.end(), _CLOSES[opened[0]]
        end = -1 if closing in unclosed else text.find(closing, place)
        if end < 0:
            unclosed.add(closing)
        elif closing != "'" or not _is_letter(text[end + 1 : end + 2]):  # an apostrophe
            yield text[start : opened.start()], False
            yield text[place:end], True
            start = place = end + 1
    yield text[start:], False


def _is_letter(text: str) -> bool:
    return text.isalnum() or text == "_"


def _clauses(text: str) -> Iterator[tuple[str, bool]]:
    """Yield (clause, whether it comes after the one before); a verb begins each."""
    start, after = 0, True
    for found in _BREAK.finditer(text):
        if found["beside"] and not _VERB.match(text, found.end()):
            continue  # "a.txt and b.txt" is one thing to do
        if not text[start : found.start()].strip():
            continue
        yield text[start : found.start()].strip(" \t\n.!?,;"), after
        start, after = found.end(), found["after"] is not None
    yield text[start:].strip(" \t\n.!?,;"), after


# From clauses to subtasks ----------------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    """A plan as it grows.

    Attributes:
        task: All of it, for titles.
        subtasks: So far.
        before: Ids of the subtasks that the present clause comes after.
        level: Ids of the subtasks of the clauses beside it, and of its own.
    """

    task: str
    subtasks: list[Subtask] = field(default_factory=list)
    before: tuple[str, ...] = ()
    level: tuple[str, ...] = ()

    def add(
        self, clause: Clause, tool: str, inputs: dict[str, object], *expected: Expectation
    ) -> str:
        id = f"s{len(self.subtasks) + 1}"
        self.subtasks.append(
            Subtask(
                id=id,
                description=clause.words,
                tool=tool,
                inputs=inputs,
                expected=expected,
                needs=self.before,
            )
        )
        self.level = (*self.level, id)
        return id

    def newest(self, *tools: str) -> str | None:
        """Return the id of the newest subtask with one of these tools."""
        return next((each.id for each in reversed(self.subtasks) if each.tool in tools), None)


def plan(task: str) -> Plan:
    """Return the plan that a task's own structure tells.

    Raises:
        NeedsModel: If a clause's verb is not known here; names the clause.
        PlanRefused: If there is nothing to do, or a clause does not say with what.
    """
    draft = _Draft(task)
    for clause in split(task):
        if clause.after and draft.level:
            draft.before, draft.level = draft.level, ()
        for form, make in _FORMS:
            if found := form.match(clause.text):
                make(draft, clause, found)
                break
        else:
            raise NeedsModel(f"the step {clause.words[:80]!r}")
    return Plan(subtasks=tuple(draft.subtasks))


def _unquoted(clause: Clause, text: str | None) -> str:
    """Return a piece of the clause as the user wrote it, without the quotes around it."""
    text = (text or "").strip(" ,:")
    whole = re.fullmatch(rf"{_MARK}(\d+){_MARK}", text)
    if whole:
        return clause.quoted[int(whole[1])]
    return re.sub(rf"{_MARK}(\d+){_MARK}", lambda found: clause.quoted[int(found[1])], text)


def _names(clause: Clause, text: str) -> list[str]:
    parts = re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", text.strip())
    return [name for part in parts if (name := _unquoted(clause, part))]


def _read(draft: _Draft, clause: Clause, found: re.Match[str]) -> None:
    text = Expectation(rule="type", type="text")
    for name in _names(clause, found["what"]):
        draft.add(clause, "read_file", {"path": name}, text)


def _list(draft: _Draft, clause: Clause, found: re.Match[str]) -> None:
    inputs: dict[str, object] = {"folder": _unquoted(clause, found["where"])}
    if found["suffix"]:
        inputs["suffix"] = f".{found['suffix'].lstrip('*.')}"
    draft.add(clause, "list_files", inputs, Expectation(rule="type", type="list"))


def _search(draft: _Draft, clause: Clause, found: re.Match[str]) -> None:
    where = _unquoted(clause, found["where"])
    inputs: dict[str, object] = {"query": _unquoted(clause, found["what"])}
    inputs["path" if re.search(r"\.\w+$", where) else "folder"] = where
    draft.add(
        clause, "search_text", inputs, Expectation(rule="type", at="hits", type="list")
    )  # fmt: skip


_ANAPHORA = re.compile(
    r"(?:it|them|that|this|these|those|files?|(?:each|every|all|the)(?:\s+of)?(?:\s+\w+){0,2})$",
    re.IGNORECASE,
)


_EACH_IN = re.compile(
    r"(?:(?:each|every|all|the)\s+)*(?:of\s+the\s+)?(?:(?P<suffix>\*?\.\w+)\s+)?(?:text\s+)?files?\s+"
    r"(?:in|of|under|below)\s+(?:the\s+)?(?:(?:folder|directory)\s+)?(?P<where>\S+)"
    r"(?:\s+folder|\s+directory)?$",
    re.IGNORECASE,
)


def _count(draft: _Draft, clause: Clause, found: re.Match[str]) -> None:
    what = (found["what"] or "").strip()
    counted = Expectation(rule="range", at="tokens", at_least=0)
    whole = Expectation(rule="type", at="tokens", type="integer")
    inputs: dict[str, object]
    if each_in := _EACH_IN.match(what):
        _list(draft, clause, each_in)
        inputs = {"paths": {"result_of": draft.level[-1]}}
    elif what and not _ANAPHORA.match(what):
        if what.startswith(_MARK) and not re.search(r"\.\w+$", _unquoted(clause, what)):
            inputs = {"text": _unquoted(clause, what)}
        else:
            inputs = {"paths": list(_names(clause, what))}
    elif source := draft.newest("list_files", "read_file", "ask_model"):
        tool = next(each.tool for each in draft.subtasks if each.id == source)
        inputs = {"paths" if tool == "list_files" else "text": {"result_of": source}}
    else:
        raise PlanRefused(f"{clause.words!r} does not say whose tokens: name a file or a text")
    draft.add(clause, "count_tokens", inputs, whole, counted)


def _compute(draft: _Draft, clause: Clause, found: re.Match[str]) -> None:
    expression = _unquoted(clause, found["what"])
    draft.add(
        clause, "arithmetic", {"expression": expression}, Expectation(rule="type", type="number")
    )


def _ask(draft: _Draft, clause: Clause, found: re.Match[str]) -> None:
    inputs: dict[str, object] = {"prompt": _unquoted(clause, found["what"])}
    if draft.before:
        inputs["context"] = {id: {"result_of": id} for id in draft.before}
    draft.add(clause, "ask_model", inputs, Expectation(rule="range", at_least=1))


def _write(draft: _Draft, clause: Clause, found: re.Match[str]) -> None:
    what, path = (found["what"] or "").strip(), _unquoted(clause, found["where"])
    text: object
    newest = draft.subtasks[-1] if draft.subtasks else None
    if what.startswith(_MARK):
        text = _unquoted(clause, what)
    elif newest and newest.tool in ("read_file", "ask_model") and _ANAPHORA.match(what):
        text = {"result_of": newest.id}
    else:
        done = [each for each in draft.subtasks if each.tool not in ("write_file", "report")]
        if not done:
            raise PlanRefused(f"{clause.words!r} does not say what to write: put it in quotes")
        sections = {f"{each.id}: {each.description}"[:200]: {"result_of": each.id} for each in done}
        inputs: dict[str, object] = {"title": draft.task[:200], "sections": sections}
        id = draft.add(clause, "report", inputs, Expectation(rule="range", at_least=1))
        text = {"result_of": id}
    draft.add(
        clause,
        "write_file",
        {"path": path, "text": text},
        Expectation(rule="pattern", at="sha256", pattern="[0-9a-f]{64}"),
        Expectation(rule="range", at="bytes", at_least=0),
    )


def _form(pattern: str) -> re.Pattern[str]:
    lead = r"(?:(?:please|then|first|next|finally)\b[\s,]*)*"
    return re.compile(rf"{lead}(?:{pattern})$", re.IGNORECASE | re.DOTALL)


_Make = Callable[[_Draft, Clause, "re.Match[str]"], None]
_PLACE = r"(?:\b(?:the\s+)?(?:folder|directory|files?)\s+)?(?P<where>\S+)"

_FORMS: tuple[tuple[re.Pattern[str], _Make], ...] = (
    (
        _form(
            r"(?:index|list|scan|look\s+through)\s+(?:(?:all|every|each|the)\s+)?"
            r"(?:(?:text\s+)?files?\s+)?(?:ending\s+in\s+)?(?:(?P<suffix>\*?\.\w+)\s+(?:files?\s+)?)?"
            r"(?:(?:in|of|under|below)\s+)?(?:the\s+)?(?:(?:folder|directory)\s+)?"
            r"(?P<where>\S+?)(?:\s+folder|\s+directory)?"
        ),
        _list,
    ),
    (
        _form(
            r"(?:search|grep|find|look)\s+(?:for\s+)?(?:lines\s+with\s+|the\s+(?:text|word)\s+)?"
            r"(?P<what>\x00\d+\x00|\S+)(?:\s+(?:in|within|under)\s+" + _PLACE + ")?"
        ),
        _search,
    ),
    (
        _form(
            r"count\s+(?:the\s+)?tokens(?:\s+(?:per|for|in|of|from)\s+"
            r"(?:(?:the\s+)?(?:file|text)\s+(?=[^\s]))?(?P<what>.+))?"
        ),
        _count,
    ),
    (
        _form(r"(?:compute|calculate|evaluate|what\s+is|sum\s+up)\s+(?P<what>[^a-z]*[\d)\x00]\s*)"),
        _compute,
    ),
    (_form(r"ask(?:\s+(?:the|a)\s+(?:language\s+)?model)?\s*[:,]?\s+(?P<what>.+)"), _ask),
    (
        _form(
            r"(?:write|save|store|make|create)\s+(?P<what>.*?)\s*"
            r"\b(?:into|to|as|in)\s+" + _PLACE
        ),
        _write,
    ),
    (_form(r"(?:read|open|show|fetch)\s+(?:(?:the\s+)?files?\s+)?(?P<what>.+)"), _read),
)
