"""Wrong usage of a program ends with our exit code."""

import argparse
import sys
from typing import NoReturn

from edge_runtime.exit_codes import ExitCode


class Parser(argparse.ArgumentParser):
    """argparse with our exit code for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how it would be right."""
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")
