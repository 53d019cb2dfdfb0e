"""The conformance vectors: small streams that reach every part of a decoder.

Whatever makes them is integer arithmetic on the output of SHAKE-256, so they are the same on any machine:

    pictures   of all sizes, qualities and kinds, encoded with a model
    symbols    drawn row by row: every entry of the tables, the escapes beside and beyond them
    extremes   a model of its own, of values at the limits of what a sound model may have

`tests/vectors/` holds them as files with the hashes of what they decode to; `matrix` compares decoders on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...codec import format as plic
from ...codec import rans
from ...codec.codec import STRIDE, Codec, Symbols
from ...quantization.errors import Rule
from ...quantization.model import IntegerModel
from ...quantization.network import RULES, IntegerNetwork, Kind, Layer, Spec


@dataclass(frozen=True)
class Vector:
    """One stream. name: what it is for; data: the `.plic` file."""

    name: str
    data: bytes


def noise(seed: str, shape: tuple[int, ...], low: int, high: int) -> NDArray[np.int64]:
    """Integers low .. high - 1 that only depend on the seed."""
    count = int(np.prod(shape, dtype=np.int64))
    words = np.frombuffer(hashlib.shake_256(seed.encode()).digest(4 * count), "<u4").astype(np.int64)
    return (low + words % (high - low)).reshape(shape)


# ---------------------------------------------------------------------------------------------------------- pictures

PICTURES: tuple[tuple[str, str, int, int, float], ...] = (
    # name, kind, height, width, quality
    ("one-pixel", "texture", 1, 1, 50),
    ("one-pixel-grey", "grey", 1, 1, 100),
    ("one-row", "texture", 1, 300, 60),
    ("one-column", "texture", 300, 1, 60),
    ("odd", "texture", 67, 131, 45),
    ("whole-cell", "texture", 64, 64, 55),
    ("one-more", "texture", 65, 65, 55),
    ("grey", "grey", 90, 70, 40),
    ("black", "black", 96, 80, 30),
    ("white", "white", 80, 96, 30),
    ("flat", "flat", 200, 150, 0),
    ("noise", "noise", 96, 96, 100),
    ("lines", "lines", 100, 160, 70),
    ("tall", "texture", 1100, 40, 35),
    ("wide", "texture", 40, 1100, 35),
    ("larger-than-tiles", "texture", 544, 1040, 5),
    *((f"quality-{quality:g}", "texture", 192, 256, quality) for quality in (0, 12.34, 25, 50, 75, 90, 99.99, 100)),
)


def picture(kind: str, height: int, width: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], or [H, W] of the kind grey."""
    channels = 1 if kind == "grey" else 3
    shape = (height, width, channels)
    if kind == "noise":
        values = noise("noise", shape, 0, 256)
    elif kind in ("black", "white", "flat"):
        values = np.broadcast_to({"black": [0], "white": [255], "flat": [200, 90, 40]}[kind], shape)
    elif kind == "lines":
        y, x = np.mgrid[:height, :width]
        values = np.where(((x + 2 * y) % 7 < 2) | (x % 16 == 0), 255, 0)[:, :, None] * np.array([1, 1, 0])
    else:
        values = np.clip(_texture(height, width, channels), 0, 255)
    pixels = values.astype(np.uint8)
    return pixels[:, :, 0] if kind == "grey" else pixels


