"""What people would otherwise write or run: the denominators of the benchmarks."""

from typing import Final

MODELS_VARIABLE: Final = "PEER_MODELS"
"""Environment variable with the models to serve: ``NAME=FILE`` pairs, separated by ``;``."""
