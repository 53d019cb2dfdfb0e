"""The errors a user of the codec can meet. Each message is one line, fit to be printed as it is."""


class PlicError(ValueError):
    """The input or the output cannot be used: a bad picture, a bad file, a folder that cannot be written."""


class FormatError(PlicError):
    """The bytes are not a `.plic` file that this decoder can decode."""


class PlicWarning(UserWarning):
    """A picture was read or written, and something of it was changed or left out."""
