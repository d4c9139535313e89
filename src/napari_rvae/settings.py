"""Parameters of every step: the one place for their defaults, ranges, units and help.

Widgets and command-line options are generated from these models, and they are written into every model file and
recipe. A field's ``json_schema_extra`` may hold ``unit`` (shown beside the value), ``option`` (its name on the command
line where that differs), ``advanced`` (folded away in the widgets) and ``slider`` (the ends of one in the widgets).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_rvae.errors import SettingsError

ModelName = Literal["ae", "vae", "shiftvae", "rvae", "jvae", "jrvae", "cvae", "crvae", "ssvae", "ssrvae"]
Invariance = Literal["rotation", "translation", "scale", "strain"]
INVARIANCES: tuple[Invariance, ...] = get_args(Invariance)


def _extra(
    unit: str = "", advanced: bool = False, option: str = "", slider: tuple[float, float] | None = None
) -> dict[str, Any]:
    given = {"unit": unit, "advanced": advanced, "option": option, "slider": slider and list(slider)}
    return {key: value for key, value in given.items() if value}


_ADVANCED = _extra(advanced=True)


class Settings(BaseModel):
    """Frozen, validated at the border, unknown names refused.

    Raises
    ------
    SettingsError
        If a value is out of range or a name is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_readable(error)) from error


def _readable(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg'][0].lower()}{e['msg'][1:]}" for e in error.errors()
    )


def parse_invariance(value: Any) -> Any:
    """Turn ``"rotation,translation"`` (command line, files) into a tuple in canonical order.

    Parameters
    ----------
    value : str, sequence of str or None
        Names separated by commas; ``""`` or ``"none"`` mean no invariance.

    Returns
    -------
    tuple of str or None
        The names in the order of `INVARIANCES`; None stays None.
    """
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
    names = [name for name in names if name not in ("", "none")]
    unknown = sorted(set(names) - set(INVARIANCES))
    if unknown:
        raise ValueError(f"unknown invariance {', '.join(unknown)}; choose from {', '.join(INVARIANCES)}")
    return tuple(name for name in INVARIANCES if name in names)


def parse_names(value: Any) -> Any:
    """Turn ``"temperature,phase"`` (command line) into a tuple.

    Parameters
    ----------
    value : str or sequence of str
        Names separated by commas.

    Returns
    -------
    tuple of str
        The names, each once.
    """
    names = value.split(",") if isinstance(value, str) else list(value)
    return tuple(dict.fromkeys(name.strip() for name in names if str(name).strip()))


class FindSettings(Settings):
    """How atoms are found. Every value left at None is estimated from the image."""

    contrast: Literal["auto", "bright", "dark"] = Field(
        "auto", description="Are atoms brighter or darker than what surrounds them?"
    )
    target: Literal["auto", "atoms", "molecules"] = Field(
        "auto",
        description="Every spot by itself, or molecules made of several spots, each as a whole?",
        json_schema_extra=_ADVANCED,
    )
    spacing: float | None = Field(
        None,
        gt=1,
        description="Distance between neighbouring atoms, or windows on a grid; estimated when empty.",
        json_schema_extra=_extra("px", slider=(3, 150)),
    )
    sigma: float | None = Field(
        None,
        gt=0.3,
        description="Width (standard deviation) of an atom; estimated when empty.",
        json_schema_extra=_extra("px", slider=(0.5, 40)),
    )
    threshold: float | None = Field(
        None,
        gt=0,
        description="Weakest atom that counts, in standard deviations of the noise (of a learned finder: per cent of "
        "certainty; of windows on a grid, least contrast); chosen when empty.",
        json_schema_extra=_extra(slider=(2, 20)),
    )
    search: Literal["auto", "maxima", "dog", "log", "learned", "grid"] = Field(
        "auto",
        description="How atoms are looked for: automatically (matched filter, lattice, residuals), by the maxima of a "
        "Gaussian, DoG or LoG filter alone, or by a finder that was trained; or windows on a grid, without atoms.",
    )
    finder: str | None = Field(
        None, description="File of the trained finder (.safetensors); needed where the search is learned."
    )
    refine: bool = Field(
        True,
        description="Fit every atom below the pixel, together with its neighbours.",
        json_schema_extra=_ADVANCED,
    )
    sublattices: int | None = Field(
        None, ge=1, le=6, description="Number of sublattices; found when empty.", json_schema_extra=_ADVANCED
    )


class FinderSettings(Settings):
    """How a finder is trained."""

    specimen: Literal["none", "graphene", "interface"] = Field(
        "none", description="Simulated images that are learned from, too."
    )
    images: int = Field(8, ge=1, le=100, description="Number of simulated images.", json_schema_extra=_ADVANCED)
    steps: int = Field(500, ge=10, le=100_000, description="Steps of the training.")
    batch_size: int = Field(16, ge=1, le=1024, description="Crops per step.", json_schema_extra=_ADVANCED)
    learning_rate: float = Field(
        1e-2, gt=0, le=1, description="Largest step size of the optimiser.", json_schema_extra=_ADVANCED
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed gives the same result.")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Processor threads; what is idle when empty.", json_schema_extra=_ADVANCED
    )


