"""Installed versions of models on disk: whole or not there, and never changed afterwards.

``source`` reads a bundle that somebody else made, ``store`` installs it. Both call nothing of the
rest of the daemon; a thread of their own runs them, never the event loop.
"""
