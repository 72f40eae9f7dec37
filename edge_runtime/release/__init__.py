"""Releases: a new version of a model is tried out, compared, taken in use or taken back."""
