"""The prediction cache: answers kept in memory and in ``cache.db``, for models that opt in.

``predictions`` is what the request path talks to. Everything else is behind it: ``key`` names a
question, ``front`` keeps answers in memory, ``disk`` keeps them in a file on a thread of its own,
``flights`` lets equal questions share one run, ``worth`` decides whether any of it pays.

The cache may fail, inference may not: whatever goes wrong here is counted and is a miss.
"""
