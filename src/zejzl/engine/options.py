"""How one request is to be asked: what its caller said, and how that is kept with it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from zejzl.engine.arguments import (
    checked_criticality,
    checked_request,
    checked_text,
    checked_times,
)
from zejzl.engine.journey import Limits
from zejzl.magic.lanes import Asked, asked_by
from zejzl.messages import Request
from zejzl.policies.admission import Criticality
from zejzl.ports import USUAL_TERMS, Terms


class Options(NamedTuple):
    """What `AsyncMessageBus.send` takes beside the question; None is the setting's word.

    A tuple, because every call makes one and compares it.
    """

    provider: str | None = None
    model: str | None = None
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    deadline: float | None = None
    patience: float | None = None
    failover: bool | Sequence[str] | None = None
    criticality: str = "normal"

    def request(self, content: str, usual_most: int | None) -> Request:
        """Return the question, checked; `usual_most` is its limit where none was said."""
        limit = usual_most if self.max_tokens is None else self.max_tokens
        return checked_request(content, self.system, limit, self.temperature)

    def limits(self, usual: Limits) -> Limits:
        """Return how far it may go, checked."""
        deadline, patience = self.deadline, self.patience
        if deadline is None and patience is None:
            return usual
        checked_times(deadline, patience)
        return replace(
            usual,
            deadline=usual.deadline if deadline is None else deadline,
            patience=usual.patience if patience is None else patience,
            whole_stream=deadline is not None,
        )

    def asked(self, conversation_id: str | None, *, streamed: bool, critical: bool) -> Asked:
        """Return what admission control needs to know.

        Args:
            critical: Whether it is critical whatever its caller said.
        """
        if conversation_id is not None:
            checked_text("conversation_id", conversation_id, empty=True)
        least = Criticality.CRITICAL if critical else Criticality.SHEDDABLE
        found = max(checked_criticality(self.criticality), least)
        return asked_by(found, conversation_id, streamed=streamed)

    def terms(self, key: str | None, parks: bool, *, streamed: bool = False) -> Terms:
        """Return what is kept with it.

        Args:
            key: The caller's own name for the request.
            parks: Whether it may wait for better times.
        """
        if key is not None:
            checked_text("idempotency_key", key)
        if not isinstance(parks, bool):
            raise TypeError(f"park must be True or False, not {parks!r}")
        options = self.to_json(streamed=streamed)
        if key is None and options is None and not parks:
            return USUAL_TERMS
        return Terms(key=key, options=options, parks=parks)

    def to_json(self, *, streamed: bool = False) -> str | None:
        """Return what is not as usual; None: everything is."""
        if self == USUAL:
            return STREAMED if streamed else None
        usual = USUAL._asdict()
        told = {name: value for name, value in self._asdict().items() if value != usual[name]}
        return json.dumps(told | {"stream": True} if streamed else told)

    @classmethod
    def from_json(cls, text: str | None) -> "Options":
        """Return what `to_json` wrote.

        Raises:
            ValueError: If it is none of ours.
        """
        if text is None:
            return USUAL
        told = json.loads(text)
        if isinstance(told, dict):
            told.pop("stream", None)  # for the record: taken up again, it is asked whole
        if not isinstance(told, dict) or not told.keys() <= {*cls._fields}:
            raise ValueError(f"these are no options of a request: {text:.80}")
        return cls(**told)


USUAL = Options()
STREAMED = '{"stream": true}'  # of a streamed request that is as usual otherwise
