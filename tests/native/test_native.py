"""The native core equals the reference bit by bit, and refuses the same files and models."""

from __future__ import annotations

import hashlib
import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import pocketlic
from pocketlic.codec import _native
from pocketlic.codec import format as plic
from pocketlic.codec._native import NativeDecoder
from pocketlic.quantization.model import IntegerModel
from pocketlic.quantization.network import IntegerNetwork

SIZES = [(1, 1), (1, 65), (67, 131), (64, 64), (200, 17), (33, 700)]


@pytest.mark.parametrize("kernels", _native.kernels())
@pytest.mark.parametrize("seed", range(3))
def test_random_networks(make, odd_network, profile, seed, kernels):
    rng = np.random.default_rng(seed)
    model = make.small_model(profile, seed)
    networks = {**model.networks, "context": odd_network(profile, seed)}
    if seed == 0:
        networks = model.networks
    model = replace(model, networks=networks)
    native = NativeDecoder(model.to_bytes(), kernels)
    assert (native.kernels, native.profile) == (kernels, profile)
    for name, network in networks.items():
        align = max(d for _, d in network.strides.values())
        for tile in (0, align, 3 * align):
            height, width = (align * int(n) for n in rng.integers(1, 3 + 30 // align, 2))
            inputs = make.random_inputs(network, height, width, seed)
            expected, actual = network.run(inputs), native.run(name, inputs, tile)
            assert list(actual) == list(expected)
            for output, values in expected.items():
                np.testing.assert_array_equal(actual[output], values, err_msg=f"{name}/{output}, tile {tile}")


@pytest.mark.parametrize("kernels", _native.kernels())
def test_saturated_inputs(make, profile, kernels):
    """Extreme activations drive the accumulators as far as the model's check allows."""
    native = NativeDecoder(make.small_model(profile).to_bytes(), kernels)
    for name, network in make.small_model(profile).networks.items():
        for value in (-128, 127):
            inputs = [np.full((64, 64, s.channels), value, np.int8) for s in network.inputs.values()]
            for output, values in network.run(inputs).items():
                np.testing.assert_array_equal(native.run(name, inputs)[output], values)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_all_sizes(shipped, picture, profile, size, grey):
    pixels = picture(*size, grey=grey)
    for quality in (0, 63.21, 100):
        one = shipped(profile, quality)
        data = pocketlic.encode(pixels, quality, profile=profile)
        file = plic.read(data)
        expected = one.codec.read_symbols(file)
        z, y, details = one.native.symbols(data)
        np.testing.assert_array_equal(z, expected.z)
        np.testing.assert_array_equal(y, expected.y)
        np.testing.assert_array_equal(details, expected.details)
        decoded = one.native.decode(data)
        np.testing.assert_array_equal(decoded, pocketlic.decode(data))
        digests = one.native.hash(data)
        assert digests[0].hex() == expected.sha256()
        assert digests[1] == hashlib.sha256(decoded.tobytes()).digest()
        again = one.native.encode_symbols(z, y, details, size[1], size[0], grey, file.header.quality_hundredths)
        assert again == data


@pytest.mark.parametrize("kernels", _native.kernels())
@pytest.mark.parametrize("seed", range(4))
def test_random_symbols(make, odd_network, open_model, random_symbols, profile, seed, kernels):
    """Symbols of any size, several bands, tiles that need pixels of two bands."""
    model = make.small_model(profile, seed)
    if seed % 2:
        model = replace(model, networks={**model.networks, "context": odd_network(profile, seed)})
    codec, native = open_model(model).codec, NativeDecoder(model.to_bytes(), kernels)
    height, width = [(2100, 70), (65, 1100), (1090, 1100), (5, 3)][seed]
    header = plic.Header(width, height, False, [0, 3333, 5000, 10000][seed], codec.model_id)
    symbols = random_symbols(codec, header, seed)
    data = native.encode_symbols(symbols.z, symbols.y, symbols.details, width, height, False, header.quality_hundredths)
    read = codec.read_symbols(plic.read(data))
    for mine, theirs in zip(native.symbols(data), (symbols.z, symbols.y, symbols.details), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(read.y, symbols.y)
    np.testing.assert_array_equal(read.details, symbols.details)
    expected = codec.synthesise(symbols, header)
    np.testing.assert_array_equal(native.decode(data), expected)
    for first, count in ((0, 1), (height - 1, 1), (height // 3, height // 2), (0, 0)):
        np.testing.assert_array_equal(native.decode_rows(data, first, count), expected[first : first + count])


def test_shipped_models_with_random_symbols(shipped, random_symbols, profile):
    one = shipped(profile)
    header = plic.Header(200, 150, True, 9000, one.codec.model_id)
    s = random_symbols(one.codec, header, 1)
    data = one.native.encode_symbols(s.z, s.y, s.details, 200, 150, True, 9000)
    np.testing.assert_array_equal(one.native.decode(data), one.codec.synthesise(s, header))


def test_the_model_id_is_the_hash_of_the_file(shipped, profile):
    one = shipped(profile)
    assert one.native.model_id.hex() == one.model.model_id
    assert one.native.model_id == hashlib.sha256(one.model.to_bytes()).digest()


def test_threads_share_a_decoder(shipped, picture):
    one = shipped("cpu")
    data = pocketlic.encode(picture(300, 200))
    expected = one.native.decode(data)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda first: one.native.decode_rows(data, first, 75), range(0, 300, 75)))
        np.testing.assert_array_equal(np.concatenate(parts), expected)
        for pixels in pool.map(one.native.decode, [data] * 8):
            np.testing.assert_array_equal(pixels, expected)


# ------------------------------------------------------------------------------------------------ hostile input


@pytest.fixture(scope="module")
def tiny(make, open_model, picture):
    """A small model and a small file of it, with metadata."""
    one = open_model(make.small_model("cpu"))
    one.data = one.codec.encode(picture(20, 30), 40, icc=b"icc", exif=b"exif")
    return one


def refused(function, *arguments):
    try:
        function(*arguments)
    except pocketlic.FormatError:
        return True
    return False


def test_every_bit_and_every_byte_of_a_file_matter(tiny):
    data = tiny.data
    for i in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[i // 8] ^= 1 << i % 8
        with pytest.raises(pocketlic.FormatError):
            tiny.native.decode(bytes(damaged))
    for n in range(len(data)):
        with pytest.raises(pocketlic.FormatError):
            tiny.native.decode(data[:n])
    with pytest.raises(pocketlic.FormatError, match="damaged or incomplete"):
        tiny.native.decode(data + b"\0")
    assert tiny.native.decode(data).shape == (20, 30, 3)


def test_damage_that_checksums_do_not_show(tiny):
    """Payloads are changed before the checksums are made: both decoders see the same symbols or none."""
    rng = np.random.default_rng(0)
    file = plic.read(tiny.data)
    agreed = {True: 0, False: 0}
    for i in range(400):
        payload = bytearray(file.bands[0])
        at = int(rng.integers(len(payload)))
        if i % 5 == 0:
            del payload[at:]
        else:
            payload[at] ^= 1 << int(rng.integers(8))
        changed = replace(file, bands=(bytes(payload),))
        data = plic.write(changed)
        bad = refused(tiny.codec.read_symbols, plic.read(data))
        assert refused(tiny.native.symbols, data) == bad
        assert refused(tiny.native.decode, data) == bad
        if not bad:
            np.testing.assert_array_equal(tiny.native.symbols(data)[1], tiny.codec.read_symbols(changed).y)
        agreed[bad] += 1
    assert agreed[True] > 300


def header_bytes(width, height, quality=5000, flags=0, version=plic.VERSION, model=b"12345678", more=b""):
    def varint(v):
        return bytes([v]) if v < 128 else bytes([v & 127 | 128]) + varint(v >> 7)

    head = b"\xd0L\r\n" + bytes([version, flags]) + model + varint(width) + varint(height)
    return head + quality.to_bytes(2, "little") + more


def checked(content):
    return content + _native.crc32c(content).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "empty"),
        (b"\xd0L\r", "truncated in the header"),
        (b"PLIC5", "transfer in text mode"),
        (b"GIF89a", "not a .plic file"),
        (header_bytes(0, 1), "outside 1x1"),
        (header_bytes(1, 65536), "outside 1x1"),
        (header_bytes(1 << 34, 1), "outside 1x1"),
        (header_bytes(1 << 35, 1), "malformed number"),
        (header_bytes(65535, 65535), "limit of"),
        (header_bytes(1, 1, 10001), "quality 100.01"),
        (header_bytes(1, 1, flags=8), "unknown flags"),
        (header_bytes(1, 1, version=plic.VERSION + 1), "newer"),
        (header_bytes(1, 1, version=plic.VERSION - 1), "no file version"),
        (header_bytes(1, 1), "truncated in the symbols"),
        (header_bytes(1, 1, more=b"\xff\xff\xff\xff\x0f"), "truncated in the symbols"),
        (header_bytes(1, 1, more=b"\x80\x00"), "malformed number"),
        (header_bytes(1, 1, more=b"\x00\x00"), "1 bytes follow"),
    ],
)
def test_impossible_headers(tiny, head, message):
    data = checked(head) if len(head) > 6 else head
    for read in (tiny.native.decode, plic.read):
        with pytest.raises(pocketlic.FormatError, match=message):
            read(data)
    if len(head) > 6:
        with pytest.raises(pocketlic.FormatError, match=r"damaged or incomplete|newer|no file version"):
            tiny.native.decode(head)


def test_a_file_of_another_model(tiny, shipped):
    with pytest.raises(pocketlic.FormatError, match="made by model"):
        shipped("cpu").native.decode(tiny.data)


def test_limits(tiny, shipped, picture):
    with pytest.raises(pocketlic.FormatError, match="limit of 599"):
        tiny.native.decode(tiny.data, max_pixels=599)
    one = shipped("cpu")
    data = pocketlic.encode(picture(200, 300))
    peak = one.native.hash(data)[2]
    np.testing.assert_array_equal(one.native.decode(data, max_memory=peak), one.native.decode(data))
    for limit in (0, 1000, peak // 2):
        with pytest.raises(pocketlic.FormatError, match=f"limit of {limit} bytes"):
            one.native.hash(data, max_memory=limit)


def test_memory_hardly_grows_with_the_height(tiny):
    def peak(height):
        s = [np.zeros((height // 64, 16, 8), np.int8)]
        s += [np.zeros((height // 16, 64, 16), np.int32) for _ in range(2)]
        return tiny.native.hash(tiny.native.encode_symbols(*s, 1024, height, False, 0))[2]

    assert peak(16384) - peak(4096) <= (16384 - 4096) * 1024 // 64 * 8


def test_arguments_that_do_not_fit(tiny):
    z, y, details = tiny.native.symbols(tiny.data)
    with pytest.raises(ValueError, match="does not fit"):
        tiny.native.encode_symbols(z, y, details, 65, 20, False, 0)
    with pytest.raises(ValueError, match="out of range"):
        tiny.native.encode_symbols(z, y, details, 30, 0, False, 0)
    with pytest.raises(ValueError, match="exceeds 32767"):
        tiny.native.encode_symbols(z, y - 40000, details, 30, 20, False, 4000)
    with pytest.raises(ValueError, match="no such network"):
        tiny.native.run("encoder", [])
    with pytest.raises(ValueError, match="outside 1x1"):
        tiny.native.run("context", [])
    x = np.zeros((4, 4, 16), np.int8)
    with pytest.raises(ValueError, match="number of inputs"):
        tiny.native.run("context", [x])
    with pytest.raises(ValueError, match="wrong shape"):
        tiny.native.run("context", [x, x[:2]])
    with pytest.raises(ValueError, match="multiple of 2"):
        tiny.native.run("hyper_analysis", [x[:1], x[:1]])
    with pytest.raises(ValueError, match="multiple of"):
        tiny.native.run("hyper_analysis", [x, x], 1)
    with pytest.raises(ValueError, match="rows beyond"):
        tiny.native.decode_rows(tiny.data, 20, 1)
    with pytest.raises(ValueError, match="no kernels"):
        NativeDecoder(tiny.model.to_bytes(), "abacus")


# -------------------------------------------------------------------------------------------------- model files


def opens(data):
    """Whether the native reader accepts a model file; asserts that the reference agrees."""
    try:
        NativeDecoder(data)
    except pocketlic.ModelError:
        with pytest.raises(pocketlic.ModelError):
            IntegerModel.from_bytes(data)
        return False
    IntegerModel.from_bytes(data)
    return True


def test_damaged_model_files(tiny):
    rng = np.random.default_rng(0)
    data = tiny.model.to_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for n in [*range(0, 40), *rng.integers(0, len(data), 60).tolist()]:
        assert not opens(data[:n])
    assert not opens(data + b"\0")
    accepted = 0
    for i in range(600):
        damaged = bytearray(data)
        at = int(rng.integers(header if i % 3 else len(data)))
        damaged[at] = int(rng.integers(256)) if i % 2 else damaged[at] ^ 1 << int(rng.integers(8))
        accepted += opens(bytes(damaged))
    assert 0 < accepted < 400


def repacked(data, change):
    """A model file changed by change(header, description), two JSON objects."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    description = json.loads(header["__metadata__"].pop("pocketlic"))
    change(header, description)
    header["__metadata__"]["pocketlic"] = json.dumps(description)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def nodes(value):
    """Every list and object within a JSON value."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from nodes(inner)


def test_descriptions_of_models_are_judged_alike(tiny):
    data = tiny.model.to_bytes()
    rng = random.Random(0)
    values = [
        0,
        1,
        -1,
        3,
        17,
        65,
        65537,
        -128,
        True,
        None,
        1.0,
        "",
        "x",
        "a/b",
        "x" * 65,
        "é",
        "add",
        [],
        {},
        [1, 2, 3],
    ]
    accepted = 0

    def change(header, description):
        node = rng.choice(list(nodes(rng.choice([header, description, description]))))
        if not node:
            return
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        action = rng.randrange(4)
        if action == 0:
            del node[key]
        elif action == 1:
            node.update(more=1) if isinstance(node, dict) else node.insert(key, node[key])
        else:
            node[key] = rng.choice(values)

    for _ in range(700):
        accepted += opens(repacked(data, change))
    assert 20 < accepted < 300


def test_limits_of_models(make, tiny):
    """Rules of SPEC.md that random damage does not reach."""
    data = tiny.model.to_bytes()

    def levels(n):
        return lambda header, description: description.update(more=json.loads("[" * n + "1" + "]" * n))

    def keys(n):
        return lambda header, description: description["notes"].update({str(i): "" for i in range(n)})

    def padding(n):
        return lambda header, description: description["notes"].update(text="x" * n)

    for change, sound in (
        *((levels(15), True), (levels(16), False), (keys(1024), True), (keys(1025), False)),
        *((padding(9 << 16), True), (padding(1 << 20), False)),
        (lambda header, description: header["__metadata__"].update(more="text"), False),
    ):
        assert opens(repacked(data, change)) == sound
    text = data.replace(b'\\"notes\\": {}', b'\\"notes\\":{"')  # of the same length
    assert text != data
    assert not opens(text)
    assert not opens(data.replace(b'\\"skip\\": 3', b'\\"skap\\": 3'))

    def network(build, seed=0):
        b = make.Builder("context", "cpu", seed, features=16, anchors=16)
        return replace(tiny.model, networks={**tiny.model.networks, "context": b.build(build(b))}).to_bytes()

    def many(n, kept):
        def build(b):
            made = [b.pointwise("features", 16) for _ in range(kept)]
            x = b.pointwise("anchors", 16)
            for other in made:
                x = b.add(x, other)
            for _ in range(n - 2 * kept - 1):
                x = b.upsample(x, 1)
            return x

        return build

    IntegerNetwork.check, check = lambda self, profile: None, IntegerNetwork.check  # else the builder refuses
    try:
        models = {
            (limit, sound): network(build)
            for limit, sound, build in (
                ("tensors", True, many(254, 1)),
                ("tensors", False, many(255, 1)),
                ("kept", True, many(64, 30)),
                ("kept", False, many(66, 31)),
                ("kernel", True, lambda b: b.depthwise("anchors", 31)),
                ("kernel", False, lambda b: b.depthwise("anchors", 33)),
            )
        }
    finally:
        IntegerNetwork.check = check
    for (limit, sound), file in models.items():
        assert opens(file) == sound, (limit, sound)


def test_the_id_of_a_model_is_that_of_its_file(tiny):
    """Also of a file that this package would have written differently."""
    data = repacked(tiny.model.to_bytes(), lambda header, description: None)
    assert data != tiny.model.to_bytes()
    model = IntegerModel.from_bytes(data)
    assert model.to_bytes() == data
    assert model.model_id == hashlib.sha256(data).hexdigest() == NativeDecoder(data).model_id.hex()
    changed = replace(model, skip=model.skip + 1)
    assert changed.to_bytes() != data
    assert IntegerModel.from_bytes(changed.to_bytes()).skip == model.skip + 1


def bad_layer(model, network, name, **changes):
    layers = tuple(replace(x, **changes) if x.name == name else x for x in model.networks[network].layers)
    changed = replace(model.networks[network], layers=layers)
    return replace(model, networks={**model.networks, network: changed})


def test_unsound_models_are_refused(tiny):
    model = tiny.model
    convolution = next(x for x in model.networks["synthesis"].layers if x.kind == "pointwise")
    name, w, b, s = convolution.name, convolution.weight, convolution.bias, convolution.shift
    big = np.full_like(b, 2**31 - 65)
    unsound = {
        "accumulator": bad_layer(model, "synthesis", name, bias=big),
        "tie-free": bad_layer(model, "synthesis", name, weight=w | np.int8(1)),
        "tie-free rule": bad_layer(model, "synthesis", name, bias=b + np.int32(1)),
        "shift 1 ": bad_layer(model, "synthesis", name, shift=np.ones_like(s)),
        "shift 16": bad_layer(model, "synthesis", name, shift=np.full_like(s, 16)),
        "fit the channels": bad_layer(model, "synthesis", name, weight=w[:, 1:]),
        "no sound factor": bad_layer(model, "synthesis", name, factor=0),
        "no sound inputs": bad_layer(model, "synthesis", name, inputs=("nothing",)),
        "exp2": replace(model, exp2=model.exp2 - 1),
        "wide": replace(model, wide=np.array([5, 1], np.int16)),
        "skip": replace(model, skip=64),
        "sum to 65536": replace(
            model, table_freq=model.table_freq + np.eye(1, model.table_freq.size, dtype=np.uint16)[0]
        ),
        "profile": replace(model, rule="gpu"),
        "row_bias": replace(model, row_bias=model.row_bias[1:]),
        "too few or too many": replace(
            model, networks={**model.networks, "context": replace(model.networks["context"], outputs=())}
        ),
        "do not fit the codec": replace(
            model, networks={**model.networks, "context": replace(model.networks["synthesis"], name="context")}
        ),
        "tie-free rule of": replace(model, rule="strict"),
    }
    for message, changed in unsound.items():
        with pytest.raises(pocketlic.ModelError, match=message):
            NativeDecoder(changed.to_bytes())
    assert opens(model.to_bytes())
