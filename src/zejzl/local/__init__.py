"""A language model on this machine: one server process a home folder, on loopback only.

`start` returns once it answers; `stop` ends it; `status` looks. The file `local.pid` in the home
folder is locked by the server for as long as it lives. The kernel lets go of the lock when the
process ends, however it ends, so neither a stale file nor a process id that is another's by now
can pass for a server.
"""

from zejzl.local.control import Status, start, status, stop
from zejzl.local.weights import built_in, missing

__all__ = ["Status", "built_in", "missing", "start", "status", "stop"]
