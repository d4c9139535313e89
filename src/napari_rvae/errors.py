"""Errors a user can act on: each message says what is wrong and what to do."""

import traceback


class RVAEError(Exception):
    """Base of all errors that are shown to a user without a traceback."""


class InputDataError(RVAEError, ValueError):
    """An image, a table or an array cannot be analysed as it is."""


class SeveralImagesError(InputDataError):
    """A file holds several images, and none of them was chosen."""


class SettingsError(RVAEError, ValueError):
    """Settings contradict each other or the data."""


class ModelFileError(RVAEError):
    """A model file is missing, damaged, foreign or too new."""


class DeviceError(RVAEError):
    """The chosen device is not there or has not enough memory."""


class MissingReaderError(RVAEError, ImportError):
    """A file needs an optional reader that is not installed."""


class Stopped(RVAEError):
    """The user stopped the work; nothing was changed."""


class OutputError(RVAEError):
    """A result cannot be written where it was asked for."""


class ExistsError(OutputError):
    """There is a result already, and nobody said that it is to be replaced."""


def in_words(error: Exception) -> str:
    """Say what went wrong.

    Parameters
    ----------
    error : Exception
        Any error.

    Returns
    -------
    str
        A sentence.
    """
    if isinstance(error, MemoryError):
        return f"There is not enough memory: crop the image or close other programs. {error}".strip()
    return str(error) if isinstance(error, RVAEError) else f"Failed with {type(error).__name__}: {error}"


def let_go(error: BaseException) -> None:
    """Free all that was there where an error was raised, as long as the error may live; it still says where that was.

    Parameters
    ----------
    error : BaseException
        Any error, with those it was raised from.
    """
    one: BaseException | None = error
    while one is not None:
        traceback.clear_frames(one.__traceback__)
        one = one.__cause__ or one.__context__
