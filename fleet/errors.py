"""Every error of the fleet's programs, cut by who has to act.

::

    FleetError
    ├── BadInputError    whoever called: mend the arguments, the keys or the files
    ├── RefusedError     whoever called: the rules of the repository say no; nothing changed
    └── RepositoryError  the operator: what lies on disk is not a whole, signed repository

Documents have an error of their own, ``fleet.documents.errors.DocumentError``, since the agent
reads them too.
"""


class FleetError(Exception):
    """Base of every error that the fleet raises on purpose.

    Attributes:
        message: What, where, and what to do, in one line for a person.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadInputError(FleetError):
    """Arguments, keys or files that were given cannot be used."""


class RefusedError(FleetError):
    """The repository's rules say no, and nothing changed."""


class RepositoryError(FleetError):
    """What lies on disk is not a whole, signed repository."""
