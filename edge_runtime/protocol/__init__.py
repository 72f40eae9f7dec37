"""The Open Inference Protocol as data: messages, their codec, and the status table. No I/O.

Shared by the server's ``api`` and by ``client``; with ``api`` the only places that know HTTP.
"""