def _texture(height: int, width: int, channels: int) -> NDArray[np.int64]:
    """What photographs have: slopes, waves, edges, some noise."""
    y, x = np.mgrid[:height, :width]
    result = noise("grain", (height, width, channels), -6, 7) + 110
    for a, b, period, tint in noise("waves", (6, 4), -40, 41):
        phase = (a * x + b * y) % (40 * (abs(period) + 8))
        triangle = np.abs(2 * phase - 40 * (abs(period) + 8)) * 40 // (40 * (abs(period) + 8)) - 20
        result += triangle[:, :, None] * (30 + np.arange(channels) * tint) // 40
    edges = ((x // 37 + y // 29) % 3 == 0) & ((x + y) % 90 < 60)
    return np.asarray(result + 50 * edges[:, :, None])


# ----------------------------------------------------------------------------------------------------------- symbols


def extreme_symbols(codec: Codec, header: plic.Header, seed: str, spread: int) -> Symbols:
    """Symbols that take each row's entries in turn: the middle, both ends, escapes next to them and the greatest.

    spread: z is in -spread .. spread - 1.
    """
    model = codec.model
    h, w = -(-header.height // STRIDE), -(-header.width // STRIDE)
    z = noise(f"{seed} z", (h, w, model.row_weight.shape[1]), -spread, spread).astype(np.int8)
    predicted = codec.predicted_indices(z, header.quality_hundredths)

    def draw(indices: NDArray[np.uint8], part: str) -> NDArray[np.int32]:
        radius = model.table_radius.astype(np.int64)[indices]
        inside = noise(f"{seed} {part}", indices.shape, 0, 1 << 16) % (2 * radius + 1) - radius
        beyond = np.minimum(radius + 1, 32767)
        choices = [inside, inside // 4, radius, -radius, inside // 16, beyond, -beyond, inside // 2]
        greatest = np.full(indices.shape, 32767)
        # The greatest are rare: they cost 20 bits and saturate all behind them.
        kind = noise(f"{seed} {part} kind", indices.shape, 0, 400)
        values = np.select([kind % 8 == k for k in range(8)], choices)
        values = np.select([kind == 0, kind == 1], [greatest, -greatest], values)
        return np.where(indices < model.skip, 0, values).astype(np.int32)

    y = draw(codec.latent_indices(predicted), "y")
    return Symbols(z, y, draw(codec.detail_indices(predicted, y), "details"))


def vectors(model: IntegerModel) -> Iterator[Vector]:
    """All vectors of a model; the networks run on the NumPy reference."""
    codec = Codec(model)
    for name, kind, height, width, quality in PICTURES:
        yield Vector(name, codec.encode(picture(kind, height, width), quality))
    yield Vector(
        "metadata", codec.encode(picture("texture", 30, 50), 80, icc=b"a colour profile" * 20, exif=b"MM\0*" * 9)
    )
    for i, (height, width, quality, spread) in enumerate(
        [(128, 128, 9000, 128), (64, 192, 3333, 128), (130, 64, 0, 24), (64, 64, 10000, 4), (1090, 64, 6000, 64)]
    ):
        header = plic.Header(width, height, bool(i % 2), quality, codec.model_id)
        symbols = extreme_symbols(codec, header, f"{i}", spread)
        yield Vector(f"symbols-{i}", codec.write_symbols(symbols, header))
    # An encoder may use four states in a small stream too.
    header = plic.Header(64, 64, False, 5000, codec.model_id)
    four = Codec(model, coder=partial(rans.SymbolCoder, many=1))
    yield Vector("four-states", four.write_symbols(extreme_symbols(codec, header, "four", 64), header))


# ---------------------------------------------------------------------------------------------------- extreme values


class _Builder:
    """Adds layers of extreme weights one by one; each method returns the name of its output."""

    def __init__(self, name: str, rule: Rule, **inputs: int) -> None:
        """`inputs` gives the channels of each input."""
        self.name, self.rule = name, rule
        self.inputs = {key: Spec(channels, 0) for key, channels in inputs.items()}
        self.specs = dict(self.inputs)
        self.layers: list[Layer] = []

    def build(self, *outputs: str) -> IntegerNetwork:
        return IntegerNetwork(self.name, self.inputs, tuple(self.layers), outputs)

    def pointwise(self, source: str, out: int, relu: bool = False) -> str:
        return self._convolution("pointwise", source, (out, self.specs[source].channels), out, relu)

    def depthwise(self, source: str, kernel: int, relu: bool = False) -> str:
        channels = self.specs[source].channels
        return self._convolution("depthwise", source, (kernel, kernel, channels), channels, relu)

    def add(self, a: str, b: str, relu: bool = False) -> str:
        spec = Spec(self.specs[a].channels, 0, -128 if relu else 0)
        return self._append(Layer("add", f"add{len(self.layers)}", (a, b), spec, relu))

    def move(self, kind: Kind, source: str, factor: int) -> str:
        spec = self.specs[source]
        area = factor**2
        channels = {"upsample": spec.channels, "space_to_depth": spec.channels * area}.get(kind, spec.channels // area)
        moved = Spec(channels, spec.exponent, spec.zero_point)
        return self._append(Layer(kind, f"{kind}{len(self.layers)}", (source,), moved, factor=factor))

    def block(self, source: str, kernel: int) -> str:
        """Depthwise, expand with ReLU, project, sum: the codec's own shape."""
        channels = self.specs[source].channels
        hidden = self.pointwise(self.depthwise(source, kernel), 2 * channels, relu=True)
        return self.add(source, self.pointwise(hidden, channels))

    def _append(self, layer: Layer) -> str:
        self.layers.append(layer)
        self.specs[layer.name] = layer.spec
        return layer.name

    def _convolution(self, kind: Kind, source: str, shape: tuple[int, ...], out: int, relu: bool) -> str:
        """Output channels in turn: of usual scale; least shift; greatest shift; biases at the limit of 32 bits."""
        multiple, remainder, least, most = RULES[self.rule]
        name = f"{kind}{len(self.layers)}"
        seed = f"{self.rule} {self.name} {name}"
        weight = noise(seed, shape, -127 // multiple + 1, 127 // multiple + 1) * multiple
        greatest = 127 // multiple * multiple
        weight = np.where(noise(f"{seed} signs", shape, 0, 9) == 0, np.where(weight < 0, -greatest, greatest), weight)
        axes = (1,) if kind == "pointwise" else (0, 1)
        zero = self.specs[source].zero_point
        sums = np.abs(weight).sum(axes)
        taps = weight.size // out
        usual = int(np.log2(60 * np.sqrt(taps))) + 1
        kinds = np.arange(out) % 8
        shift = np.select([kinds == 1, kinds == 5], [least, most], np.clip(usual, least, most))
        room = 2**31 - 1 - sums * (128 - zero) - (1 << (shift - 1))
        centred = -weight.sum(axes) * (-zero // 2) + noise(f"{seed} bias", (out,), -64, 65) * (1 << shift)
        bias = np.select([kinds == 3, kinds == 7], [room - 4, 4 - room], np.clip(centred, 4 - room, room - 4))
        bias = bias // (2 * remainder) * (2 * remainder) + remainder
        spec = Spec(out, 0, -128 if relu else 0)
        parts = weight.astype(np.int8), bias.astype(np.int32), shift.astype(np.int8)
        return self._append(Layer(kind, name, (source,), spec, relu, 1, *parts))


def _extreme_tables() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """256 tables: flat, and peaked at the middle, at an end, at the escape; radii from 0 to the greatest there is."""
    radius, freq = [], []
    for i in range(256):
        t = {254: 1000, 255: 32767}.get(i, i * 7 % 45)
        count = 2 * t + 2
        row = np.ones(count, np.int64)
        if i % 4 == 0:
            row[:] = 65536 // count
        row[[t, t, 2 * t, 2 * t + 1][i % 4]] += 65536 - row.sum()
        radius.append(t)
        freq.append(row)
    return np.array(radius, np.uint16), np.concatenate(freq).astype(np.uint16)


def extreme_model(rule: Rule) -> IntegerModel:
    """A sound model of 16 latents (3 of them wide), 16 details and 8 hyper-latents, as extreme as the rules allow."""
    networks = {}
    b = _Builder("analysis", rule, image=3)
    fine = b.block(b.pointwise(b.move("space_to_depth", "image", 8), 12), 31)
    networks["analysis"] = b.build(b.block(b.pointwise(b.move("space_to_depth", fine, 2), 16), 3), fine)
    b = _Builder("hyper_analysis", rule, y=16, details=16)
    x = b.add(b.pointwise("y", 9), b.pointwise("details", 9), relu=True)
    networks["hyper_analysis"] = b.build(b.pointwise(b.move("space_to_depth", x, 4), 8))
    b = _Builder("hyper_synthesis", rule, z=8)
    x = b.block(b.move("depth_to_space", b.pointwise("z", 32), 2), 3)
    x = b.pointwise(b.move("depth_to_space", b.pointwise(x, 32, relu=True), 2), 17, relu=True)
    networks["hyper_synthesis"] = b.build(x, b.pointwise(x, 16), b.pointwise(x, 16))
    b = _Builder("context", rule, features=17, anchors=16)
    x = b.add(b.pointwise("features", 24), b.pointwise(b.depthwise("anchors", 7, relu=True), 24), relu=True)
    low = b.pointwise(b.move("space_to_depth", x, 2), 33)
    x = b.add(x, b.move("upsample", b.pointwise(low, 24, relu=True), 2))
    networks["context"] = b.build(b.pointwise(b.add(x, b.depthwise(x, 1)), 16))
    b = _Builder("synthesis", rule, y_hat=19, details=16)
    body = b.block(b.pointwise("y_hat", 24), 5)
    x = b.move("depth_to_space", b.pointwise("y_hat", 16 * 8), 4)
    x = b.add(x, b.move("depth_to_space", b.pointwise(b.move("depth_to_space", "details", 2), 32), 2))
    hidden = b.add(b.pointwise(x, 16), b.move("upsample", b.pointwise(body, 16), 4), relu=True)
    x = b.add(x, b.pointwise(hidden, 8))
    networks["synthesis"] = b.build(b.move("depth_to_space", b.pointwise(x, 48), 4))
    knots, i32 = 5, np.int32
    limit = 2**31

    def extremes(seed: str, shape: tuple[int, ...], low: int, high: int) -> NDArray[np.int32]:
        """Mostly low .. high - 1; one in 16 is at an end of 32 bits."""
        values, kind = noise(seed, shape, low, high), noise(f"{seed} kind", shape, 0, 32)
        return np.select([kind == 0, kind == 1], [limit - 1, -limit], values).astype(i32)

    radius, freq = _extreme_tables()
    return IntegerModel(
        rule=rule,
        networks=networks,
        latent_weight=noise("latent", (16, 16), -128, 128).astype(np.int8),
        latent_bias=extremes("latent bias", (16,), -99, 99),
        latent_shift=np.linspace(-31, 16, 16).astype(np.int8),
        detail_weight=noise("detail", (4, 12), -128, 128).astype(np.int8),
        detail_bias=noise("detail bias", (4,), -99, 99).astype(i32),
        detail_shift=np.array([-31, -5, 0, 16], np.int8),
        row_weight=noise("rows", (512, 8), -128, 128).astype(np.int8),
        row_scale=extremes("row scale", (512,), -3000, 3000),
        row_bias=extremes("row bias", (512,), -64 << 16, 64 << 16),
        detail_row_weight=noise("detail rows", (16, 16), -128, 128).astype(np.int8),
        detail_row_scale=extremes("detail row scale", (16,), -900, 900),
        magnitude=noise("magnitude", (128,), -128, 128).astype(np.int8),
        step_knots=extremes("steps", (knots, 32), -512, 5000),
        row_knots=extremes("row knots", (knots, 32), 64 << 16, 192 << 16),
        hyper_gain_knots=noise("gain", (knots, 8), -3840, 3841).astype(i32),
        hyper_row_knots=extremes("hyper rows", (knots, 8), -9 << 16, 260 << 16),
        hyper_prediction=noise("prediction", (8, 3), -128, 128).astype(np.int8),
        wide=np.array([0, 7, 15], np.int16),
        exp2=(65536 + 257 * np.arange(256) - np.arange(256) % 3).astype(i32),
        table_radius=radius,
        table_freq=freq,
        skip=3,
        # One of the two has none.
        post_filter=noise("filters", (5, 384, 12), -128, 128).astype(np.int8) if rule == "cpu" else None,
    )
