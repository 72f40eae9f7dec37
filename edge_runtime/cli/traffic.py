"""``edge-runtime traffic``: a split of a model's traffic between versions that stays."""

import argparse

from edge_runtime.cli import release_view as view
from edge_runtime.cli.release_client import ReleaseClient
from edge_runtime.cli.terminal import print_json
from edge_runtime.errors import ConfigError, InvalidRequestError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.protocol.release_schemas import TrafficRequest
from edge_runtime.release_orders import split


def run(options: argparse.Namespace) -> int:
    """Split a model's traffic, end the split, or tell what it is.

    Raises:
        ConfigError: The arguments contradict each other.
        EdgeRuntimeError: The daemon did not answer, or refused.
    """
    weights: dict[str, int] = dict(options.weights)
    if options.clear and weights:
        raise ConfigError("--clear ends the split; leave the weights out")
    if len(weights) < len(options.weights):
        raise ConfigError("a version is there twice")
    try:
        split(weights)
    except InvalidRequestError as error:
        raise ConfigError(error.message) from error
    with ReleaseClient.of(options) as client:
        if weights or options.clear:
            wanted = TrafficRequest(weights=weights, reason=options.reason)
            model = client.traffic(options.name, wanted)
        else:
            model = client.releases_of(options.name)
    if options.json:
        print_json(model)
    else:
        print("\n".join(view.one_model(model)))
    return ExitCode.DONE
