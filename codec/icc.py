"""ICC profiles: whether one fits a picture, and those for pictures that describe their colours in numbers instead."""

import io
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocketlic.codec.errors import PlicError

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

_SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_UNSPECIFIED = 2

# ITU-T H.273: white x, y, then red, green, blue.
_PRIMARIES = {
    1: _SRGB_CHROMATICITIES,
    _UNSPECIFIED: _SRGB_CHROMATICITIES,
    4: (0.31, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (0.3127, 0.329, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (0.3127, 0.329, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (0.3127, 0.329, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    8: (0.31, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (0.3127, 0.329, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
_CURVES: dict[int, tuple[float, ...]] = {
    1: _BT709_CURVE,
    _UNSPECIFIED: _SRGB_CURVE,
    4: (2.2,),
    5: (2.8,),
    6: _BT709_CURVE,
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913),
    8: (1.0,),
    13: _SRGB_CURVE,
    14: _BT709_CURVE,
    15: _BT709_CURVE,
}
_HDR = {16: "PQ", 18: "HLG"}


def fits(icc: bytes, grey: bool) -> bool:
    """Whether a profile is for such pictures; bytes that are no profile at all fit any, since nobody reads them."""
    return icc[36:40] != b"acsp" or icc[16:20] == (b"GRAY" if grey else b"RGB ")


def cmyk_to_srgb(pixels: NDArray[np.uint8], icc: bytes) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] sRGB of uint8 [H, W, 4] CMYK, relative colorimetric. PlicError when the profile is for others."""
    from PIL import ImageCms  # which takes time, and few need it

    source = Image.frombytes("CMYK", pixels.shape[1::-1], pixels.tobytes())
    try:
        profiles = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(
            source, *profiles, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION
        )
    except (ImageCms.PyCMSError, OSError):
        raise PlicError("it is CMYK, and its colour profile is damaged; convert it to RGB first") from None
    return np.array(converted, np.uint8)


def of_cicp(primaries: int, transfer: int, grey: bool) -> bytes:
    """The profile of code points of ITU-T H.273, or nothing for sRGB. PlicError for HDR and unknown ones."""
    if transfer in _HDR:
        raise PlicError(
            f"it is HDR ({_HDR[transfer]}), which 8 bits cannot hold; convert it to sRGB or Display P3 first"
        )
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        raise PlicError(f"its colours (cICP {primaries}, {transfer}) are of no known kind; convert it to sRGB first")
    return _profile(_PRIMARIES[primaries], _CURVES[transfer], grey)


def of_gamma(gamma: float | None, chromaticities: Sequence[float] | None, grey: bool) -> bytes:
    """The profile of PNG's gAMA and cHRM, or nothing where they mean sRGB, as 0.45455 does with its primaries.

    gamma: what the file says, the exponent of encoding. chromaticities: x and y of white, red, green and blue. What is
    not said is sRGB's. ValueError for numbers that no display can have.
    """
    like_srgb = gamma is None or 0.45 <= gamma <= 0.46
    if gamma is not None and not 0.01 <= gamma <= 100:
        raise ValueError("no gamma")
    curve = _SRGB_CURVE if gamma is None or (like_srgb and _is_srgb(chromaticities)) else (1 / gamma,)
    return _profile(chromaticities or _SRGB_CHROMATICITIES, curve, grey)


def _is_srgb(chromaticities: Sequence[float] | None) -> bool:
    return chromaticities is None or bool(np.allclose(chromaticities, _SRGB_CHROMATICITIES, rtol=0, atol=0.002))


def _profile(chromaticities: Sequence[float], curve: tuple[float, ...], grey: bool) -> bytes:
    """A display profile of ICC version 4.3 with one parametric curve; nothing for sRGB."""
    if curve == _SRGB_CURVE and (grey or _is_srgb(chromaticities)):
        return b""
    curves = struct.pack(">4sIHH", b"para", 0, 0 if len(curve) == 1 else 3, 0) + _fixed(curve)
    text = "Colours of the picture".encode("utf-16-be")
    words = struct.pack(">4sIII4sII", b"mluc", 0, 1, 12, b"enUS", len(text), 28) + text
    tags = {b"desc": words, b"cprt": words, b"wtpt": _xyz(_D50)}
    if grey:
        tags[b"kTRC"] = curves
    else:
        adaptation, colorants = _to_d50(chromaticities)
        tags[b"chad"] = struct.pack(">4sI", b"sf32", 0) + _fixed(adaptation.ravel())
        for i, name in enumerate((b"r", b"g", b"b")):
            tags[name + b"XYZ"] = _xyz(colorants[:, i])
            tags[name + b"TRC"] = curves
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}  # equal tags share one place
    for name, data in tags.items():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, places[data], len(data))
    space = b"GRAY" if grey else b"RGB "
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x04300000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
    return head + bytes(68 - len(head)) + _fixed(_D50) + bytes(128 - 68 - 12) + table + body


def _fixed(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)


def _xyz(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return struct.pack(">4sI", b"XYZ ", 0) + _fixed(values)


def _to_d50(chromaticities: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bradford's matrix from the white to D50, and the XYZ of red, green and blue, columns, under D50. ValueError."""
    xy = np.array(chromaticities, np.float64).reshape(4, 2)
    if (xy[:, 1] < 1e-4).any():
        raise ValueError("no chromaticities")
    white, *primaries = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]], 1)
    columns = np.array(primaries).T
    cone = _BRADFORD @ white
    if abs(np.linalg.det(columns)) < 1e-6 or (cone <= 0).any():
        raise ValueError("no chromaticities")
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cone) @ _BRADFORD
    colorants = adaptation @ columns @ np.diag(np.linalg.solve(columns, white))
    if np.abs(colorants).max() > 100 or np.abs(adaptation).max() > 100:
        raise ValueError("no chromaticities")
    return adaptation, colorants
