"""The error of this package."""


class InputError(ValueError):
    """A prompt, label word, model or tensor that cannot be used. Says what was found, what was expected, what to do."""

    exit_code = 2
