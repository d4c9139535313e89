"""Models whose training takes every way there is through a step."""

MODELS = [
    ("vae", {}),
    ("vae", {"encoder": "convolutional"}),
    ("rvae", {"invariance": "rotation,translation,strain,scale", "angle_prior": 20.0}),
    ("rvae", {"decoder": "coordinate"}),
    ("jrvae", {"classes": 4, "class_capacity": 0.5, "latent_capacity": 3.0}),
    ("ssrvae", {"classes": 4}),
    ("crvae", {}),
    ("ae", {"added_noise": 1.0}),
    ("shiftvae", {"skip": True}),
]
