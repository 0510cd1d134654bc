"""What `import ai_framework` costs over a bare Python: seconds and megabytes, medians.

python bench/import.py [--rounds 15]
"""

import argparse
import statistics
import subprocess
import sys
import time

from machine import print_machine

GOAL_SECONDS = 0.25
GOAL_MEGABYTES = 30.0
MEASURED = """
import resource
{}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure(statement: str) -> tuple[float, float]:
    """Return seconds and megabytes of a Python process that runs `statement`."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(statement)],
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - started, int(done.stdout) / 1024.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    rounds = arguments.parse_args().rounds
    measure("import ai_framework")  # so that compiled files exist
    pairs = [(measure("pass"), measure("import ai_framework")) for _ in range(rounds)]
    print_machine()
    for at, (what, unit, goal) in enumerate(
        (("time", "s", GOAL_SECONDS), ("memory", "MB", GOAL_MEGABYTES))
    ):
        bare = statistics.median(pair[0][at] for pair in pairs)
        extra = statistics.median(pair[1][at] - pair[0][at] for pair in pairs)
        verdict = "within" if extra <= goal else "OVER"
        ratio = (bare + extra) / bare
        print(
            f"{what:7} bare Python {bare:7.3f} {unit}, import adds {extra:6.3f} {unit} "
            f"({ratio:.2f}x): {verdict} the goal of {goal} {unit}"
        )


if __name__ == "__main__":
    main()
