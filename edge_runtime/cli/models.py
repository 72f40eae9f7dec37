"""``edge-runtime models``: every version that the daemon knows, and its tensors."""

import argparse

import msgspec

from edge_runtime.cli.terminal import connect, print_json, say, table
from edge_runtime.client import Client
from edge_runtime.errors import ModelNotFoundError, TransportError, UnavailableError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.protocol.schemas import LOADS_WHEN_ASKED, IndexEntry, TensorMetadata

READY = "READY"


class Row(msgspec.Struct):
    """One version.

    Attributes:
        name: The model.
        version: Empty while none is known.
        state: As in the repository index.
        reason: Why it is not ready.
        inputs: What it takes; empty while it is not in memory, and on the admin socket.
        outputs: What it gives; empty likewise.
    """

    name: str
    version: str
    state: str
    reason: str
    inputs: list[TensorMetadata] = []
    outputs: list[TensorMetadata] = []
    properties: dict[str, str] = {}


def run(options: argparse.Namespace) -> int:
    """List the models.

    Raises:
        EdgeRuntimeError: The daemon did not answer.
    """
    with connect(options) as client:
        rows = [_row(client, entry) for entry in client.index()]
    if options.json:
        print_json(rows)
    elif rows:
        titles = ("NAME", "VERSION", "STATE", "INPUTS", "OUTPUTS", "REASON")
        print(table(titles, [_cells(row) for row in rows]))
    else:
        say("the daemon has no models; give it some: edge-runtime serve MODEL")
    return ExitCode.DONE


def _row(client: Client, entry: IndexEntry) -> Row:
    row = Row(entry.name, entry.version, entry.state, entry.reason)
    # To be described, a model that loads when asked would have to be loaded.
    if entry.state == READY and not entry.reason.startswith(LOADS_WHEN_ASKED):
        try:
            metadata = client.model_metadata(entry.name, entry.version)
        except TransportError:
            raise
        except ModelNotFoundError:
            pass  # the admin socket tells the index only
        except UnavailableError as error:
            row.state, row.reason = "UNAVAILABLE", error.message  # unloaded since the index
        else:
            row.inputs, row.outputs = metadata.inputs, metadata.outputs
            row.properties = metadata.properties
    return row


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.version,
        row.state,
        _tensors(row.inputs),
        _tensors(row.outputs),
        row.reason,
    )


def _tensors(specs: list[TensorMetadata]) -> str:
    return "; ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in specs)
