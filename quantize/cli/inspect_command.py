"""``edge-quantize inspect``: what a model is made of and what could be quantised."""

import argparse

from edge_runtime.exit_codes import ExitCode
from quantize.cli.output import print_json
from quantize.inspection import as_text, inspect


def run(options: argparse.Namespace) -> int:
    """Look at a model file.

    Raises:
        BadInputError: It is no model.
    """
    facts = inspect(options.model)
    if options.json:
        print_json(facts)
    else:
        print(as_text(facts))
    return ExitCode.DONE
