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
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    threads : int or None
        Processor threads; None leaves one core free.
    cache : Path or None
        Where trainings are kept for a crash; None is the user's cache.
    """

    device: str = "auto"
    threads: int | None = None
    cache: Path | None = None


def preferences() -> Preferences:
    """Read them.

    Returns
    -------
    Preferences
        The defaults in an older napari.
    """
    try:
        from napari.settings import get_plugin_settings

        chosen = get_plugin_settings("napari-rvae").training
    except (ImportError, AttributeError, KeyError):
        return Preferences()
    return Preferences(chosen.device, chosen.threads or None, Path(chosen.cache).expanduser() if chosen.cache else None)