class PatchSettings(Settings):
    """How a patch is cut around every atom."""

    size: int | None = Field(
        None,
        ge=8,
        le=512,
        description="Side of the square patch; about three neighbour distances when empty, five where strain is free, "
        "one molecule where those were found, eight spacings of a grid.",
        json_schema_extra=_extra("px", option="--patch"),
    )
    working_size: int | None = Field(
        None,
        ge=8,
        le=96,
        description="Side to which patches are resampled for the model; 32 to 64 when empty.",
        json_schema_extra=_extra("px", advanced=True),
    )
    normalization: Literal["dataset", "patch"] = Field(
        "dataset",
        description="Divide by one number for all patches (heavy and light atoms stay different) "
        "or by each patch's own contrast.",
        json_schema_extra=_ADVANCED,
    )
    delay: int | None = Field(
        None,
        ge=1,
        description="In a stack: each patch shows the same place so many frames later, too, as further channels.",
        json_schema_extra=_extra("frames", advanced=True),
    )


class AverageSettings(Settings):
    """How class averages are made."""

    invariance: tuple[Invariance, ...] = Field(
        ("rotation", "translation"), description="Poses that make no difference: rotation, translation, scale, strain."
    )
    kinds: int | None = Field(None, ge=1, le=50, description="Number of kinds of motif; found when empty.")
    exemplars: int = Field(
        12,
        ge=2,
        le=64,
        description="Patches to start from, more than there are kinds.",
        json_schema_extra=_ADVANCED,
    )
    rounds: int = Field(4, ge=1, le=50, description="Rounds of expectation-maximisation.", json_schema_extra=_ADVANCED)
    sample: int = Field(
        1200,
        ge=10,
        description="Largest number of patches averaged; the others are only assigned.",
        json_schema_extra=_ADVANCED,
    )
    offset_prior: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Width of the normal prior on offsets.",
        json_schema_extra=_extra("px", advanced=True),
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed gives the same result.")

    _parse = field_validator("invariance", mode="before")(parse_invariance)


class CountSettings(Settings):
    """How the number of classes is found: how well they are found again in resamples of the patches."""

    invariance: tuple[Invariance, ...] = Field(
        ("rotation", "translation"), description="Poses that make no difference: rotation, translation, scale, strain."
    )
    most: int = Field(8, ge=2, le=30, description="Largest number of classes that is tried.")
    resamples: int = Field(
        5, ge=2, le=50, description="Parts of the patches that are sorted, each by itself, and compared."
    )
    sample: int = Field(
        600,
        ge=30,
        description="Largest number of patches; more of them show rarer kinds, and take longer.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed gives the same result.")

    _parse = field_validator("invariance", mode="before")(parse_invariance)


