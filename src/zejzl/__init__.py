"""zejzl: a message bus for language models that heals itself."""

import logging
from importlib.metadata import PackageNotFoundError, version

from zejzl.errors import ZejzlError
from zejzl.messages import Attempt, Delta, Message, Reply, Request, Turn, Usage
from zejzl.ports import AIProvider
from zejzl.settings import Settings

__all__ = [
    "AIProvider",
    "Attempt",
    "Delta",
    "Message",
    "Reply",
    "Request",
    "Settings",
    "Turn",
    "Usage",
    "ZejzlError",
    "__version__",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())

try:
    __version__ = version("zejzl")
except PackageNotFoundError:  # a bare clone, not installed
    __version__ = "0+unknown"
