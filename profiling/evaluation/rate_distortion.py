"""Rate-distortion evaluation: codecs over a folder of pictures, real files, curves and BD-rates.

A *record* is one picture coded by one codec at one setting. Records are made in worker processes and kept in
the output folder as soon as they exist, so a run that was interrupted goes on where it was, and a run that
wants more metrics decodes the files it has. A *curve* is a list of points of rate and metric: of one picture,
or of the means over all pictures at each setting.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from bjontegaard import bd_rate as bjontegaard_rate
from rich.console import Console

from ...codec.errors import PlicError
from ...codec.figures import bits_per_pixel
from ...codec.files import parse_json, write_atomic
from ...console import printable, table_console
from ..console import progress
from ..text import picture_name
from .codecs import (
    OTHER_CODECS,
    ImageCodec,
    Pocketlic,
    Source,
    entropy_met,
    read_source,
    require_pictures,
)
from .metrics import JPEG_AI, METRICS, measure

T = TypeVar("T")

Curve = Sequence[tuple[float, float]]
"""(bits per pixel, metric), rate ascending."""

PUBLISHED: dict[str, Curve] = {
    "VTM": ((0.048, 26.14), (0.112, 28.49), (0.246, 31.20), (0.491, 34.26), (0.875, 37.42), (1.431, 40.42)),
    "HM": ((0.051, 25.41), (0.121, 27.75), (0.267, 30.45), (0.530, 33.50), (0.950, 36.78), (1.560, 39.99)),
    "AV1": (
        (0.056, 25.56), (0.110, 27.56), (0.170, 29.02), (0.246, 30.44), (0.352, 31.99),
        (0.499, 33.65), (0.683, 35.32), (0.909, 36.99), (1.167, 38.56), (1.415, 39.81),
    ),
    "mbt2018-mean": (
        (0.124, 27.70), (0.198, 29.36), (0.307, 31.13), (0.461, 32.95),
        (0.662, 34.97), (0.914, 36.91), (1.234, 38.84), (1.619, 40.63),
    ),
}  # fmt: skip
"""RGB-PSNR in dB, means over Kodak's 24 pictures: CompressAI's tables (results/image/kodak)."""

PUBLISHED_PICTURES = tuple(f"kodim{i:02}" for i in range(1, 25))
"""The pictures that the published curves are means of."""

LEAST_OVERLAP = 1 / 3
LEAST_POINTS = 4
RATE_TOLERANCE = 0.02


class CurveError(PlicError):
    """Two curves cannot be compared; the message is one line."""


@dataclass(frozen=True)
class BdRate:
    """How much more rate than an anchor, in percent at equal metric; negative is better.

    overlap: the part of the anchor's range of the metric that the tested curve covers too, 0 to 1.
    low, high: that part, in units of the metric.
    """

    percent: float
    overlap: float
    low: float
    high: float


def pareto(curve: Curve) -> Curve:
    """The points of a curve that no point of less or equal rate equals or beats, by ascending rate."""
    front: list[tuple[float, float]] = []
    for rate, value in sorted(curve, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((rate, value))
    return front


def bd_rate(anchor: Curve, test: Curve) -> BdRate:
    """Bjøntegaard's mean difference of log rate (VCEG-M33), curves interpolated by PCHIP.

    Points that another of the same curve beats are left out. CurveError when a curve has less than 4 points
    or the test covers less than a third of the anchor's range of the metric: a mean over so little says
    nothing.
    """
    curves = [np.array(pareto(curve)) for curve in (anchor, test)]
    for name, points in zip(("anchor", "tested"), curves, strict=True):
        if len(points) < LEAST_POINTS:
            raise CurveError(f"the {name} curve has {len(points)} ascending points; {LEAST_POINTS} are needed")
        if points[0, 0] <= 0:
            raise CurveError(f"the {name} curve has a point without rate")
    (anchor_rate, anchor_value), (test_rate, test_value) = (points.T for points in curves)
    low, high = max(anchor_value[0], test_value[0]), min(anchor_value[-1], test_value[-1])
    overlap = float(max(high - low, 0) / (anchor_value[-1] - anchor_value[0]))
    if overlap < LEAST_OVERLAP:
        raise CurveError(
            f"the curve from {test_value[0]:.4g} to {test_value[-1]:.4g} covers {overlap:.0%} of "
            f"the anchor's, {anchor_value[0]:.4g} to {anchor_value[-1]:.4g}; {LEAST_OVERLAP:.0%} is the least"
        )
    percent = bjontegaard_rate(
        anchor_rate, anchor_value, test_rate, test_value,
        method="pchip", require_matching_points=False, min_overlap=0,
    )  # fmt: skip
    return BdRate(float(percent), overlap, float(low), float(high))


@dataclass
class Record:
    """One picture coded by one codec at one setting.

    file: path of the coded file, relative to the output folder. bpp: bits of the file per pixel. encode_ms,
    decode_ms: on one thread, the fastest of a few runs; encode_ms is absent where the file was given. Ours
    only: entropy_bits, what the tables predict; and where it was compared with the NumPy reference,
    whether that wrote the same file and how many samples it decoded otherwise.
    """

    codec: str
    picture: str
    setting: float
    file: str
    bytes: int
    bpp: float
    encode_ms: float | None
    decode_ms: float
    metrics: dict[str, float] = field(default_factory=dict)
    entropy_bits: float | None = None
    reference_file_equal: bool | None = None
    reference_samples_differing: int | None = None


@dataclass(frozen=True)
class Job:
    """What a worker needs to make or complete a record."""

    codec: ImageCodec
    path: Path
    setting: float
    out: Path
    key: str
    metrics: tuple[str, ...]
    check_reference: bool

    @property
    def record_path(self) -> Path:
        return self.out / "records" / f"{self.key}.json"


@dataclass(frozen=True)
class Mean:
    """A point of a codec's mean curve: means over all pictures at one setting."""

    setting: float
    bpp: float
    encode_ms: float | None
    decode_ms: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """The BD-rate of a codec against an anchor, or why there is none.

    anchor: a codec of the run, or the name of a published curve. per_picture_mean: of the BD-rates of single
    pictures, over the `pictures` that have one; absent for published curves, which are means.
    """

    codec: str
    anchor: str
    metric: str
    result: BdRate | None
    refusal: str = ""
    per_picture_mean: float | None = None
    pictures: int = 0


