"""The one error of documents."""


class DocumentError(Exception):
    """A document cannot be understood, or must not be written.

    Attributes:
        message: What, where, and what to do, in one line for a person.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
