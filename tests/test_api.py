"""`pocketlic.encode` and `pocketlic.decode`: what the package's docstring promises."""

import doctest
import mmap
import multiprocessing
import subprocess
import sys
from array import array
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import pocketlic
from pocketlic.codec import format as plic
from pocketlic.codec._native import NativeDecoder
from pocketlic.quantization.shipped import MODELS


def test_the_example_in_the_docstring_is_true():
    assert doctest.testmod(pocketlic).attempted > 0
    assert doctest.testmod(pocketlic).failed == 0


@pytest.mark.parametrize("weights", MODELS, ids=lambda weights: weights.name)
def test_decoding_finds_the_model_and_runtimes_agree(weights, picture):
    pixels, quality = picture(40, 50), weights.quality + 20
    kind = {"rule": weights.rule, "tune": weights.tune, "icc": b"profile", "exif": b"MM*\0"}
    data = pocketlic.encode(pixels, quality, **kind)
    for runtime in ("litert", "reference"):
        assert pocketlic.encode(pixels, quality, runtime=runtime, **kind) == data
    assert (plic.read(data).icc, plic.read(data).exif) == (b"profile", b"MM*\0")
    assert data[6:14].hex() == weights.load().model_id[:16]
    decoded = pocketlic.decode(data)
    for runtime in ("litert", "reference"):
        np.testing.assert_array_equal(decoded, pocketlic.decode(data, runtime=runtime))
    assert np.abs(decoded.astype(int) - pixels).mean() < 30


def test_each_model_is_of_its_rule_and_tuning():
    assert len({weights.load().model_id for weights in MODELS}) == len(MODELS)
    for weights in MODELS:
        model = weights.load()
        assert model.model_id.startswith(weights.short_id)
        assert (model.rule, model.notes.get("tune", "psnr")) == (weights.rule, weights.tune)
    assert {weights.name for weights in MODELS} == {
        path.stem.removeprefix("pocketlic-") for path in MODELS[0].path.parent.glob("*.safetensors")
    } - {"float"}
    with pytest.raises(pocketlic.ModelError, match="no weights of rule strict that are tuned for visual"):
        pocketlic.encode(np.zeros((4, 4, 3), np.uint8), profile="strict", tune="visual")


