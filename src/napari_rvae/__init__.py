"""Find atoms in microscope images and learn what makes them differ.

The scripting API; everything is imported on first use, so that ``import napari_rvae`` costs nothing.

>>> from napari_rvae import find_atoms, extract_patches, train, encode
>>> atoms = find_atoms(image)  # doctest: +SKIP
>>> patches = extract_patches(image, atoms)  # doctest: +SKIP
>>> *_, report = train(patches)  # doctest: +SKIP
>>> table = encode(report.model, patches, atoms=atoms)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_API = {
    "find_atoms": "napari_rvae.atoms",
    "Patches": "napari_rvae.patches",
    "extract_patches": "napari_rvae.patches",
    "average": "napari_rvae.averages",
    "train": "napari_rvae.training",
    "train_finder": "napari_rvae.training.finder",
    "load_finder": "napari_rvae.models.finder",
    "Model": "napari_rvae.models",
    "load_model": "napari_rvae.models",
    "encode": "napari_rvae.latent",
    "decode": "napari_rvae.latent",
    "reconstruct": "napari_rvae.latent",
    "manifold": "napari_rvae.latent",
    "baseline": "napari_rvae.latent",
    "cell_labels": "napari_rvae.latent",
    "analyze_image": "napari_rvae.workflows",
    "train_ensemble": "napari_rvae.workflows",
    "reconstruct_image": "napari_rvae.workflows",
    "load_image": "napari_rvae.io",
    "FindSettings": "napari_rvae.settings",
    "FinderSettings": "napari_rvae.settings",
    "PatchSettings": "napari_rvae.settings",
    "AverageSettings": "napari_rvae.settings",
    "BaselineSettings": "napari_rvae.settings",
    "TrainSettings": "napari_rvae.settings",
}
__all__ = [*_API, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-rvae")
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'napari_rvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
