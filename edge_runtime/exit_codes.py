"""The exit codes of all four programs. ``docs/exit-codes.md`` is this table, and a test says so.

argparse and Typer end with 2 on wrong usage; ours is 4, because 2 and 3 are answers of the
programs themselves.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a program says by ending."""

    DONE = 0
    FAILED = 1
    ANSWER_2 = 2
    ANSWER_3 = 3
    USAGE = 4
    INTERRUPTED = 130


MEANING = {
    ExitCode.DONE: "Done.",
    ExitCode.FAILED: "Failed: a model could not be loaded, a socket could not be bound, the daemon "
    "could not be reached, or it (or the model, the network, the device) said no: it refuses an "
    "order of `release`, `traffic` or `keyring install`, or this user may not give it; or a "
    "bundle, keyring or repository is not good. `edge-agent check-now`: nothing new is believed. "
    "`edge-fleet repo verify`: something is wrong.",
    ExitCode.ANSWER_2: "An answer of the program itself. `edge-quantize`: no candidate keeps the "
    "accuracy floor, or a bundle misses it where `verify` runs. The others do not use it.",
    ExitCode.ANSWER_3: "An answer of the program itself. `edge-quantize`: good enough, but not "
    "faster (smaller, leaner): the optimised float model was kept. The others do not use it.",
    ExitCode.USAGE: "Bad usage or bad input: arguments, a model that is not there, configuration, "
    "or the files and tensors given to a client command.",
    ExitCode.INTERRUPTED: "Interrupted by Ctrl-C. `edge-runtime serve` and `edge-agent run` end "
    "with 0 instead, once they run.",
}
