"""The integer models that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, get_args

from ..models import Tune
from ..models import __file__ as models_file
from ..models.errors import check_choice
from .errors import ModelError, Rule

if TYPE_CHECKING:
    from .model import IntegerModel

T = TypeVar("T")

DEFAULT_QUALITY = 60.0


class Weights(NamedTuple):
    """A model of the package. Every model codes every quality; this one is the best from `quality` up.

    short_id: the first 8 bytes of the file's SHA-256, by which `.plic` files name their model.
    """

    name: str
    short_id: str
    rule: Rule
    tune: Tune
    quality: float

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(models_file).with_name("weights") / f"pocketlic-{self.name}.safetensors"

    def read(self) -> bytes:
        """The file's bytes. ModelError when it cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error.strerror}") from None

    def load(self) -> IntegerModel:
        """The model, read once. ModelError when the file is missing or damaged."""
        return _load(self.path)


@cache
def _load(path: Path) -> IntegerModel:
    from .model import load_model  # not needed to encode and decode in the native core

    return load_model(path)


MODELS = (
    Weights("cpu-low", "74af3041e045483f", "cpu", "visual", 0.0),
    Weights("cpu", "80ceb5c4126e3d1d", "cpu", "visual", 35.0),
    Weights("cpu-high", "fd3ec8ff8ea00ef7", "cpu", "visual", 65.0),
    Weights("cpu-psnr-low", "9ef6d0e7aa0c7791", "cpu", "psnr", 0.0),
    Weights("cpu-psnr", "6da2dfc6ebd13d68", "cpu", "psnr", 35.0),
    Weights("cpu-psnr-high", "ca970396156189aa", "cpu", "psnr", 65.0),
    Weights("strict", "250f5083ce9097e4", "strict", "psnr", 0.0),
)
"""By rule and tune, from low qualities to high. A rule's first tune is its default.

A network this small needs fewer bits when it is trained for a part of the qualities alone.
"""


def by_short_id(short_id: str) -> Weights | None:
    """The model that files name by these 16 hexadecimal digits, if the package has it."""
    return next((weights for weights in MODELS if weights.short_id == short_id), None)


def default_tune(rule: Rule) -> Tune:
    """What the weights of a rule are tuned for by default. PlicError for a rule that does not exist."""
    check_choice("rule", rule, get_args(Rule))
    return next(weights.tune for weights in MODELS if weights.rule == rule)


def shipped(rule: Rule = "cpu", tune: Tune | None = None) -> tuple[Weights, ...]:
    """Models from low qualities to high. tune: the rule's default if None.

    PlicError for a rule or a tune that does not exist, ModelError when there are no such weights.
    """
    default = default_tune(rule)
    tune = default if tune is None else tune
    check_choice("tune", tune, get_args(Tune))
    found = tuple(weights for weights in MODELS if (weights.rule, weights.tune) == (rule, tune))
    if not found:
        raise ModelError(f"there are no weights of rule {rule} that are tuned for {tune}")
    return found


def for_quality(choices: Sequence[tuple[float, T]], quality: float) -> T:
    """The best choice for a quality. choices: (quality from which on it is the best, choice), from low to high."""
    return next((choice for least, choice in reversed(choices) if least <= quality), choices[0][1])


def shipped_model(
    rule: Rule = "cpu", tune: Tune | None = None, quality: float = DEFAULT_QUALITY, *, profile: Rule | None = None
) -> IntegerModel:
    """The model for a quality, read once. tune: the rule's default if None. profile: an older name of rule.

    ModelError when there is none of the kind, or it is missing or damaged.
    """
    return for_quality([(weights.quality, weights) for weights in shipped(profile or rule, tune)], quality).load()
