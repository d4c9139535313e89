"""What File > Open Sample shows: each function returns layer data tuples and takes no argument."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_rvae.samples.crystals import graphene, interface
from napari_rvae.samples.microscope import Scene
from napari_rvae.samples.playing_cards import SUITS, cards

LayerData = tuple[Any, dict[str, Any], str]

_SHOWN = 1024  # cards on the table
_CARD = 48  # their side in pixels


def oxide_interface() -> list[LayerData]:
    """Open a simulated interface of two oxides.

    Returns
    -------
    list of tuple
        One image in nm; its metadata hold the true positions.
    """
    return [_image(interface())]


def graphene_with_defects() -> list[LayerData]:
    """Open simulated graphene with vacancies, turned bonds and silicon.

    Returns
    -------
    list of tuple
        One image in nm; its metadata hold the true positions.
    """
    return [_image(graphene())]


def cards_1() -> list[LayerData]:
    """Open cards that are hardly turned and hardly strained.

    Returns
    -------
    list of tuple
        The cards side by side as one image, and a point in the middle of each.
    """
    return _table(1)


def cards_2() -> list[LayerData]:
    """Open cards that are hardly turned and strongly strained.

    Returns
    -------
    list of tuple
        The cards side by side as one image, and a point in the middle of each.
    """
    return _table(2)


def cards_3() -> list[LayerData]:
    """Open cards that are turned by up to 120 degrees and hardly strained.

    Returns
    -------
    list of tuple
        The cards side by side as one image, and a point in the middle of each.
    """
    return _table(3)


def cards_4() -> list[LayerData]:
    """Open cards that are turned by up to 120 degrees and strongly strained.

    Returns
    -------
    list of tuple
        The cards side by side as one image, and a point in the middle of each.
    """
    return _table(4)


def _image(scene: Scene) -> LayerData:
    shown = {
        "name": scene.name,
        "scale": (scene.pixel_size,) * 2,
        "units": ("nm", "nm"),
        "metadata": {"truth": scene.truth, "classes": scene.classes, "simulation": scene.metadata},
    }
    return scene.image, shown, "image"


def _table(kind: int) -> list[LayerData]:
    """Cards side by side, half an empty card around them: no patch reaches beyond the image."""
    patches, truth = cards(kind, n=_SHOWN, size=_CARD)
    side, margin = int(np.sqrt(_SHOWN)), _CARD // 2
    image = 0.05 * np.random.default_rng(kind).standard_normal((side * _CARD + 2 * margin,) * 2).astype(np.float32)
    rows = patches.reshape(side, side, _CARD, _CARD).swapaxes(1, 2)
    image[margin:-margin, margin:-margin] = rows.reshape(side * _CARD, side * _CARD)
    row, column = np.divmod(np.arange(_SHOWN), side)
    centers = np.stack([row, column], -1) * _CARD + margin + (_CARD - 1) / 2
    truth = truth.assign(atom_id=np.arange(_SHOWN), y=centers[:, 0], x=centers[:, 1])
    name = f"cards {kind}"
    metadata = {"truth": truth, "classes": SUITS, "patch_size": _CARD}
    points = {"name": f"{name} centres", "features": truth[["atom_id"]], "size": _CARD / 8, "metadata": metadata}
    return [(image, {"name": name, "metadata": metadata}, "image"), (centers, points, "points")]
