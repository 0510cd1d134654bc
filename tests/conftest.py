"""What every test stands on."""

import signal

import pytest

SLOW = 300  # seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let real models be asked for."""
    parser.addoption("--real", action="store_true", help="run the tests with real models too")


def pytest_configure() -> None:
    """Hear Ctrl-C: a job in the background is born deaf to it, and so are the tests' processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give slow tests their time; leave real models out unless they are asked for."""
    for item in items:
        if "slow" in item.keywords and "timeout" not in item.keywords:
            item.add_marker(pytest.mark.timeout(SLOW))
    if config.getoption("--real"):
        return
    real = [item for item in items if "real_model" in item.keywords]
    if real:
        config.hook.pytest_deselected(items=real)
        items[:] = [item for item in items if item not in real]
