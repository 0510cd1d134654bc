"""The server's process: `python -m zejzl.local.server`, started by control.py alone.

It leaves its starter's session, says over a pipe how it went, and then serves until a signal ends
it; there is nothing to be put in order. A model belongs in a process of its own: it takes
the memory and the cores that it needs, and what fails in it fails there.
"""

import importlib
import json
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

from zejzl.local import record

HOST = "127.0.0.1"  # never another: whoever reaches it may use it
LOG_LIMIT = 1_000_000  # bytes; what is logged after that is lost
SLOTS, CONTEXT = 2, 4096  # answers at once, and tokens that each may take with its question
LONGEST = 512  # tokens of an answer where a question sets no limit: small models may never end


def serve(model: Path, name: str, port: int) -> tuple[object, str]:
    """Serve a model; return what must be kept for that, and the address."""
    llama = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path, params.model_alias = str(model), {name}
    params.hostnames, params.port = [HOST], port
    params.n_parallel, params.n_ctx, params.n_predict = SLOTS, SLOTS * CONTEXT, LONGEST
    params.sampling.temp, params.sampling.top_p = 0.2, 0.9  # as SmolLM2's authors advise
    params.ui = params.endpoint_slots = False
    params.cors_origins = f"http://{HOST}"  # no page in a browser: the default lets every one in
    params.offline, params.verbosity = True, 1  # errors; never what was asked
    server = llama.Server(params)
    return server, server.listening_address


def main(arguments: list[str]) -> None:
    """Become the server that the arguments tell of, and stay it."""
    held, answers = int(arguments[0]), int(arguments[1])
    model, name, port = Path(arguments[2]), arguments[3], int(arguments[4])
    if os.fork():
        os._exit(0)  # whoever started us need not wait for our end
    os.setsid()
    # Files are let go of in the order of their numbers, on Linux the lowest last: whoever finds
    # the lock free is to find the port free as well.
    os.dup2(held, 0, inheritable=False)
    os.close(held)
    held = 0
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (LOG_LIMIT, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    )
    mine = record.ServerRecord(pid=os.getpid(), port=port, model=name, file=str(model))
    record.write(held, mine)
    try:
        kept, address = serve(model, name, port)
    except Exception as problem:  # told to the starter, which tells the user
        os.write(answers, json.dumps({"error": str(problem)}).encode())
        raise
    port = int(address.rpartition(":")[2])
    record.write(held, replace(mine, url=f"{address}/v1", port=port))
    os.write(answers, b"{}")  # fails, and so ends us, if the starter is gone: nobody would know us
    os.close(answers)
    Event().wait()
    del kept


if __name__ == "__main__":
    main(sys.argv[1:])
