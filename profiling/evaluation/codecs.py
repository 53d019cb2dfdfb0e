"""The codecs that are compared, behind one interface: a picture and a setting to a file and back.

Each is a small frozen dataclass that can be sent to another process; what is costly to make (the networks
under LiteRT) is made once per process, when first used. Everything runs on one thread.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, features

from ...codec import format as plic
from ...codec.codec import Codec
from ...codec.effort import encode
from ...codec.errors import PlicError
from ...codec.fast import FastCodec
from ...codec.image import read_picture
from ...codec.lagrangian import table_bits
from ...export.litert import LiteRTExecutor
from ...models import Tune
from ...models.errors import install_command
from ...quantization.errors import Rule
from ...quantization.model import IntegerModel, load_model
from ...quantization.shipped import default_tune, for_quality, shipped
from ..text import picture_name
from .metrics import ycbcr

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.plane import VideoPlane

Pixels = NDArray[np.uint8]

SLACK_BYTES = 64
"""Container and coder state of a file: what real bytes may exceed the estimated entropy by, beside 1 %."""


@dataclass(frozen=True)
class Source:
    """A picture to be coded: the name of its file without the suffix, and uint8 [H, W, 3] RGB."""

    name: str
    pixels: Pixels


class ImageCodec(Protocol):
    """A codec with one quality setting."""

    @property
    def name(self) -> str:
        """Short, unique in a run, fit for a file name."""

    @property
    def suffix(self) -> str:
        """Of its files, with the dot."""

    @property
    def settings(self) -> tuple[float, ...]:
        """The qualities of its curve."""

    @property
    def encodes(self) -> bool:
        """Whether `encode` really encodes, and does not look up a file that was made before."""

    @property
    def identity(self) -> str:
        """Changes whenever the codec may give other files or other pixels: versions, options, model."""

    def encode(self, source: Source, setting: float) -> bytes:
        """The file. PlicError, with one line, when that is impossible."""

    def decode(self, data: bytes) -> Pixels:
        """uint8 [H, W, 3] RGB."""


def read_source(path: Path) -> Source:
    """Read a picture; grey becomes RGB, so that all metrics fit. PlicError when it cannot be read."""
    return Source(picture_name(path), as_rgb(read_picture(path).pixels))


def as_rgb(pixels: Pixels) -> Pixels:
    """uint8 [H, W, 3] of pixels that may be grey, [H, W]."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, 2)


# Packages that can change a file or a decoded pixel of ours. Whole: of single modules one was always forgotten.
_CODE = ("codec", "models", "quantization", "export")


