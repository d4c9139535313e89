import json

import pytest
from pydantic import ValidationError

from napari_rvae.errors import RVAEError, SettingsError
from napari_rvae.settings import AverageSettings, FindSettings, PatchSettings, TrainSettings, parse_invariance

EVERY = [FindSettings, PatchSettings, AverageSettings, TrainSettings]


@pytest.mark.parametrize("settings", EVERY)
def test_every_field_explains_itself_and_survives_json(settings):
    for name, field in settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith((".", "?")), name
    default = settings()
    assert settings(**json.loads(json.dumps(default.model_dump(mode="json")))) == default


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        TrainSettings().epochs = 3


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (TrainSettings, {"epochs": 0}, r"^epochs: input should be greater than or equal to 1$"),
        (TrainSettings, {"epoch": 5}, r"^epoch: extra inputs are not permitted$"),
        (TrainSettings, {"device": "gpu"}, r"^device: "),
        (TrainSettings, {"model": "xvae"}, r"^model: .*'rvae'"),
        (TrainSettings, {"invariance": "rotation,shear"}, r"unknown invariance shear; choose from rotation,"),
        (FindSettings, {"spacing": -1.0, "sigma": 0.1}, r"^spacing: .*; sigma: "),
        (PatchSettings, {"size": 4}, r"^size: "),
    ],
)
def test_wrong_values_are_named_in_one_line(settings, values, message):
    with pytest.raises(SettingsError, match=message) as caught:
        settings(**values)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, RVAEError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rotation,translation", ("rotation", "translation")),
        ("translation, rotation", ("rotation", "translation")),
        (["strain", "rotation"], ("rotation", "strain")),
        ("none", ()),
        ("", ()),
        (None, None),
    ],
)
def test_invariance_is_put_in_canonical_order(given, expected):
    assert parse_invariance(given) == expected
    assert TrainSettings(invariance=given).invariance == expected


@pytest.mark.parametrize(
    ("model", "invariances", "family"),
    [
        ("ae", (), "plain"),
        ("vae", (), "plain"),
        ("shiftvae", ("translation",), "plain"),
        ("rvae", ("rotation", "translation"), "plain"),
        ("jvae", (), "joint"),
        ("jrvae", ("rotation", "translation"), "joint"),
        ("cvae", (), "conditional"),
        ("crvae", ("rotation", "translation"), "conditional"),
        ("ssvae", (), "semi"),
        ("ssrvae", ("rotation", "translation"), "semi"),
    ],
)
def test_the_name_of_a_model_says_what_it_does(model, invariances, family):
    settings = TrainSettings(model=model)
    assert settings.invariances == invariances
    assert settings.family == family
    assert TrainSettings(model=model, invariance="scale").invariances == ("scale",)
