"""The errors a user can cause, all caught by the command line and printed as one message.

Every message says what was expected, what came and what to do. Programming errors are not here: they are
`assert` or the built-in exceptions and come with a traceback.
"""


class AttnLightningError(Exception):
    """Base of every error that the user can mend; the command line prints it without a traceback."""


class ConfigurationError(AttnLightningError):
    """An option, a combination of options or a checkpoint cannot be used as it was given."""


class DataFormatError(AttnLightningError):
    """A data file, a row of it or an embedding file is not what was declared; names the file and the line."""


class NumericalError(AttnLightningError):
    """A loss or a metric became NaN or infinite; names the step and the term."""
