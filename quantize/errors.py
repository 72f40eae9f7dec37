"""What can go wrong while a model is quantised, cut by who must act.

``cli`` turns them into exit codes; a floor that is not reached and a model that does not get
faster are results, not errors.
"""


class QuantizeError(Exception):
    """Base of all errors of this program.

    Attributes:
        message: What, where, and what to do, in one line for a person.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadInputError(QuantizeError):
    """The model, the data or the settings cannot be used: whoever called must mend them."""


class StepFailedError(QuantizeError):
    """A rewriting step, a recipe or a candidate failed: recorded, and the search goes on."""


class VerificationError(QuantizeError):
    """A bundle is not what its manifest says, or not good enough on this machine."""
