"""What every test stands on."""

import signal


def pytest_configure() -> None:
    """Hear Ctrl-C: a job in the background is born deaf to it, and so are the tests' processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