def test_decoding_loads_nothing_that_it_does_not_need(picture):
    program = """
import sys, pocketlic
pixels = pocketlic.decode(sys.stdin.buffer.read())
print(len(pixels), *sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""
    others = ["ai_edge_litert", "flatbuffers", "safetensors", "PIL", "typer", "rich", "torch"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *others], input=pocketlic.encode(picture(70, 50)), capture_output=True
    )
    assert done.stdout.split() == [b"70"], done.stderr


@pytest.mark.parametrize("runtime", ["native", "litert", "reference"])
def test_limits_on_memory_hold_in_every_runtime(picture, runtime):
    pixels = picture(1100, 300)
    data = pocketlic.encode(pixels)
    with pytest.raises(pocketlic.PlicError, match="memory"):
        pocketlic.encode(pixels, runtime=runtime, max_memory=100_000)
    with pytest.raises(pocketlic.PlicError, match="memory"):
        pocketlic.decode(data, runtime=runtime, max_memory=100_000)
    if runtime != "reference":
        assert pocketlic.encode(pixels, runtime=runtime, max_memory=1 << 27, threads=3) == data
        decoded = pocketlic.decode(data, runtime=runtime, max_memory=1 << 27, threads=3)
        np.testing.assert_array_equal(decoded, pocketlic.decode(data))
    for wrong in ({"max_memory": -1}, {"threads": -1}, {"threads": "2"}):
        with pytest.raises(pocketlic.PlicError, match="is no number"):
            pocketlic.decode(data, runtime=runtime, **wrong)


def test_what_a_runner_raises_is_raised(picture):
    def fail(name, inputs):
        raise KeyError(name)

    native = NativeDecoder(MODELS[0].read(), runner=fail)
    with pytest.raises(KeyError, match="analysis"):
        native.encode(picture(64, 64), 5000)
    data = NativeDecoder(MODELS[0].read()).encode(picture(64, 64), 5000)
    with pytest.raises(KeyError, match="hyper_synthesis"):
        native.decode(data)
    wrong = NativeDecoder(MODELS[0].read(), runner=lambda name, inputs: [np.zeros((1, 1, 1), np.int8)] * 3)
    with pytest.raises(ValueError, match="of a wrong shape"):
        wrong.decode(data)


def test_errors_are_of_the_documented_kinds(picture):
    with pytest.raises(pocketlic.PlicError, match="a picture is uint8"):
        pocketlic.encode(np.zeros((4, 4, 3)))
    with pytest.raises(pocketlic.PlicError, match="quality 101"):
        pocketlic.encode(picture(4, 4), 101)
    data = pocketlic.encode(picture(64, 64))
    with pytest.raises(pocketlic.FormatError, match="limit of 100"):
        pocketlic.decode(data, max_pixels=100)
    with pytest.raises(pocketlic.FormatError, match="empty"):
        pocketlic.decode(b"")
    file = plic.read(data)
    other = plic.PlicFile(plic.Header(64, 64, False, 6000, b"stranger"), file.bands)
    with pytest.raises(pocketlic.FormatError, match="needs model 737472616e676572, which this version"):
        pocketlic.decode(plic.write(other))
    assert issubclass(pocketlic.FormatError, pocketlic.PlicError)


def model_of(data):
    return next(w.name for w in MODELS if bytes.fromhex(w.load().model_id).startswith(plic.read_header(data).model_id))


def test_each_quality_has_its_model(picture):
    pixels = picture(64, 64)
    names = [model_of(pocketlic.encode(pixels, quality)) for quality in (0, 34.99, 35, 64.99, 65, 100)]
    assert names == ["cpu-low", "cpu-low", "cpu", "cpu", "cpu-high", "cpu-high"]
    names = [model_of(pocketlic.encode(pixels, quality, tune="psnr")) for quality in (0, 34.99, 35, 64.99, 65, 100)]
    assert names == ["cpu-psnr-low", "cpu-psnr-low", "cpu-psnr", "cpu-psnr", "cpu-psnr-high", "cpu-psnr-high"]


def test_sizes_about_where_the_model_changes(picture):
    """Also sizes between the files of two models: then a model is used beyond its part of the qualities."""
    pixels = picture(128, 128)
    below, above = (len(pocketlic.encode(pixels, quality)) for quality in (34.99, 35))
    for size in range(min(below, above) - 40, max(below, above) + 40, 20):
        assert 8 * len(pocketlic.encode(pixels, bpp=8 * size / 128**2)) / 128**2 == pytest.approx(
            8 * size / 128**2, rel=0.01
        )
        data = pocketlic.encode(pixels, max_bytes=size)
        assert 0.98 * size <= len(data) <= size
        assert model_of(data) == ("cpu" if size >= above else "cpu-low")


def test_a_size_instead_of_a_quality(picture):
    pixels = picture(64, 96, grey=True)
    data = pocketlic.encode(pixels, bpp=1.0, exif=b"MM*\0")
    assert 8 * len(data) / (64 * 96) == pytest.approx(1.0, rel=0.01)
    assert pocketlic.decode(data).shape == (64, 96)
    assert 990 <= len(pocketlic.encode(pixels, max_bytes=1000, effort=2, tune="psnr")) <= 1000
    assert pocketlic.encode(pixels) == pocketlic.encode(pixels, 60)
    with pytest.raises(pocketlic.PlicError, match="choose one"):
        pocketlic.encode(pixels, 60, max_bytes=1000)
    with pytest.raises(pocketlic.PlicError, match="a picture is uint8"):
        pocketlic.encode(np.zeros(4, np.uint8), bpp=1)


def test_threads_may_share_it(picture):
    """Pictures of different sizes resize the interpreters: no other thread may use them meanwhile."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    pictures = [picture(64 * (1 + i % 3), 64 * (1 + i % 2), i) for i in range(6)]

    def work(i):
        data = pocketlic.encode(pictures[i], 10 + 15 * i)
        return data, pocketlic.decode(data)

    expected = [work(i) for i in range(6)]
    try:
        with ThreadPoolExecutor(6) as pool:
            for (data, pixels), (right, wanted) in zip(pool.map(work, [*range(6)] * 6), expected * 6, strict=True):
                assert data == right
                np.testing.assert_array_equal(pixels, wanted)
    finally:
        sys.setswitchinterval(interval)


