"""``edge-quantize compare``: two models side by side."""

import argparse
from pathlib import Path

from edge_runtime.bundle import bundle_from_directory
from edge_runtime.exit_codes import ExitCode
from edge_runtime.hardware import cpu_facts
from edge_runtime.manifest import choose_variant
from quantize.cli.bars import bars
from quantize.cli.output import print_json
from quantize.comparison import compare, summary
from quantize.data.reading import read_data
from quantize.errors import BadInputError, StepFailedError
from quantize.execution import open_runner
from quantize.metrics import metric
from quantize.signature import Signature


def run(options: argparse.Namespace) -> int:
    """Compare.

    Raises:
        BadInputError: A model or the data cannot be used.
        StepFailedError: A model fails while it runs.
    """
    first, second = (_model_file(path) for path in (options.first, options.second))
    signature = _signature(first)
    _signature(second)
    data = read_data(options.data, signature)
    found = compare(
        first,
        second,
        data,
        metric=metric(
            options.metric,
            has_labels=data.labels is not None,
            signature=signature,
            output=options.metric_output,
        ),
        threads=options.threads,
        progress=bars(quiet=options.json),
    )
    if options.json:
        print_json(found)
    else:
        print(summary(found))
    return ExitCode.DONE


def _signature(path: Path) -> Signature:
    """Find what a model takes and gives; what cannot be loaded is the caller's to mend."""
    try:
        with open_runner(path) as runner:
            return runner.signature
    except StepFailedError as error:
        raise BadInputError(f"{error.message}; name an ONNX file or a bundle") from error


def _model_file(path: Path) -> Path:
    """Take a bundle's variant for this CPU in place of the bundle."""
    if not path.is_dir():
        return path
    variant, _ = choose_variant(bundle_from_directory(path).manifest, cpu_facts())
    return path / variant.file
