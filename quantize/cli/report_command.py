"""``edge-quantize report``: the report of a search again."""

import argparse

from edge_runtime.exit_codes import ExitCode
from quantize.cli.output import print_json
from quantize.reports.document import read_report
from quantize.reports.markdown import markdown


def run(options: argparse.Namespace) -> int:
    """Print a report.

    Raises:
        BadInputError: There is none at that place.
    """
    report = read_report(options.bundle)
    if options.json:
        print_json(report)
    else:
        print(markdown(report))
    return ExitCode.DONE
