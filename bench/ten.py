"""Scenarios that separate a toy from the real thing.

    python bench/ten.py [--seeds 1,2] [--only NAME ...] [--json]

Of ten, those that a bus and a provider on loopback can play in virtual time: 1, 2, 3, 5, 6 and 9.
Figures are the worst of the seeds; those with a limit decide. Exit code 1 when one is missed.
"""

import sys
from functools import partial

from ten_outages import flap, retry_storm, silent
from ten_overload import growth, overload
from ten_refusals import key_refused, leaving, limited, not_my_fault
from ten_table import Row, main

STORM = {
    "upstream ÷ first attempts": 1.1,
    "probes an interval": 1.0,
    "latest s": 60.0,
    "back s": 10.0,
}
FLAP = {"wrong": 0.0, "primary attempts": 15.0, "back s": 10.0}
HONOURED = {"by the preferred one %": 100.0}
UNTOUCHED = {"breaker's edges": 0.0, "breakers that counted failures": 0.0}
UNTOLD = {"calls inside the window": 7.0, "opened": 1.0}  # three open it; then probes
SILENT = {"beyond the limit s": 1.5, "tries": 1.0, "sockets left open": 0.0}

OUTAGES = (
    *(
        Row(
            name="1 retry storm",
            variant=variant,
            play=partial(retry_storm, over=over, calm=calm, patience=patience),
            most=STORM,
            least={"told an answer or a typed error %": 100.0},
            scored=patience is None,  # one that waits half a minute is called again in it
        )
        for variant, over, calm, patience in (
            ("a thousand at once", 0.0, 10.0, None),
            ("a thousand at once, nothing known before", 0.0, 0.0, None),
            ("a thousand at once, patience 30", 0.0, 10.0, 30.0),
            ("a thousand in a minute", 60.0, 10.0, None),
            ("a thousand in a minute, patience 30", 60.0, 10.0, 30.0),
        )
    ),
    *(
        Row(
            name="2 flap and return",
            variant=variant,
            play=partial(flap, fault=fault),
            most=FLAP | most,
            least={"answered %": 100.0, "opened": 1.0},
        )
        for variant, fault, most in (
            ("503", "503", {}),
            ("reset before the headers", "reset", {}),
            # Seven more: three failures in a row open it, or ten late answers of twenty.
            ("silence", "silence", {"primary attempts": 22.0}),
            ("cut midway", "cut", {}),
            ("error midway", "error event", {}),
            # Ten more are under way before the first is known to have stalled.
            ("stall midway", "stall", {"primary attempts": 25.0}),
        )
    ),
    Row(
        name="2 flap and return",
        variant="cut midway, the fallback says something else",
        play=partial(flap, fault="cut", alike=False),
        most=FLAP,
        least={"opened": 1.0},
    ),
    *(
        Row(
            name="3 silent provider",
            variant=variant,
            play=partial(silent, stream=stream, headers=headers, warm=warm),
            most=SILENT,
            least={"answered %": 100.0},
        )
        for variant, stream, headers, warm in (
            ("streams, from the first call on", True, False, False),
            ("streams, silent after the headers", True, True, False),
            ("streams, after it was well", True, False, True),
            ("plain, from the first call on", False, False, False),
            ("plain, after it was well", False, True, True),
        )
    ),
)

REFUSALS = (
    *(
        Row(
            name="5 mixed 429s",
            variant=variant,
            play=partial(limited, **how),
            most={"calls inside the window": 3.0, "back s": 10.0, "opened": 0.0, **most},
            least={"answered %": 100.0, **least},
        )
        for variant, how, most, least in (
            ("2 s", {"wait": 2.0, "written": "seconds"}, {"latest s": 3.2}, HONOURED),
            ("a date", {"wait": 1.0, "written": "date"}, {"latest s": 3.2}, HONOURED),
            ("not told", {"wait": 2.0, "written": None}, UNTOLD, {}),
            (
                "120 s",
                {"wait": 120.0, "written": "seconds", "rate": 10.0},
                {"latest moved s": 0.2},
                {},
            ),
            ("2 s, alone", {"wait": 2.0, "written": "seconds", "alone": True}, {}, HONOURED),
        )
    ),
    *(
        Row(
            name="6 not my fault",
            variant=f"{fault}, {'streamed' if stream else 'plain'}",
            play=partial(not_my_fault, fault=fault, stream=stream),
            most={"tries on that model": 1.0, **elsewhere, **UNTOUCHED},
            least={"good ones by it %": 100.0, **told},
        )
        for fault, elsewhere, told in (
            ("context too long", {}, {"answered elsewhere %": 100.0}),
            ("content filter", {"calls elsewhere": 0.0}, {"refused as what it is %": 100.0}),
            ("400", {"calls elsewhere": 0.0}, {"refused as what it is %": 100.0}),
            ("404", {"calls elsewhere": 0.0}, {"refused as what it is %": 100.0}),
        )
        for stream in (False, True)
    ),
    *(
        Row(
            name="6 not my fault",
            variant=f"caller cancels, {'streamed' if stream else 'plain'}",
            play=partial(leaving, stream=stream),
            most={
                "tries on that model": 1.0,
                "calls elsewhere": 0.0,
                "sockets left open": 0.0,
                "places kept": 0.0,
                **UNTOUCHED,
            },
            least={"good ones by it %": 100.0},
        )
        for stream in (False, True)
    ),
    *(
        Row(
            name="6 not my fault",
            variant=f"{status} pauses that key only",
            play=partial(key_refused, status=status),
            most={"of them in 30 s": 1.0, "calls with the refused key": 4.0, **UNTOUCHED},
            least={"answered %": 100.0},
        )
        for status in (401, 402)
    ),
)

OVERLOAD = (
    *(
        Row(
            name="9 overload with priorities",
            variant=variant,
            play=partial(overload, queue=queue, refusal=refusal),
            most={"99 % refused after ms": 10.0, "refusal's work ms": 10.0},
            least={"critical ones answered %": 99.0, "goodput %": 90.0},
        )
        for variant, queue, refusal in (
            ("all wait there", 1_000, 503),
            ("ten wait there, then 503", 10, 503),
            ("ten wait there, then 429", 10, 429),
            ("nobody waits there, 503", 0, 503),
            ("nobody waits there, 429", 0, 429),
        )
    ),
    Row(
        name="9 overload with priorities",
        variant="memory",
        play=partial(growth, queue=1_000),
        most={"bytes a request": 50.0, "objects left": 0.0},
    ),
)

ROWS = (*OUTAGES, *REFUSALS, *OVERLOAD)

if __name__ == "__main__":
    sys.exit(main(ROWS, __doc__))
