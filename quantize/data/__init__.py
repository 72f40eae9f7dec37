"""Samples: what is read from files, checked against a model, and divided into disjoint sets."""

from quantize.data.dataset import Dataset
from quantize.data.reading import read_data
from quantize.data.splitting import Splits, split

__all__ = ["Dataset", "Splits", "read_data", "split"]
