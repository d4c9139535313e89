"""What the latents say: encode, decode, manifold, clusters, cells; imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_API = {
    "encode": "napari_rvae.latent.coding",
    "decode": "napari_rvae.latent.coding",
    "reconstruct": "napari_rvae.latent.coding",
    "manifold": "napari_rvae.latent.coding",
    "latent_path": "napari_rvae.latent.paths",
    "attribute_direction": "napari_rvae.latent.paths",
    "changed_attribute": "napari_rvae.latent.paths",
    "cell_labels": "napari_rvae.latent.cells",
    "cell_numbers": "napari_rvae.latent.cells",
    "cell_outlines": "napari_rvae.latent.cells",
    "combine": "napari_rvae.latent.ensembles",
    "unstable_atoms": "napari_rvae.latent.ensembles",
    "baseline": "napari_rvae.latent.baselines",
    "find_clusters": "napari_rvae.latent.clusters",
    "cluster_agreement": "napari_rvae.latent.clusters",
}
__all__ = list(_API)


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