@dataclass(frozen=True)
class Evaluation:
    """All of a run. codecs: name -> identity. published_comparable: whether the pictures are Kodak's 24."""

    pictures: tuple[str, ...]
    codecs: dict[str, str]
    metrics: tuple[str, ...]
    published_comparable: bool
    records: list[Record]
    means: dict[str, list[Mean]]
    comparisons: list[Comparison]

    @property
    def compared(self) -> list[Record]:
        """The records that were compared with the NumPy reference."""
        return [r for r in self.records if r.reference_file_equal is not None]

    @property
    def unequal(self) -> list[Record]:
        """Verified records in which LiteRT and the reference differ."""
        return [r for r in self.compared if not r.reference_file_equal or r.reference_samples_differing]

    @property
    def judged(self) -> list[Record]:
        """The records whose files can be compared with their estimated entropy."""
        return [r for r in self.records if r.entropy_bits is not None]

    @property
    def off_entropy(self) -> list[Record]:
        """Records whose file is too far from its estimated entropy."""
        return [r for r in self.judged if r.entropy_bits is not None and not entropy_met(r.bytes, r.entropy_bits)]

    def jpeg_ai_mean(self, codec: str) -> tuple[float, int] | None:
        """BD-rate in percent over JPEG AI's seven metrics, and the least of pictures behind one; or None.

        As JPEG AI does it: the mean over pictures first, then over metrics.
        """
        means = [(c.per_picture_mean, c.pictures) for c in self.comparisons if c.codec == codec and c.metric in JPEG_AI]
        percents = [percent for percent, _ in means if percent is not None]
        if len(percents) < len(JPEG_AI):
            return None
        return float(np.mean(percents)), min(pictures for _, pictures in means)

    def to_json(self) -> dict[str, object]:
        """What evaluation.json has."""
        return {
            **asdict(self),
            "verified": len(self.compared),
            "unequal": len(self.unequal),
            "judged": len(self.judged),
            "off_entropy": len(self.off_entropy),
            "jpeg_ai_mean_percent": {codec: self.jpeg_ai_mean(codec) for codec in self.codecs},
            "published": PUBLISHED,
        }


