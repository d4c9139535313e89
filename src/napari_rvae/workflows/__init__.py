"""The steps put together: from an image or ready-made patches to a table, a model and a recipe."""

from napari_rvae.workflows.averaging import AverageResult, average_image, average_patches
from napari_rvae.workflows.baselines import Beside, baseline_beside, baseline_image, baseline_patches
from napari_rvae.workflows.counting import count_image, count_patches
from napari_rvae.workflows.encoding import apply_to_image, encode_image, encode_patches, misfit
from napari_rvae.workflows.ensembles import train_ensemble
from napari_rvae.workflows.expressions import atoms_where
from napari_rvae.workflows.finding import FoundAtoms, find_in_image
from napari_rvae.workflows.pipeline import Analysis, analyze_image, analyze_patches, known_analysis
from napari_rvae.workflows.reconstruction import reconstruct_image
from napari_rvae.workflows.repeating import repeat

__all__ = [
    "Analysis",
    "AverageResult",
    "Beside",
    "FoundAtoms",
    "analyze_image",
    "analyze_patches",
    "apply_to_image",
    "atoms_where",
    "average_image",
    "average_patches",
    "baseline_beside",
    "baseline_image",
    "baseline_patches",
    "count_image",
    "count_patches",
    "encode_image",
    "encode_patches",
    "misfit",
    "find_in_image",
    "known_analysis",
    "reconstruct_image",
    "repeat",
    "train_ensemble",
]