@cache
def code_version() -> str:
    """SHA-256, hexadecimal, of the parts of this package that determine its files and pixels."""
    digest = hashlib.sha256(_origin("codec._native").read_bytes())
    for package in _CODE:
        for path in sorted(_origin(package).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _origin(module: str) -> Path:
    """The file of a module of this package."""
    spec = find_spec(f"pocketlic.{module}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


@cache
def _model(path: Path) -> IntegerModel:
    return load_model(path)


@cache
def _codec(path: Path) -> FastCodec:
    return FastCodec(_model(path), LiteRTExecutor.from_model(_model(path), "xnnpack", threads=1))


@dataclass(frozen=True)
class Pocketlic:
    """Our codec with integer models, each for the qualities from its own on, run by LiteRT with XNNPACK."""

    models: tuple[tuple[float, Path], ...]
    settings: tuple[float, ...] = (0, 10, 25, 40, 55, 70, 85, 95, 100)
    effort: int = 0
    suffix: str = ".plic"
    encodes: bool = True

    @property
    def name(self) -> str:
        """With what the weights are tuned for, if not the rule's default, and the effort, if any is made."""
        model = _model(self.models[0][1])
        tune = model.notes.get("tune", "psnr")
        name = "pocketlic" if tune == default_tune(model.rule) else f"pocketlic-{tune}"
        return f"{name}-effort-{self.effort}" if self.effort else name

    @property
    def identity(self) -> str:
        """Models, effort and code."""
        ids = [_model(path).model_id for _, path in self.models]
        parts = [f"{i} from quality {quality:g}" for (quality, _), i in zip(self.models[1:], ids[1:], strict=True)]
        return f"model {', '.join([ids[0], *parts])}, effort {self.effort}, code {code_version()}"

    def encode(self, source: Source, setting: float) -> bytes:
        """A `.plic` file."""
        return encode(_codec(self._model_for(setting)), source.pixels, setting, effort=self.effort)

    def decode(self, data: bytes) -> Pixels:
        """Pixels by LiteRT."""
        return _codec(self._model_of(data)).decode(data)

    def entropy_bits(self, data: bytes) -> float:
        """Bits that the symbols of a file should take by the model's own tables."""
        codec, file = _codec(self._model_of(data)), plic.read(data)
        parts = codec.coded(codec.read_symbols(file), file.header.quality_hundredths)
        return float(sum(table_bits(codec.model, symbols, indices).sum() for symbols, indices in parts))

    def reference(self, source: Source, setting: float) -> tuple[bytes, Pixels]:
        """The file that the NumPy reference writes, and its pixels. Takes seconds per megapixel."""
        codec = Codec(_model(self._model_for(setting)))
        data = encode(codec, source.pixels, setting, effort=self.effort)
        return data, codec.decode(data)

    def _model_for(self, setting: float) -> Path:
        return for_quality(self.models, setting)

    def _model_of(self, data: bytes) -> Path:
        wanted = plic.read_header(data).model_id
        return next(p for _, p in self.models if bytes.fromhex(_model(p).model_id).startswith(wanted))


def entropy_met(file_bytes: int, bits: float) -> bool:
    """Whether a file is within 1 % of its estimated entropy, container and coder state allowed for."""
    return abs(8 * file_bytes - bits) <= 0.01 * bits + 8 * SLACK_BYTES


def require_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted. PlicError when there are none, or two that share a name."""
    if not folder.is_dir():
        raise PlicError(f"{folder} is not a folder")
    suffixes = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm", ".pnm", ".gif", ".tga"}
    suffixes |= {".avif", ".heic", ".heif", ".jp2", ".jxl", ".qoi"}
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    if not paths:
        raise PlicError(f"{folder} has no pictures")
    names = [picture_name(p) for p in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PlicError(f"{folder} has two pictures named {twice}")
    return paths


def _quality(setting: float) -> Mapping[str, object]:
    return {"quality": round(setting)}


def _decibels(setting: float) -> Mapping[str, object]:
    """JPEG 2000 has no quality: its target is a PSNR, here of 20 to 55 dB."""
    return {"quality_mode": "dB", "quality_layers": [20 + 0.35 * setting]}


@dataclass(frozen=True)
class Pillow:
    """A codec that Pillow, or a plugin of it, writes and reads.

    format: Pillow's name. options: what `Image.save` gets beside what `dial` makes of the setting. plugin: the package
    that brings the format, if not Pillow itself. feature: name of Pillow's library behind it, whose version matters.
    """

    name: str
    format: str
    suffix: str
    settings: tuple[float, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    plugin: str = ""
    feature: str = ""
    encodes: bool = True
    dial: Callable[[float], Mapping[str, object]] = _quality

    @property
    def identity(self) -> str:
        """Versions and options."""
        plugin = f"{self.plugin} {version(self.plugin)}" if self.plugin else ""
        library = f"{self.feature} {features.version(self.feature)}" if self.feature else ""
        parts = (f"Pillow {version('pillow')}", plugin, library, *_coders(self.format), self.format)
        return ", ".join(part for part in (*parts, repr(dict(self.options))) if part)

    def encode(self, source: Source, setting: float) -> bytes:
        """A file of the format."""
        _register(self.plugin)
        buffer = BytesIO()
        Image.fromarray(source.pixels).save(buffer, self.format, **self.dial(setting), **self.options)
        return buffer.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """Pixels by Pillow."""
        _register(self.plugin)
        with Image.open(BytesIO(data), formats=[self.format]) as image:
            return np.asarray(image.convert("RGB"))


def _coders(format: str) -> list[str]:
    """What a library that is itself a wrapper codes with, where it tells."""
    if format == "AVIF":
        return [str(import_module("PIL._avif").codec_versions())]
    if format == "HEIF":
        told = import_module("pillow_heif").libheif_info()
        return [f"libheif {told['libheif']}", told["encoders"]["x265"], told["decoders"]["libde265"]]
    return []


@cache
def _register(plugin: str) -> None:
    """Make Pillow know a plugin's format; one thread, in Pillow's own formats too."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if plugin == "pillow-heif":
        import_module("pillow_heif").register_heif_opener(decode_threads=1)
    elif plugin == "pillow-jxl-plugin":
        vars(import_module("pillow_jxl.JpegXLImagePlugin"))["DECODE_THREADS"] = 0


@dataclass(frozen=True)
class VvcStreams:
    """VVC pictures coded before: raw streams `NAME_qpQP.266`, one frame each.

    BT.709, limited range, 10 bits, 4:2:0. FFmpeg's decoder, by PyAV. Chroma is centred between its four
    samples of luma and upsampled bicubically.
    """

    folder: Path
    name: str = "vvc"
    suffix: str = ".266"
    encodes: bool = False
    plugin: str = "av"

    @property
    def settings(self) -> tuple[float, ...]:
        """The QPs that there are streams of, from the coarsest on."""
        qps = {int(m[1]) for p in self.folder.glob("*_qp*.266") if (m := re.search(r"_qp(\d+)$", p.stem))}
        if not qps:
            raise PlicError(f"{self.folder} has no streams NAME_qpQP.266")
        return tuple(sorted(qps, reverse=True))

    @property
    def identity(self) -> str:
        """Decoder, and the streams by name and size."""
        streams = [(p.name, p.stat().st_size) for p in sorted(self.folder.glob("*.266"))]
        return f"PyAV {version('av')}, streams {hashlib.sha256(repr(streams).encode()).hexdigest()}"

    def encode(self, source: Source, setting: float) -> bytes:
        """The stream of a picture."""
        path = self.folder / f"{source.name}_qp{setting:g}.266"
        if not path.is_file():
            raise PlicError(f"there is no stream {path}")
        return path.read_bytes()

    def decode(self, data: bytes) -> Pixels:
        """Pixels of the first frame."""
        return _decode_video(data, "vvc", "yuv420p10le")


@dataclass(frozen=True)
class Video:
    """A picture as a stream of one intra frame: BT.709, limited range, 10 bits, 4:4:4, by FFmpeg's codecs in PyAV.

    format: FFmpeg's name of the raw stream. options: of the encoder beside the preset `slow` and the rate factor, which
    falls from 51 at setting 0 to 0 at setting 100.
    """

    name: str
    library: str
    format: str
    suffix: str
    settings: tuple[float, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    encodes: bool = True
    plugin: str = "av"

    @property
    def identity(self) -> str:
        """Version and options."""
        return f"PyAV {version('av')}, {self.library}, preset slow, yuv444p10le, {dict(self.options)}"

    def encode(self, source: Source, setting: float) -> bytes:
        """A raw stream, without messages such as the encoder's version."""
        from av import CodecContext, FFmpegError, VideoCodecContext, VideoFrame

        height, width = source.pixels.shape[:2]
        context = CodecContext.create(self.library, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = width, height, "yuv444p10le"
        context.time_base, context.thread_count = Fraction(1, 25), 1
        context.options = {"preset": "slow", "crf": f"{51 - 0.51 * setting:g}", **self.options}
        frame = VideoFrame(width, height, "yuv444p10le")
        for plane, samples in zip(frame.planes, video_of_rgb(source.pixels), strict=True):
            rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
            rows[:, :width] = samples
            plane.update(rows.tobytes())
        try:
            data = b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
        except FFmpegError as error:
            raise PlicError(f"{self.library} cannot encode {width}x{height}: {error.strerror}") from None
        messages = rb"\x00?\x00\x00\x01\x06.*?(?=\x00\x00\x00?\x01|\Z)" if self.format == "h264" else rb"(?!)"
        return re.sub(messages, b"", data, flags=re.DOTALL)

    def decode(self, data: bytes) -> Pixels:
        """Pixels of the frame."""
        return _decode_video(data, self.format, "yuv444p10le")


def _decode_video(data: bytes, format: str, pixel_format: str) -> Pixels:
    """Pixels of the first frame of a raw stream."""
    import av

    with av.open(BytesIO(data), "r", format=format) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frame: VideoFrame = next(container.decode(video=0))
    if frame.format.name != pixel_format:
        raise PlicError(f"the stream holds {frame.format.name}, not {pixel_format}")
    planes = [_plane(plane) for plane in frame.planes]
    return rgb_of_video(planes[0], planes[1], planes[2])


_LOSSY = (5, 10, 20, 30, 45, 60, 75, 85, 92, 97)
_ONE_THREAD = {"x265-params": "pools=none:frame-threads=1:info=0:log-level=error"}

OTHER_CODECS: tuple[Pillow | Video, ...] = (
    Pillow("jpeg", "JPEG", ".jpg", _LOSSY, {"optimize": True}, feature="libjpeg_turbo"),
    Pillow("jpeg-444", "JPEG", ".jpg", _LOSSY, {"optimize": True, "subsampling": 0}, feature="libjpeg_turbo"),
    Pillow("jpeg2000", "JPEG2000", ".j2k", _LOSSY, {"irreversible": True, "mct": 1, "no_jp2": True},
           feature="jpg_2000", dial=_decibels),
    Pillow("webp", "WEBP", ".webp", (0, *_LOSSY), {"method": 6}, feature="webp"),
    Pillow("heic", "HEIF", ".heic", _LOSSY, {"enc_params": {"x265:pools": "none"}}, "pillow-heif"),
    Pillow("avif", "AVIF", ".avif", _LOSSY, {"max_threads": 1}, feature="avif"),
    Pillow("avif-444", "AVIF", ".avif", _LOSSY, {"max_threads": 1, "subsampling": "4:4:4"}, feature="avif"),
    Pillow("jxl", "JXL", ".jxl", _LOSSY, {"num_threads": 0}, "pillow-jxl-plugin"),
    Video("h264", "libx264", "h264", ".264", _LOSSY),
    Video("h265", "libx265", "hevc", ".265", _LOSSY, _ONE_THREAD),
)  # fmt: skip
"""Defaults of each where nothing is said: JPEG, WebP, AVIF and HEIC in 4:2:0, JPEG XL in XYB, JPEG 2000 in 4:4:4."""

FAST_CODECS = (
    Pillow("webp-method-0", "WEBP", ".webp", _LOSSY, {"method": 0}, feature="webp"),
    Pillow("avif-speed-10", "AVIF", ".avif", _LOSSY, {"max_threads": 1, "speed": 10}, feature="avif"),
    Pillow("jxl-effort-1", "JXL", ".jxl", _LOSSY, {"num_threads": 0, "effort": 1}, "pillow-jxl-plugin"),
    Pillow("jxl-effort-3", "JXL", ".jxl", _LOSSY, {"num_threads": 0, "effort": 3}, "pillow-jxl-plugin"),
)
"""The same at their fast presets, for comparisons of time; `all` leaves them out."""


def rgb_of_video(y: NDArray[np.float32], cb: NDArray[np.float32], cr: NDArray[np.float32]) -> Pixels:
    """uint8 RGB [H, W, 3] of BT.709 limited-range 10-bit planes; chroma of any lower resolution, centred."""
    height, width = y.shape
    r, g, b = 0.2126, 0.7152, 0.0722
    luma = (y - 64) / 876
    blue, red = (
        (np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC)) - 512) / 896 for c in (cb, cr)
    )
    blue, red = 2 * (1 - b) * blue, 2 * (1 - r) * red
    rgb = np.stack([luma + red, luma - (r * red + b * blue) / g, luma + blue], 2)
    return np.clip(np.round(255 * rgb), 0, 255).astype(np.uint8)


def video_of_rgb(pixels: Pixels) -> NDArray[np.uint16]:
    """BT.709 limited-range 10-bit planes [3, H, W] of uint8 RGB [H, W, 3]; `rgb_of_video` is the inverse."""
    y, cb, cr = np.moveaxis(ycbcr(pixels) / 255, 2, 0)
    return np.round([64 + 876 * y, 512 + 896 * cb, 512 + 896 * cr]).astype(np.uint16)


def _plane(plane: VideoPlane) -> NDArray[np.float32]:
    rows = np.frombuffer(bytes(plane), np.uint16).reshape(plane.height, plane.line_size // 2)
    return rows[:, : plane.width].astype(np.float32)


def parse_codecs(
    names: str,
    qualities: str,
    efforts: str,
    rule: Rule,
    model: Path | None,
    vvc: Path | None,
    tunes: str | None = None,
) -> list[ImageCodec]:
    """The codecs that a command line names; `pocketlic` is one for each effort and set of weights.

    tunes: what weights are tuned for, separated by commas, the rule's default if None; `model` goes before it.
    PlicError for a name, a quality, an effort or a tuning that does not exist, ModelError for weights.
    """
    try:
        settings = tuple(dict.fromkeys(float(q) for q in qualities.split(",")))
    except ValueError:
        raise PlicError(f"qualities are numbers separated by commas, not {qualities!r}") from None
    if not all(0 <= q <= 100 for q in settings):
        raise PlicError(f"qualities go from 0 to 100, unlike {qualities!r}")
    levels = dict.fromkeys(efforts.split(","))
    if not all(re.fullmatch("[0-9]", level) for level in levels):
        raise PlicError(f"efforts are whole numbers from 0 to 9, separated by commas, not {efforts!r}")
    kinds = dict.fromkeys((tunes or default_tune(rule)).split(","))
    if unknown_kinds := set(kinds) - set(get_args(Tune)):
        raise PlicError(f"weights are tuned for {' or '.join(get_args(Tune))}, not {min(unknown_kinds)!r}")
    sets: list[tuple[tuple[float, Path], ...]] = [((0.0, model),)] if model is not None else []
    if not sets:
        sets = [tuple((w.quality, w.path) for w in shipped(rule, cast(Tune, tune))) for tune in kinds]
    ours = [Pocketlic(models, settings, int(level)) for models in sets for level in levels]
    codecs: list[ImageCodec] = [*ours, *OTHER_CODECS]
    if vvc is not None:
        codecs.append(VvcStreams(vvc))
    known = {codec.name: codec for codec in (*codecs, *FAST_CODECS)}
    wanted = [codec.name for codec in codecs] if names == "all" else names.split(",")
    if "pocketlic" in wanted:
        at = wanted.index("pocketlic")
        wanted[at : at + 1] = [codec.name for codec in ours]
    if vvc is not None and "vvc" not in wanted:
        wanted.append("vvc")
    unknown = [n for n in wanted if n not in known]
    if unknown:
        needs = ": name the folder of its streams with --vvc" if unknown[0] == "vvc" else ""
        raise PlicError(f"there is no codec {unknown[0]!r}{needs or '; there are ' + ', '.join(known)}")
    for name in wanted:
        _require(getattr(known[name], "plugin", ""))
    return [known[n] for n in dict.fromkeys(wanted)]


def _require(plugin: str) -> None:
    if plugin:
        try:
            version(plugin)
            _register(plugin)
        except ImportError:  # PackageNotFoundError is one
            raise PlicError(f"this needs the package {plugin}: {install_command('profile')}") from None
