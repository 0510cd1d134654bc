"""`./orchestrate.sh docs`: are the documents true, and can they be read?"""

import argparse
import sys

from workflows.steps import Workflow


def document(flow: Workflow, options: argparse.Namespace) -> int:
    """Examples, links, reference, pictures, the site."""
    del options
    true(flow)
    return flow.ended()


def true(flow: Workflow) -> bool:
    """Run the documents' examples and compare what was made from the code with the code."""
    python = sys.executable
    well = [
        flow.step(
            "examples and links",
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_docs.py"],
            changes=False,
        ),
        flow.step("reference", [python, "-m", "workflows.reference", "--check"], changes=False),
        flow.step("pictures", [python, "-m", "workflows.pictures"], attempts=2),
        flow.step("site", [python, "-m", "mkdocs", "build", "--strict", "--quiet"]),
    ]
    return all(well)