def test_neither_encoding_nor_decoding_needs_torch(tmp_path):
    script = (
        "import sys; sys.modules['torch'] = None; import numpy as np, pocketlic\n"
        "pocketlic.decode(pocketlic.encode(np.zeros((3, 5, 3), np.uint8)))\n"
        "pocketlic.encode(np.zeros((3, 5, 3), np.uint8), effort=2, tune='psnr')\n"
        "import pocketlic.cli"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def forms_of(pixels):
    """The same pixels in whatever numpy.asarray takes, and as PIL pictures."""
    yield np.asfortranarray(pixels)
    yield np.repeat(pixels, 2, 1)[:, ::2]
    yield pixels[::-1, ::-1][::-1, ::-1]
    yield memoryview(pixels)
    yield SimpleNamespace(__array_interface__=pixels.__array_interface__, keep=pixels)
    yield Image.fromarray(pixels)
    if pixels.ndim == 2:
        yield pixels[:, :, None]


@pytest.mark.parametrize("grey", [False, True])
def test_pictures_come_in_many_forms(picture, grey):
    pixels = picture(40, 50, grey=grey)
    wanted = pocketlic.encode(pixels)
    for form in forms_of(pixels):
        assert pocketlic.encode(form) == wanted, type(form)
    torch = pytest.importorskip("torch")
    assert pocketlic.encode(torch.from_numpy(pixels.copy())) == wanted


def test_pil_pictures_of_few_colours(picture):
    black = Image.fromarray(picture(40, 50, grey=True)).convert("1")
    assert pocketlic.encode(black) == pocketlic.encode(np.asarray(black.convert("L")))
    palette = Image.fromarray(picture(40, 50)).quantize(16)
    assert pocketlic.encode(palette) == pocketlic.encode(np.asarray(palette.convert("RGB")))
    for mode in ("RGBA", "LA", "CMYK", "I;16", "F", "YCbCr"):
        with pytest.raises(pocketlic.PlicError, match=f"mode RGB or L, not {mode}"):
            pocketlic.encode(Image.new(mode, (4, 4)))


@pytest.mark.parametrize(
    "image",
    [
        None, "picture.png", b"bytes", 3, [], [[1, 2], [3]], {}, np.zeros((4, 4, 3)), np.zeros((4, 4), np.int64),
        np.zeros((4, 4, 3), np.int8), np.zeros((4, 4, 3), bool), np.zeros((4, 4, 4), np.uint8), [[[0, 0, 0]]],
        np.zeros((4, 4, 2), np.uint8), np.zeros((1, 4, 4, 3), np.uint8), np.zeros(4, np.uint8), np.uint8(3),
        np.zeros((0, 4, 3), np.uint8), np.zeros((4, 0), np.uint8), np.array([[None]]), np.array(["a"]),
    ],
)  # fmt: skip
def test_what_is_no_picture(image):
    for size in ({}, {"bpp": 1}, {"max_bytes": 1000}):
        with pytest.raises(pocketlic.PlicError) as caught:
            pocketlic.encode(image, **size)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("choice", "listed"),
    [
        *(({"runtime": wrong}, "native, litert, reference") for wrong in ("cuda", "", None, 1, [], "LiteRT")),
        *(({"rule": wrong}, "cpu, strict") for wrong in ("gpu", "", None, 1, [], "CPU")),
        *(({"profile": wrong}, "cpu, strict") for wrong in ("gpu", 1, "CPU")),
        *(({"tune": wrong}, "psnr, visual") for wrong in ("ssim", "", 1, [], "PSNR")),
        *(({"quality": wrong}, "quality") for wrong in ("60", [60], b"", 101, -1, float("nan"), float("inf"))),
        *(({"bpp": wrong}, "bits per pixel") for wrong in ("1", [1], -1, 0, float("nan"), float("inf"))),
        *(({"max_bytes": wrong}, "size|at most") for wrong in ("1000", [1], -1, 0)),
        *(({"effort": wrong}, "effort") for wrong in ("1", -1, 10, None, 2.5)),
        *(({"icc": wrong}, "ICC profile is bytes") for wrong in ("profile", 3, None)),
        *(({"exif": wrong}, "EXIF is bytes") for wrong in ("exif", 3, None)),
    ],
    ids=str,
)
def test_choices_that_do_not_exist_are_told_with_those_that_do(choice, listed):
    with pytest.raises(pocketlic.PlicError, match=listed) as caught:
        pocketlic.encode(np.zeros((8, 8, 3), np.uint8), **choice)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["cuda", "", None, 1])
def test_runtimes_of_decoding(picture, runtime):
    with pytest.raises(pocketlic.PlicError, match="native, litert, reference"):
        pocketlic.decode(pocketlic.encode(picture(8, 8)), runtime=runtime)