class ClusterSettings(Settings):
    """How atoms are sorted into clusters by features of the table."""

    method: Literal["auto", "gmm", "kmeans", "hdbscan", "regions"] = Field(
        "auto",
        description="Gaussian mixture, k-means, HDBSCAN (finds the number itself and leaves outliers out) or connected "
        "regions, such as grains; automatic: regions if y and x are among the features, otherwise a mixture.",
    )
    count: int | None = Field(None, ge=1, le=50, description="Number of clusters; found when empty.")
    smallest: int | None = Field(
        None,
        ge=2,
        description="Fewest atoms in a cluster of HDBSCAN or in a region; a hundredth of all when empty.",
        json_schema_extra=_ADVANCED,
    )
    sample: int = Field(
        20_000,
        ge=100,
        description="Largest number of atoms used to find clusters; the others are assigned.",
        json_schema_extra=_ADVANCED,
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed gives the same result.")


class BaselineSettings(Settings):
    """How patches are described without a network, for comparison."""

    method: Literal["pca", "nmf"] = Field("pca", description="Principal components, or non-negative parts (NMF).")
    latent: int = Field(2, ge=1, le=64, description="Number of components.")
    aligned: bool = Field(
        True, description="Align patches to class averages first; otherwise they are taken as they are."
    )
    invariance: tuple[Invariance, ...] = Field(
        ("rotation", "translation"),
        description="Poses taken out where patches are aligned: rotation, translation, scale, strain.",
    )
    clusters: Literal["gmm", "kmeans", "none"] = Field(
        "gmm", description="Sort by the components: Gaussian mixture, k-means, or not at all."
    )
    classes: int | None = Field(None, ge=1, le=50, description="Number of classes; found when empty.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed gives the same result.")

    _parse = field_validator("invariance", mode="before")(parse_invariance)


class TrainSettings(Settings):
    """Which model is trained, and how."""

    model: ModelName = Field(
        "rvae", description="Which member of the family; r means invariant to rotation and translation."
    )
    latent: int = Field(2, ge=1, le=64, description="Number of latent dimensions.")
    invariance: tuple[Invariance, ...] | None = Field(
        None,
        description="Poses apart from the latents: rotation, translation, scale, strain; the model's when empty.",
    )
    classes: int | None = Field(
        None,
        ge=1,
        le=50,
        description="Number of classes of joint and semi-supervised models; those that are labelled when empty.",
    )
    label_column: str = Field(
        "annotation",
        min_length=1,
        description="Column with the classes of some atoms, for semi-supervised models; empty = unknown.",
    )
    condition_columns: tuple[str, ...] = Field(
        (),
        description="Columns with what is known of all atoms, for conditional models: classes or quantities.",
    )
    epochs: int = Field(
        100, ge=1, le=100_000, description="At most so many passes over the data; stops earlier when nothing improves."
    )
    early_stopping: bool = Field(True, description="Stop when the held-out patches improve no more.")
    patience: int = Field(
        3, ge=1, le=100_000, description="Epochs without improvement before it ends.", json_schema_extra=_ADVANCED
    )
    batch_size: int = Field(100, ge=2, le=100_000, description="Patches per step.", json_schema_extra=_ADVANCED)
    learning_rate: float = Field(
        2e-3, gt=0, le=1, description="Step size of the optimiser.", json_schema_extra=_ADVANCED
    )
    hidden: int = Field(128, ge=4, le=4096, description="Width of the hidden layers.", json_schema_extra=_ADVANCED)
    skip: bool = Field(False, description="Residual connections in the decoder.", json_schema_extra=_ADVANCED)
    encoder: Literal["auto", "dense", "convolutional"] = Field(
        "auto",
        description="Dense layers, or convolutions; automatic: convolutions over angles that are free, or dense.",
        json_schema_extra=_ADVANCED,
    )
    decoder: Literal["spectrum", "coordinate"] = Field(
        "spectrum",
        description="Decode whole spectra, or pixel by pixel as the published rVAE does (slow, for comparison).",
        json_schema_extra=_ADVANCED,
    )
    beta: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="Weight of the latents' Kullback-Leibler term.",
        json_schema_extra=_ADVANCED,
    )
    beta_epochs: int = Field(
        1, ge=1, le=100_000, description="Epochs in which beta grows from 0.", json_schema_extra=_ADVANCED
    )
    latent_capacity: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Information in the latents that is aimed at, growing from 0; held down by beta alone when empty.",
        json_schema_extra=_extra("nat", advanced=True),
    )
    latent_capacity_epochs: int = Field(
        20,
        ge=1,
        le=100_000,
        description="Epochs in which the capacity of the latents grows.",
        json_schema_extra=_ADVANCED,
    )
    class_capacity: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Information in the classes that joint models aim at, growing from 0, with the weight beta; at "
        "most the logarithm of their number. As the likelihood has it when empty.",
        json_schema_extra=_extra("nat", advanced=True),
    )
    class_capacity_epochs: int = Field(
        20,
        ge=1,
        le=100_000,
        description="Epochs in which the capacity of the classes grows.",
        json_schema_extra=_ADVANCED,
    )
    angle_prior: float | None = Field(
        None,
        gt=0,
        le=180,
        description="Width of a normal prior on the angle; uniform when empty.",
        json_schema_extra=_extra("deg", advanced=True),
    )
    offset_prior: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Width of the normal prior on offsets.",
        json_schema_extra=_extra("px", advanced=True),
    )
    added_noise: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Noise added to what the encoder sees in every step, for it to see through noise, in standard "
        "deviations of the patches; what is decoded is compared with the patches as they are.",
        json_schema_extra=_ADVANCED,
    )
    physics: str = Field(
        "",
        description="A term of the loss that says what is known of the specimen: symmetry-2, symmetry-3, symmetry-4, "
        "symmetry-6 (of the motif), smooth (between neighbours), or one that is registered; none when empty.",
        json_schema_extra=_ADVANCED,
    )
    physics_weight: float = Field(1.0, ge=0, le=1e6, description="Weight of that term.", json_schema_extra=_ADVANCED)
    start: Literal["averages", "scratch"] = Field(
        "averages", description="Start from class averages, or from nothing.", json_schema_extra=_ADVANCED
    )
    members: int = Field(
        1,
        ge=1,
        le=100,
        description="Models trained from different parts of the patches: more than one tell how far each atom's "
        "class, angle and latents can be trusted.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed gives the same result.")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1 or mps.")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Processor threads; what is idle when empty.", json_schema_extra=_ADVANCED
    )

    _parse = field_validator("invariance", mode="before")(parse_invariance)
    _parse_columns = field_validator("condition_columns", mode="before")(parse_names)

    @property
    def invariances(self) -> tuple[Invariance, ...]:
        """The invariances in force: the given ones, or those that the model's name implies."""
        if self.invariance is not None:
            return self.invariance
        if self.model == "shiftvae":
            return ("translation",)
        return ("rotation", "translation") if self.model.endswith("rvae") else ()

    @property
    def family(self) -> Literal["plain", "joint", "conditional", "semi"]:
        """What the model does with classes: nothing, finds them, is given them, is given some."""
        prefixes: dict[str, Literal["joint", "conditional", "semi"]] = {"j": "joint", "c": "conditional", "ss": "semi"}
        prefix = self.model.removesuffix("vae").removesuffix("r")
        return prefixes.get(prefix, "plain")
