"""The integer models that come with the package."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from ..models import Tune
from .integer import IntegerModel, ModelError, Profile, load_model

MODELS: tuple[tuple[Profile, Tune], ...] = (("cpu", "psnr"), ("strict", "psnr"), ("cpu", "visual"))


def shipped_path(profile: Profile = "cpu", tune: Tune = "psnr") -> Path:
    """The file of a model. ModelError when there is none of the kind."""
    if (profile, tune) not in MODELS:
        raise ModelError(f"there are no weights of profile {profile} that are tuned for {tune}")
    name = f"pocketlic-{profile}.safetensors" if tune == "psnr" else f"pocketlic-{profile}-{tune}.safetensors"
    return Path(str(resources.files("pocketlic.models") / "weights" / name))


@cache
def shipped_model(profile: Profile = "cpu", tune: Tune = "psnr") -> IntegerModel:
    """A model, read once. ModelError when there is none of the kind, or it is missing or damaged."""
    return load_model(shipped_path(profile, tune))
