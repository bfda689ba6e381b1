"""Exceptions a user of bitfront can meet.

BitfrontError
├── InvalidArgument      a study field, plug-in parameter or option has a value that is not allowed
├── UnknownPlugin        no estimator, solver, search, format, ... of that name
├── InvalidModel         the model cannot be used: missing, corrupt, unsafe, no linear layers
├── InvalidText          a text is empty, too short, unreadable, or nothing the model can predict
├── InfeasibleBudget     no allocation meets the budget; carries the smallest reachable value
├── NonFinite            NaN or infinity in weights, activations or measured values
├── MismatchedArtifact   a results folder, cache or checkpoint was made by another study
├── StorageError         a file or the database could not be written (disk full, no permission)
├── NotFound             no study, trial, checkpoint, ... of that name, or not one of yours
├── Conflict             what is asked does not go with the state of what it is asked of
│   ├── InFlight         an idempotency key came back before its first request was answered
│   ├── KeyReused        an idempotency key came back with another request
│   └── OverQuota        the owner has the unfinished studies, or used the hours, that are allowed
├── LostLease            a worker held a task too long: another has it
├── Unauthorised         no API key, or not one that may do this
└── Unreachable          no server of bitfront answers at an address

Each message is one line: what was given, what is allowed, what to do.
"""

import re


class BitfrontError(Exception):
    """Base of the errors that are the user's to fix; the command prints one and exits with 2."""


class InvalidArgument(BitfrontError, ValueError):
    """A value outside what is allowed."""


class UnknownPlugin(BitfrontError, LookupError):
    """A plug-in name that no file of the folder has."""


class InvalidModel(BitfrontError):
    """A model that cannot be loaded or has nothing to quantize."""


class InvalidText(BitfrontError):
    """A text that gives too few tokens, cannot be read, or that the model cannot predict at all."""


class InfeasibleBudget(BitfrontError):
    """A budget below what the smallest formats need.

    Attributes:
        quantity: name of the cost table, such as `"bytes"`.
        limit: what was asked for, in units of the table, over the searched layers.
        smallest: the smallest reachable sum, in the same units.
    """

    def __init__(
        self, quantity: str, limit: float, smallest: float, message: str | None = None
    ) -> None:
        super().__init__(
            message
            or f"No allocation has {quantity} <= {limit:,.0f} over the searched layers: "
            f"the smallest reachable is {smallest:,.0f}. Raise the budget or add smaller formats."
        )
        self.quantity = quantity
        self.limit = limit
        self.smallest = smallest


class NonFinite(BitfrontError, ArithmeticError):
    """NaN or infinity where a finite number is needed."""


class MismatchedArtifact(BitfrontError):
    """Something stored belongs to another model, text, format definition or plug-in version."""


class StorageError(BitfrontError, OSError):
    """A file could not be written completely; what was there before is untouched."""


class NotFound(BitfrontError, LookupError):
    """Nothing of that name, or nothing that the asker may see."""


class Conflict(BitfrontError):
    """What is asked does not go with the state of what it is asked of."""


class InFlight(Conflict):
    """The idempotency key of a request that is being answered: the same again is answered soon."""


class KeyReused(Conflict):
    """The idempotency key of an earlier, other request."""


class OverQuota(Conflict):
    """More unfinished studies, or more hours of devices, than the owner may have."""


class LostLease(BitfrontError):
    """The task of a claim went to another worker; the late result is refused."""


class Unauthorised(BitfrontError):
    """No API key, an unknown, expired or revoked one, or one without the scope.

    Attributes:
        is_known: whether the key was right, so that only the scope is missing.
    """

    def __init__(self, message: str, is_known: bool = False) -> None:
        super().__init__(message)
        self.is_known = is_known


class Unreachable(BitfrontError):
    """A server that does not answer, or something else in its place."""


def first_line(error: BaseException) -> str:
    r"""What an error of a library says first, without its full stop, for a message of ours.

    >>> first_line(ValueError("No such dtype.\nTry another."))
    'No such dtype'
    >>> first_line(KeyError("a")), first_line(MemoryError())  # a key alone says too little
    ("KeyError 'a'", 'MemoryError')
    """
    lines = str(error).strip().splitlines()
    bare = not lines or isinstance(error, LookupError)
    return " ".join([type(error).__name__] * bare + [line.rstrip(".:") for line in lines[:1]])


def code_of(kind: type[BitfrontError]) -> str:
    """One word for programs, of a kind of error.

    >>> code_of(NotFound)
    'not_found'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
