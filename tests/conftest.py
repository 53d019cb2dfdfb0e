"""Random sound, tie-free networks in the shapes of the codec's networks, and test pictures."""

from __future__ import annotations

import signal
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pocketlic.export.litert import LiteRTExecutor
from pocketlic.quantization.errors import Rule
from pocketlic.quantization.model import IntegerModel
from pocketlic.quantization.network import RULES, Int8, IntegerNetwork, Kind, Layer, Spec

EXPONENT = -4

# A shell starts background jobs with these ignored, and programs leave that as it is: the tests send them.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


class Builder:
    """Adds random layers one by one; each method returns the name of its output."""

    def __init__(self, name: str, rule: Rule, seed: int, **inputs: int) -> None:
        """`inputs` gives the channels of each input."""
        self.name = name
        self.rule: Rule = rule
        self.rng = np.random.default_rng(seed)
        self.inputs = {key: Spec(channels, EXPONENT) for key, channels in inputs.items()}
        self.specs = dict(self.inputs)
        self.layers: list[Layer] = []

    def build(self, *outputs: str) -> IntegerNetwork:
        network = IntegerNetwork(self.name, self.inputs, tuple(self.layers), outputs)
        network.check(self.rule)
        return network

    def pointwise(self, source: str, out: int, relu: bool = False) -> str:
        return self._convolution("pointwise", source, (out, self.specs[source].channels), out, relu)

    def depthwise(self, source: str, kernel: int) -> str:
        channels = self.specs[source].channels
        return self._convolution("depthwise", source, (kernel, kernel, channels), channels, False)

    def add(self, a: str, b: str, relu: bool = False) -> str:
        return self._append("add", (a, b), self._spec(self.specs[a].channels, relu), relu=relu)

    def upsample(self, source: str, factor: int) -> str:
        return self._move("upsample", source, factor, self.specs[source].channels)

    def space_to_depth(self, source: str, factor: int) -> str:
        return self._move("space_to_depth", source, factor, self.specs[source].channels * factor**2)

    def depth_to_space(self, source: str, factor: int) -> str:
        return self._move("depth_to_space", source, factor, self.specs[source].channels // factor**2)

    def block(self, source: str, kernel: int) -> str:
        """The codec's residual block: depthwise, expand with ReLU, project, sum."""
        channels = self.specs[source].channels
        expanded = self.pointwise(self.depthwise(source, kernel), 2 * channels, relu=True)
        return self.add(source, self.pointwise(expanded, channels))

    @staticmethod
    def _spec(channels: int, relu: bool) -> Spec:
        return Spec(channels, EXPONENT, -128 if relu else 0)

    def _move(self, kind: Kind, source: str, factor: int, channels: int) -> str:
        spec = self.specs[source]
        return self._append(kind, (source,), Spec(channels, spec.exponent, spec.zero_point), factor=factor)

    def _append(
        self,
        kind: Kind,
        sources: tuple[str, ...],
        spec: Spec,
        relu: bool = False,
        factor: int = 1,
        **parts: NDArray,
    ) -> str:
        name = f"{kind}{len(self.layers)}"
        self.layers.append(Layer(kind, name, sources, spec, relu, factor, **parts))
        self.specs[name] = spec
        return name

    def _convolution(self, kind: Kind, source: str, shape: tuple[int, ...], out: int, relu: bool) -> str:
        multiple, remainder, least, most = RULES[self.rule]
        weight = (self.rng.integers(-127 // multiple + 1, 127 // multiple + 1, shape) * multiple).astype(np.int8)
        axes = (1,) if kind == "pointwise" else (0, 1)
        taps = weight.size // out
        # Outputs spread over about +-50, with some saturation; the bias undoes the shift of a zero point of -128.
        spread = np.log2(np.sqrt(taps) * 73 * 60 / 50)
        shift = np.clip(np.round(spread + self.rng.uniform(-1, 1, out)), least, most).astype(np.int8)
        mean = weight.astype(np.int64).sum(axes) * (60 if self.specs[source].zero_point else 0)
        bias = self.rng.integers(-20, 20, out) * (1 << shift.astype(np.int64)) + self.rng.integers(0, 999, out) - mean
        bias = (bias // (2 * remainder) * (2 * remainder) + remainder).astype(np.int32)
        spec = self._spec(out, relu)
        return self._append(kind, (source,), spec, relu, weight=weight, bias=bias, shift=shift)


def random_inputs(network: IntegerNetwork, height: int, width: int, seed: int = 0) -> list[Int8]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-128, 128, (height, width, s.channels)).astype(np.int8) for s in network.inputs.values()]


def everything(rule: Rule, seed: int = 0) -> IntegerNetwork:
    """Every kind of layer, two inputs, two outputs on different grids; sizes are multiples of 2."""
    b = Builder("everything", rule, seed, image=5, side=24)
    wide = b.block(b.pointwise("image", 24), 5)
    mixed = b.add(wide, b.pointwise("side", 24), relu=True)
    low = b.pointwise(b.space_to_depth(mixed, 2), 32)
    low = b.block(low, 3)
    fine = b.depth_to_space(b.pointwise(low, 4 * 24, relu=True), 2)
    joined = b.add(b.pointwise(fine, 24), b.upsample(b.pointwise(low, 24), 2), relu=True)
    return b.build(low, b.depth_to_space(b.pointwise(joined, 48), 4))


def renderer(rule: Rule, seed: int = 0, channels: int = 16, details: int = 0) -> IntegerNetwork:
    """The synthesis in small: a body that conditions a renderer at four times its resolution; any size.

    details: channels of a second input, which is added to the canvas; 0 for none.
    """
    b = Builder("synthesis", rule, seed, y_hat=channels, **({"details": details} if details else {}))
    body = b.block(b.pointwise("y_hat", 24), 5)
    x = b.depth_to_space(b.pointwise("y_hat", 16 * 8), 4)
    if details:
        x = b.add(x, b.depth_to_space(b.pointwise(b.depth_to_space("details", 2), 32), 2))
    for _ in range(2):
        hidden = b.add(b.pointwise(x, 16), b.upsample(b.pointwise(body, 16), 4), relu=True)
        x = b.add(x, b.pointwise(hidden, 8))
    return b.build(b.depth_to_space(b.pointwise(x, 48), 4))


def small_model(rule: Rule, seed: int = 0) -> IntegerModel:
    """A random codec of 16 latents (two of them wide), 4 details and 8 hyper-latents: exact noise."""
    networks = {}
    b = Builder("analysis", rule, seed, image=3)
    fine = b.block(b.pointwise(b.space_to_depth("image", 8), 12), 5)
    networks["analysis"] = b.build(b.block(b.pointwise(b.space_to_depth(fine, 2), 16), 5), fine)
    b = Builder("hyper_analysis", rule, seed + 1, y=16, details=16)
    x = b.add(b.pointwise("y", 8), b.pointwise("details", 8), relu=True)
    x = b.pointwise(b.space_to_depth(x, 2), 8, relu=True)
    networks["hyper_analysis"] = b.build(b.pointwise(b.space_to_depth(x, 2), 8))
    b = Builder("hyper_synthesis", rule, seed + 2, z=8)
    x = b.block(b.depth_to_space(b.pointwise("z", 32), 2), 3)
    x = b.pointwise(b.depth_to_space(b.pointwise(x, 32, relu=True), 2), 16, relu=True)
    networks["hyper_synthesis"] = b.build(x, b.pointwise(x, 16), b.pointwise(x, 16))
    b = Builder("context", rule, seed + 3, features=16, anchors=16)
    x = b.add(b.pointwise("features", 16), b.pointwise(b.depthwise("anchors", 5), 16), relu=True)
    networks["context"] = b.build(b.pointwise(x, 16))
    networks["synthesis"] = renderer(rule, seed + 4, 18, 16)
    rng = np.random.default_rng(seed)
    frequencies = np.append(np.full(81, 700), 65536 - 81 * 700)
    i32, knots = np.int32, 3
    arrays = {
        "latent_weight": rng.integers(-127, 128, (16, 16)).astype(np.int8),
        "latent_bias": rng.integers(-99, 99, 16).astype(i32),
        "latent_shift": rng.integers(-3, 1, 16).astype(np.int8),
        "detail_weight": rng.integers(-127, 128, (4, 12)).astype(np.int8),
        "detail_bias": rng.integers(-99, 99, 4).astype(i32),
        "detail_shift": rng.integers(-3, 1, 4).astype(np.int8),
        "row_weight": rng.integers(-127, 128, (512, 8)).astype(np.int8),
        "row_scale": rng.integers(100, 300, 512).astype(i32),
        "row_bias": rng.integers(-9 << 16, 9 << 16, 512).astype(i32),
        "detail_row_weight": rng.integers(-127, 128, (16, 16)).astype(np.int8),
        "detail_row_scale": rng.integers(10, 90, 16).astype(i32),
        "magnitude": np.round(16 * np.log2(1 + np.arange(128))).astype(np.int8),
        "step_knots": (rng.integers(0, 256, (knots, 32)) + 256 * np.arange(3, 0, -1)[:, None]).astype(i32),
        "row_knots": (rng.integers(0, 9 << 16, (knots, 32)) + (30 << 16)).astype(i32),
        "hyper_gain_knots": rng.integers(-3 << 8, -2 << 8, (knots, 8)).astype(i32),
        "hyper_row_knots": np.full((knots, 8), 30 << 16, i32),
        "hyper_prediction": rng.integers(-64, 65, (8, 3)).astype(np.int8),
        "wide": np.array([1, 5], np.int16),
        "exp2": np.round(2.0 ** (16 + np.arange(256) / 256)).astype(i32),
        "table_radius": np.full(64, 40, np.uint16),
        "table_freq": np.tile(frequencies, 64).astype(np.uint16),
    }
    return IntegerModel(rule=rule, networks=networks, skip=3, **arrays)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The makers above, as a fixture: test modules cannot import each other."""
    return SimpleNamespace(
        Builder=Builder,
        everything=everything,
        renderer=renderer,
        small_model=small_model,
        random_inputs=random_inputs,
    )


@pytest.fixture(params=["cpu", "strict"])
def rule(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def profile(rule: str) -> str:
    """The same."""
    return rule


@cache
def texture(height: int, width: int, seed: int = 0, grey: bool = False) -> NDArray[np.uint8]:
    """A picture with gradients, edges and some noise, as in photographs; uint8 [H, W, 3] or [H, W]."""
    rng = np.random.default_rng([seed, height, width])
    y, x = np.mgrid[:height, :width][..., None] / 32.0
    waves = sum(np.sin(x * a + y * b + c) * d for a, b, c, d in rng.uniform(-2, 2, (6, 4, 3)))
    edges = 60.0 * (np.sin(x * 0.9 + seed) + np.cos(y * 1.1) > 0.4)
    picture = 110 + 14 * waves + edges + rng.normal(0, 6, (height, width, 3))
    picture = picture.mean(2) if grey else picture
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    picture.setflags(write=False)
    return picture


@pytest.fixture(scope="session")
def picture():
    """The maker of test pictures: (height, width, seed=0, grey=False) -> uint8 array."""
    return texture


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three small picture files, in a subfolder too."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "more").mkdir()
    for i, name in enumerate(("a.png", "b.PNG", "more/c.jpg")):
        Image.fromarray(texture(80 + 16 * i, 112, i)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def one_wrong_value(monkeypatch):
    """Makes one value of LiteRT's synthesis wrong by one."""
    real = LiteRTExecutor.__call__

    def wrong(self, network, inputs):
        outputs = real(self, network, inputs)
        if network.name == "synthesis":
            next(iter(outputs.values()))[7, 9, 1] ^= 1
        return outputs

    monkeypatch.setattr(LiteRTExecutor, "__call__", wrong)
