"""Draw docs/comparison.png: crops of a sample photograph as it is, as .plic and as JPEG of no fewer bytes.

Run it with the Python that has Pocketlic installed: .venv/bin/python docs/comparison.py
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import pocketlic

HERE = Path(__file__).resolve().parent
PHOTOGRAPH = HERE.parent / "samples" / "lake-sherburne.jpg"
QUALITY = 15.0
CROP = (60, 120, 330, 290)  # left, top, right, bottom
CAPTION = 22


def jpeg_of_at_least(picture: Image.Image, size: int) -> bytes:
    """The smallest JPEG (optimized Huffman codes, 4:2:0) of at least `size` bytes."""
    for quality in range(1, 96):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=2)
        if buffer.tell() >= size:
            break
    return buffer.getvalue()


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def main() -> None:
    original = Image.open(PHOTOGRAPH).convert("RGB")
    pixels = np.asarray(original)
    ours = pocketlic.encode(pixels, QUALITY)
    jpeg = jpeg_of_at_least(original, len(ours))
    panels = [("original", pixels)]
    for name, data, decoded in (
        (".plic", ours, pocketlic.decode(ours)),
        ("JPEG", jpeg, np.asarray(Image.open(io.BytesIO(jpeg)))),
    ):
        panels.append((f"{name}: {len(data):,} bytes, {psnr(pixels, decoded):.2f} dB", decoded))
        print(panels[-1][0])
    left, top, right, bottom = CROP
    width, height = right - left, bottom - top
    sheet = Image.new("RGB", (3 * width + 8, height + CAPTION), "white")
    for i, (caption, panel) in enumerate(panels):
        x = i * (width + 4)
        sheet.paste(Image.fromarray(panel[top:bottom, left:right]), (x, 0))
        ImageDraw.Draw(sheet).text((x + 2, height + 3), caption, "black", ImageFont.load_default(13))
    sheet.save(HERE / "comparison.png", optimize=True)


if __name__ == "__main__":
    main()
