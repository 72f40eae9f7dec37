"""``edge-quantize verify``: is a bundle good on this machine? Needs the base install only."""

import argparse

from edge_runtime.exit_codes import ExitCode
from edge_runtime.hardware import cpu_facts
from quantize.cli.output import print_json
from quantize.verification import summary, verify_bundle


def run(options: argparse.Namespace) -> int:
    """Check digests, goldens and floor.

    Returns:
        0: good here; 2: it is not.

    Raises:
        BadInputError: There is no bundle, or no such variant.
        VerificationError: A file is not what the manifest says, or nothing runs here.
    """
    found = verify_bundle(options.bundle, cpu_facts(), variant=options.variant)
    if options.json:
        print_json(found)
    else:
        print(summary(found))
    return ExitCode.DONE if found.verdict == "good" else ExitCode.ANSWER_2
