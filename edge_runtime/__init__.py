"""The daemon: answers inference requests, owns the models on disk and which version is active."""

__version__ = "0.1.0.dev0"
