"""What a program that embeds the bus needs for its own tests."""

from zejzl.testing import faults, virtual
from zejzl.testing.behaviours import CANONICAL, Call, Play
from zejzl.testing.fake_clock import FakeClock
from zejzl.testing.fault_server import FaultServer
from zejzl.testing.scripted import ScriptedProvider

__all__ = [
    "CANONICAL",
    "Call",
    "FakeClock",
    "FaultServer",
    "Play",
    "ScriptedProvider",
    "faults",
    "virtual",
]
