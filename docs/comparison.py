"""Draw docs/comparison.png: crops of a sample photograph as it is, and as .plic, AVIF and JPEG of equal bytes.

Run it with the Python that has Pocketlic installed: .venv/bin/python docs/comparison.py
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import pocketlic
from pocketlic.codec.figures import psnr

HERE = Path(__file__).resolve().parent
PHOTOGRAPH = HERE.parent / "samples" / "lake-sherburne.jpg"
QUALITY = 25.0
CROP = (40, 110, 420, 310)  # left, top, right, bottom
CAPTION, GAP = 24, 4


def smallest_of_at_least(picture: Image.Image, size: int, name: str, **options: object) -> bytes:
    """The smallest file of Pillow's format `name` with at least `size` bytes, over its qualities 1 to 95."""
    for quality in range(1, 96):
        buffer = io.BytesIO()
        picture.save(buffer, name, quality=quality, **options)
        if buffer.tell() >= size:
            break
    return buffer.getvalue()


def main() -> None:
    original = Image.open(PHOTOGRAPH).convert("RGB")
    pixels = np.asarray(original)
    ours = pocketlic.encode(pixels, QUALITY)
    avif = smallest_of_at_least(original, len(ours), "AVIF", subsampling="4:2:0")
    jpeg = smallest_of_at_least(original, len(ours), "JPEG", optimize=True, subsampling=2)
    panels = [("Original", pixels)]
    for name, data, decoded in (
        ("Pocketlic", ours, pocketlic.decode(ours)),
        ("AVIF", avif, np.asarray(Image.open(io.BytesIO(avif)).convert("RGB"))),
        ("JPEG", jpeg, np.asarray(Image.open(io.BytesIO(jpeg)))),
    ):
        panels.append((f"{name}: {len(data):,} bytes, {psnr(pixels, decoded):.2f} dB", decoded))
        print(panels[-1][0])
    left, top, right, bottom = CROP
    width, height = right - left, bottom - top
    sheet = Image.new("RGB", (2 * width + GAP, 2 * (height + CAPTION)), "white")
    for i, (caption, panel) in enumerate(panels):
        x, y = i % 2 * (width + GAP), i // 2 * (height + CAPTION)
        sheet.paste(Image.fromarray(panel[top:bottom, left:right]), (x, y))
        ImageDraw.Draw(sheet).text((x + 2, y + height + 3), caption, "black", ImageFont.load_default(14))
    sheet.save(HERE / "comparison.png", optimize=True)


if __name__ == "__main__":
    main()