def evaluate(
    folder: Path,
    codecs: Sequence[ImageCodec],
    out: Path,
    metrics: Sequence[str] = ("rgb_psnr", "yuv_psnr"),
    *,
    jobs: int = 1,
    check_reference: bool = False,
    anchor: str | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Code all pictures of a folder with all codecs at all settings, in `jobs` processes of one thread.

    Files and records stay in `out`. BD-rates are taken against the codec named `anchor`, or VVC or JPEG if there, in
    every metric; over Kodak's 24 pictures also against the published curves in RGB-PSNR. `check_reference` repeats
    ours with the NumPy reference. Raises PlicError when a picture cannot be read or coded, or `out` not be
    written.
    """
    unknown = [m for m in metrics if m not in METRICS]
    if unknown:
        raise PlicError(f"there is no metric {unknown[0]}; there are {', '.join(METRICS)}")
    names = [codec.name for codec in codecs]
    if anchor is not None and anchor not in names:
        raise PlicError(f"the anchor {anchor} is not among the codecs {', '.join(names)}")
    anchor = anchor or next((name for name in ("vvc", "jpeg") if name in names), None)
    paths = require_pictures(folder)
    try:
        (out / "records").mkdir(parents=True, exist_ok=True)
        for codec in codecs:
            (out / "files" / codec.name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlicError(f"cannot write {out}: {error.strerror}") from None
    todo = [
        Job(codec, path, setting, out, _key(codec, path, setting), tuple(metrics), check_reference)
        for path in paths
        for codec in codecs
        for setting in codec.settings
    ]
    records = _records(todo, jobs, console or table_console(stderr=True))
    means = {name: _means([r for r in records if r.codec == name], metrics) for name in names}
    pictures = tuple(picture_name(path) for path in paths)
    comparable = pictures == PUBLISHED_PICTURES
    comparisons: list[Comparison] = []
    for name in names:
        if comparable and "rgb_psnr" in metrics:
            curve = _mean_curve(means[name], "rgb_psnr")
            comparisons += [_comparison(name, to, "rgb_psnr", published, curve) for to, published in PUBLISHED.items()]
        if anchor is not None and anchor != name:
            comparisons += [_against(name, anchor, metric, records, means) for metric in metrics]
    identities = {codec.name: codec.identity for codec in codecs}
    return Evaluation(pictures, identities, tuple(metrics), comparable, records, means, comparisons)


def with_an_anchor(codecs: Sequence[ImageCodec], folder: Path) -> list[ImageCodec]:
    """The codecs, and JPEG where nothing else could be an anchor: no VVC, no published curve of these pictures."""
    names = {codec.name for codec in codecs}
    published = tuple(picture_name(path) for path in require_pictures(folder)) == PUBLISHED_PICTURES
    jpeg = [codec for codec in OTHER_CODECS if codec.name == "jpeg"]
    return [*codecs, *([] if published or names & {"jpeg", "vvc"} else jpeg)]


@lru_cache(maxsize=2)
def _source(path: Path) -> Source:
    return read_source(path)


@cache
def _picture_hash(path: Path) -> str:
    pixels = _source(path).pixels
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _key(codec: ImageCodec, path: Path, setting: float) -> str:
    """Name of a record: whatever its file and pixels depend on."""
    parts = (codec.name, codec.identity, picture_name(path), _picture_hash(path), f"{setting:g}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@cache
def _metrics_version() -> str:
    from ...models import metric_tables
    from . import metrics

    libraries = [version(name) for name in metrics.LIBRARIES]
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in (metrics, metric_tables))
    return hashlib.sha256(sources + repr(libraries).encode()).hexdigest()[:16]


def _load(job: Job) -> Record | None:
    """The record so far, without metrics of another version; None when there is none, or no file."""
    try:
        stored = parse_json(job.record_path.read_bytes())
        record = Record(**stored["record"])
        if stored["metrics_version"] != _metrics_version():
            record.metrics.clear()
        return record if (job.out / record.file).is_file() else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # absent, or of an interrupted or older run: made anew


def _complete(job: Job, record: Record) -> bool:
    checked = not (job.check_reference and isinstance(job.codec, Pocketlic)) or record.reference_file_equal is not None
    return checked and all(m in record.metrics for m in job.metrics)


def work(job: Job) -> Record:
    """Make or complete a record and store it. PlicError that names picture, codec and setting on failure."""
    try:
        return _work(job)
    except (PlicError, OSError, ValueError, RuntimeError) as error:
        where = f"{printable(job.path.name)} with {job.codec.name} at {job.setting:g}"
        raise PlicError(f"{where}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _work(job: Job) -> Record:
    source, codec = _source(job.path), job.codec
    record = _load(job)
    if record is not None and _complete(job, record):
        return record
    if record is None:
        data, encode_ms = _timed(lambda: codec.encode(source, job.setting))
        decoded, decode_ms = _timed(lambda: codec.decode(data))
        file = f"files/{codec.name}/{source.name[:60]}-{job.setting:g}-{job.key[:8]}{codec.suffix}"
        write_atomic(job.out / file, data)
        height, width = source.pixels.shape[:2]
        record = Record(
            codec.name, source.name, job.setting, file, len(data), bits_per_pixel(len(data), height, width),
            encode_ms if codec.encodes else None, decode_ms,
        )  # fmt: skip
        if isinstance(codec, Pocketlic):
            record.entropy_bits = codec.entropy_bits(data)
    else:
        data = (job.out / record.file).read_bytes()
        decoded = codec.decode(data)
    if decoded.shape != source.pixels.shape:
        raise PlicError(f"decoded {decoded.shape} from {source.pixels.shape}")
    if job.check_reference and isinstance(codec, Pocketlic) and record.reference_file_equal is None:
        expected_data, expected = codec.reference(source, job.setting)
        record.reference_file_equal = expected_data == data
        record.reference_samples_differing = int((expected != decoded).sum())
    missing = tuple(name for name in job.metrics if name not in record.metrics)
    record.metrics |= measure(missing, source.pixels, decoded)
    stored = {"metrics_version": _metrics_version(), "record": asdict(record)}
    write_atomic(job.record_path, json.dumps(stored).encode())
    return record


_REPEATS, _REPEAT_BELOW_MS = 3, 400.0


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """The result and the milliseconds of the fastest run: other processes can only make one slower."""
    times: list[float] = []
    while True:
        start = time.perf_counter()
        result = call()
        times.append(1e3 * (time.perf_counter() - start))
        if len(times) == _REPEATS or times[-1] > _REPEAT_BELOW_MS:
            return result, min(times)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile use one thread each in BLAS, OpenMP and torch."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _records(todo: Sequence[Job], jobs: int, console: Console) -> list[Record]:
    """The records in the order of the jobs; those at hand are taken, the others made."""
    records = {job.key: record for job in todo if (record := _load(job)) is not None and _complete(job, record)}
    missing = [job for job in todo if job.key not in records]
    done = len(todo) - len(missing)
    made = _in_processes(work, missing, jobs, console, "evaluating", done)
    records |= {job.key: record for job, record in zip(missing, made, strict=True)}
    return [records[job.key] for job in todo]


def _in_processes(
    function: Callable[[T], Record], items: Sequence[T], jobs: int, console: Console, what: str, done: int = 0
) -> list[Record]:
    """The function of each item, in order, by spawned processes; `done` says how many more were at hand."""
    results: dict[int, Record] = {}
    with progress(console, what, done + len(items), done) as advance:
        if not items:
            return []
        waiting = iter(enumerate(items))
        with _one_thread_each(), ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            # A few at a time, so that an interrupt or an error ends the run at once.
            running = {pool.submit(function, item): i for i, item in islice(waiting, 2 * jobs)}
            try:
                while running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        results[running.pop(future)] = future.result()
                        advance()
                        running |= {pool.submit(function, item): i for i, item in islice(waiting, 1)}
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return [results[i] for i in range(len(items))]


@dataclass(frozen=True)
class RateSearch:
    """What a worker needs to find the setting that comes closest to a rate in bits per pixel."""

    codec: ImageCodec
    path: Path
    bpp: float
    out: Path


def search(task: RateSearch) -> Record:
    """The record of the whole-numbered setting that comes closest to a rate."""

    def at(setting: float) -> Record:
        key = _key(task.codec, task.path, setting)
        return work(Job(task.codec, task.path, setting, task.out, key, ("rgb_psnr",), check_reference=False))

    tried = [at(setting) for setting in task.codec.settings]
    below = [r.setting for r in tried if r.bpp <= task.bpp]
    above = [r.setting for r in tried if r.bpp > task.bpp]
    if task.codec.encodes and below and above:
        low, high = max(below), min(above)
        while high - low > 1 and all(abs(r.bpp / task.bpp - 1) > RATE_TOLERANCE for r in tried):
            tried.append(at(round((low + high) / 2)))
            low, high = (tried[-1].setting, high) if tried[-1].bpp <= task.bpp else (low, tried[-1].setting)
    return min(tried, key=lambda r: abs(np.log(r.bpp / task.bpp)))


def at_rates(
    paths: Sequence[Path],
    codecs: Sequence[ImageCodec],
    rates: Sequence[float],
    out: Path,
    *,
    jobs: int = 1,
    console: Console | None = None,
) -> dict[tuple[str, str, float], Record]:
    """(codec, picture, bpp) -> the record that comes closest to that rate. Errors as `evaluate`."""
    tasks = [RateSearch(codec, path, bpp, out) for path in paths for bpp in rates for codec in codecs]
    found = _in_processes(search, tasks, jobs, console or table_console(stderr=True), "matching rates")
    return {(t.codec.name, picture_name(t.path), t.bpp): record for t, record in zip(tasks, found, strict=True)}


def _means(records: Sequence[Record], metrics: Sequence[str]) -> list[Mean]:
    """The mean curve of one codec, by setting."""
    means = []
    for setting in dict.fromkeys(r.setting for r in records):
        group = [r for r in records if r.setting == setting]
        encode = [r.encode_ms for r in group if r.encode_ms is not None]
        means.append(
            Mean(
                setting,
                float(np.mean([r.bpp for r in group])),
                float(np.mean(encode)) if encode else None,
                float(np.mean([r.decode_ms for r in group])),
                {m: float(np.mean([r.metrics[m] for r in group])) for m in metrics},
            )
        )
    return means


def _mean_curve(means: Sequence[Mean], metric: str) -> Curve:
    return [(m.bpp, m.metrics[metric]) for m in means]


def _against(
    codec: str, anchor: str, metric: str, records: Sequence[Record], means: Mapping[str, Sequence[Mean]]
) -> Comparison:
    """BD-rate of the mean curves, and the mean of the pictures' own."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for r in records:
        points.setdefault((r.codec, r.picture), []).append((r.bpp, r.metrics[metric]))
    single = []
    for name, picture in points:
        if name == codec:
            try:
                single.append(bd_rate(points[anchor, picture], points[codec, picture]).percent)
            except CurveError:
                continue  # `pictures` tells how many there are
    overall = _comparison(codec, anchor, metric, _mean_curve(means[anchor], metric), _mean_curve(means[codec], metric))
    return replace(overall, per_picture_mean=float(np.mean(single)) if single else None, pictures=len(single))


def _comparison(codec: str, anchor: str, metric: str, anchor_curve: Curve, curve: Curve) -> Comparison:
    try:
        return Comparison(codec, anchor, metric, bd_rate(anchor_curve, curve))
    except CurveError as error:
        return Comparison(codec, anchor, metric, None, str(error))
