"""Doors for other habits: the same predictions in the words of other servers' interfaces.

Nothing of the engine is known here: every door builds an ``InferRequest`` and submits it.
"""
