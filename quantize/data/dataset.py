"""Samples for one model, in memory, and the order in which a model takes them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from quantize.signature import Array


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples that fit one model. Nothing changes it; every array is read-only.

    Attributes:
        inputs: An array for every input of the model, by name; the first axis counts samples.
        labels: What the metric compares with, first axis as in ``inputs``; ``None``: there are
            none.
        origin: Where it was read from, for messages.
        whole: Inputs of which a sample is everything that one run takes: their arrays have one
            axis more than the model's input. Of the others a sample is one row of a run.
        run_rows: Rows that the model takes in every run; ``None``: as many as it is given.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    origin: str
    whole: frozenset[str] = frozenset()
    run_rows: int | None = None

    def __post_init__(self) -> None:
        frozen = {name: _read_only(array) for name, array in self.inputs.items()}
        object.__setattr__(self, "inputs", frozen)
        if self.labels is not None:
            object.__setattr__(self, "labels", _read_only(self.labels))

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return min((len(array) for array in self.inputs.values()), default=0)

    @cached_property
    def sha256(self) -> str:
        """Digest of every sample in its order, with names, dtypes, shapes and labels."""
        digest = sha256()
        for name in sorted(self.inputs):
            _add(digest, f"input {name}", self.inputs[name])
        if self.labels is not None:
            _add(digest, "labels", self.labels)
        return digest.hexdigest()

    def sample_digests(self, seed: int = 0) -> list[bytes]:
        """Name every sample by what the model sees of it: labels do not count.

        Args:
            seed: Gives other names, so that they can also serve as an order that is drawn.

        Returns:
            32 bytes for each sample; equal exactly where all inputs are, byte by byte.
        """
        # A row is named as the run of one row that it can be: then it is equal to a whole input.
        names = sorted(self.inputs)
        digests = []
        for index in range(self.samples):
            digest = sha256(f"{seed}".encode())
            for name in names:
                _add(digest, name, self._sample(name, index))
            digests.append(digest.digest())
        return digests

    def take(self, indexes: Sequence[int] | npt.NDArray[np.intp]) -> "Dataset":
        """Give some of the samples, in this order.

        Args:
            indexes: Places of the samples, from 0.
        """
        places = np.asarray(indexes, dtype=np.intp)
        return replace(
            self,
            inputs={name: array[places] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[places],
        )

    def rows_per_run(self, rows: int) -> int:
        """Say how many samples one run takes.

        Args:
            rows: The most that are wanted, at least 1.

        Returns:
            ``rows``, or what the model insists on.
        """
        if self.whole:
            return 1
        return self.run_rows or max(1, rows)

    def feeds(self, rows: int) -> Iterator[dict[str, Array]]:
        """Give the arrays of one run after the other, in order.

        A model that insists on a number of rows gets its last run filled up with the last sample:
        its outputs have more rows then than there are samples.

        Args:
            rows: Most samples in one run; see ``rows_per_run``.
        """
        step = self.rows_per_run(rows)
        for start in range(0, self.samples, step):
            yield {
                name: self._sample(name, start)
                if name in self.whole
                else self._rows(array, start, step)
                for name, array in self.inputs.items()
            }

    def _sample(self, name: str, index: int) -> Array:
        array = self.inputs[name]
        return array[index, ...] if name in self.whole else array[index : index + 1]

    def _rows(self, array: Array, start: int, step: int) -> Array:
        taken = array[start : start + step]
        short = step - len(taken)
        if self.run_rows is None or not short:
            return taken
        return np.concatenate([taken, np.repeat(taken[-1:], short, axis=0)])


def _read_only(array: Array) -> Array:
    # A view of its own: the caller's array stays as it is.
    view = np.ascontiguousarray(array).view() if array.ndim else array.view()
    view.flags.writeable = False
    return view


def _add(digest: Any, name: str, array: Array) -> None:  # noqa: ANN401 - hashlib has no public type
    # The head has its length in front: no two lists of arrays give the same bytes.
    head = f"{name}\0{array.dtype.str}\0{array.shape}".encode()
    digest.update(len(head).to_bytes(8, "little") + head)
    plain = array.dtype.kind in "biufc"  # only these let others read their memory
    digest.update(np.ascontiguousarray(array).data if plain else array.tobytes())
