"""What the user prefers, from napari's preferences where this napari has a page for plugins (0.9 and later)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Preferences:
    """Saved in napari's preferences.

    Attributes
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda:0`` or ``mps``.
    threads : int or None
        Processor threads; None leaves one core free.
    cache : Path or None
        Where trainings are kept for a crash; None is the user's cache.
    numbers, angles : str
        Names of napari's colormaps for features that are numbers, and for angles.
    """

    device: str = "auto"
    threads: int | None = None
    cache: Path | None = None
    numbers: str = "viridis"
    angles: str = "hsv"


def preferences() -> Preferences:
    """Read them.

    Returns
    -------
    Preferences
        The defaults in an older napari.
    """
    try:
        from napari.settings import get_plugin_settings

        saved = get_plugin_settings("napari-rvae")
        training, colors = saved.training, saved.colors
    except (ImportError, AttributeError, KeyError):
        return Preferences()
    cache = Path(training.cache).expanduser() if training.cache else None
    device = {"cuda": "cuda:0"}.get(training.device, training.device)
    return Preferences(device, training.threads or None, cache, colors.numbers, colors.angles)
