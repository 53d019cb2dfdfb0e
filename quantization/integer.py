"""The names of `network` and `model`, for those that import them from here."""

from .model import NETWORKS, IntegerModel, load_model
from .network import RULES, Int8, Int64, IntegerNetwork, Kind, Layer, ModelError, Rule, Spec

Profile = Rule

__all__ = [
    "NETWORKS", "RULES", "Int8", "Int64", "IntegerModel", "IntegerNetwork", "Kind", "Layer", "ModelError", "Profile",
    "Rule", "Spec", "load_model",
]  # fmt: skip
