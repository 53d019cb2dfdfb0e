"""The integer models that come with the package."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from ..models import Tune
from .integer import IntegerModel, ModelError, Profile, load_model

MODELS: tuple[tuple[Profile, Tune], ...] = (("cpu", "visual"), ("cpu", "psnr"), ("strict", "psnr"))
"""The first of a profile is its default: what the eye prefers, where there is such a model."""


def default_tune(profile: Profile) -> Tune:
    """What the weights are tuned for when nobody says it."""
    return next(tune for name, tune in MODELS if name == profile)


def shipped_path(profile: Profile = "cpu", tune: Tune | None = None) -> Path:
    """The file of a model. tune: the profile's default if None. ModelError when there is none of the kind."""
    tune = tune or default_tune(profile)
    if (profile, tune) not in MODELS:
        raise ModelError(f"there are no weights of profile {profile} that are tuned for {tune}")
    name = f"pocketlic-{profile}" if tune == default_tune(profile) else f"pocketlic-{profile}-{tune}"
    return Path(str(resources.files("pocketlic.models") / "weights" / f"{name}.safetensors"))


_load = cache(load_model)


def shipped_model(profile: Profile = "cpu", tune: Tune | None = None) -> IntegerModel:
    """A model, read once. tune: the profile's default if None.

    ModelError when there is none of the kind, or it is missing or damaged.
    """
    return _load(shipped_path(profile, tune))
