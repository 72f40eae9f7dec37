"""Every setting and every limit of the daemon, with its unit and its reason.

``docs/configuration.md`` is generated from these structs; ``config`` reads them from somewhere.
"""

from edge_runtime.settings.daemon import Config, Http, Limits, Log, Sockets, needs_restart
from edge_runtime.settings.engine import Batching, Cache, Engine
from edge_runtime.settings.group import SECONDS_MAX, Settings
from edge_runtime.settings.journal import Journal, Kept
from edge_runtime.settings.model import Model, VersionPolicy
from edge_runtime.settings.release import Release, Thresholds

__all__ = [
    "SECONDS_MAX",
    "Batching",
    "Cache",
    "Config",
    "Engine",
    "Http",
    "Journal",
    "Kept",
    "Limits",
    "Log",
    "Model",
    "Release",
    "Settings",
    "Sockets",
    "Thresholds",
    "VersionPolicy",
    "needs_restart",
]