def test_all_errors_are_plic_errors():
    kinds = (pocketlic.FormatError, pocketlic.ModelError)
    assert all(issubclass(kind, pocketlic.PlicError) for kind in kinds)
    for rule, tune, listed in (("gpu", None, "cpu, strict"), ("cpu", "ssim", "psnr, visual")):
        with pytest.raises(pocketlic.PlicError, match=listed):
            pocketlic.shipped_model(rule, tune)


@pytest.mark.parametrize("option", ["quality", "bpp", "max_bytes"])
def test_numbers_of_every_kind(picture, option):
    image = picture(8, 8)
    for value in (float("nan"), -1, -np.inf, -(10**400), "60", [60], 1j, np.complex64(1), np.array([60, 60])):
        with pytest.raises(pocketlic.PlicError):
            pocketlic.encode(image, **{option: value})
    number = {"quality": 50, "bpp": 12, "max_bytes": 100}[option]
    made = pocketlic.encode(image, **{option: number})
    for kind in (float, np.int8, np.uint16, np.int64, np.float16, np.float32, np.float64):
        assert pocketlic.encode(image, **{option: kind(number)}) == made
    for value in (1e300, np.inf, 10**400):
        if option == "max_bytes":
            assert pocketlic.encode(image, max_bytes=value) == pocketlic.encode(image, 100)
        else:
            with pytest.raises(pocketlic.PlicError):
                pocketlic.encode(image, **{option: value})
    assert pocketlic.encode(image, effort=np.int64(0)) == pocketlic.encode(image)


def test_what_an_array_has_no_place_for_is_refused(picture):
    """A transparent colour, masked pixels."""
    image = picture(8, 8)
    for mode, key in (("L", 0), ("RGB", (0, 0, 0)), ("P", 0), ("1", 0)):
        transparent = Image.fromarray(image).convert(mode)
        transparent.info["transparency"] = key
        with pytest.raises(pocketlic.PlicError, match="transparent"):
            pocketlic.encode(transparent)
    with pytest.raises(pocketlic.PlicError, match="masked"):
        pocketlic.encode(np.ma.array(image, mask=image > 100))
    assert pocketlic.encode(np.ma.array(image)) == pocketlic.encode(image)


@pytest.mark.parametrize("option", ["threads", "max_memory", "max_pixels"])
def test_limits_that_are_no_numbers_or_greater_than_any(picture, option):
    image = picture(8, 8)
    data = pocketlic.encode(image)
    for value in (-1, 1.5, "1", float("nan")):
        with pytest.raises(pocketlic.PlicError):
            pocketlic.decode(data, **{option: value})
    for value in (2**32, 2**63, 2**64, 10**30):
        np.testing.assert_array_equal(pocketlic.decode(data, **{option: value}), pocketlic.decode(data))
        if option != "max_pixels":
            assert pocketlic.encode(image, **{option: value}) == data


def test_files_are_any_bytes(picture, tmp_path):
    data = pocketlic.encode(picture(40, 50), icc=bytearray(b"icc"), exif=memoryview(b"MM*\0"))
    wanted = pocketlic.decode(data)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        spaced = memoryview(bytes(b for byte in data for b in (byte, 0)))[::2]
        for form in (
            bytearray(data),
            memoryview(data),
            array("B", data),
            np.frombuffer(data, np.uint8),
            mapped,
            spaced,
        ):
            np.testing.assert_array_equal(pocketlic.decode(form), wanted)
    for wrong in ("text", None, 3, [1, 2], tmp_path / "file"):
        with pytest.raises(pocketlic.PlicError, match="a file is bytes"):
            pocketlic.decode(wrong)


def encode_into(queue, pixels):
    queue.put(pocketlic.encode(pixels, effort=1))


def test_a_forked_process_may_optimise_too(picture):
    """After its parent did: torch's threads are not in the child, which waited for them without end."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        pixels = picture(64, 128)
        wanted = pocketlic.encode(pixels, effort=1)
        assert torch.get_num_threads() == 4
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=encode_into, args=(queue, pixels))
        child.start()
        assert queue.get(timeout=300) == wanted
        child.join()
        torch.set_num_threads(1)
        assert pocketlic.encode(pixels, effort=1) == wanted  # as many threads as there may be
    finally:
        torch.set_num_threads(before)


def test_profile_is_an_older_name_of_rule():
    assert pocketlic.shipped_model(profile="strict") is pocketlic.shipped_model("strict")
    picture = np.zeros((8, 8, 3), np.uint8)
    assert pocketlic.encode(picture, profile="strict") == pocketlic.encode(picture, rule="strict")
