"""Draws the pictures that `clipd bench` sends when it is given none: python3 make.py

Scenes of smooth noise and shapes, 500 x 375 pixels, the usual size of ImageNet. What a JPEG costs to decode
depends on its detail; the noise falls off with frequency as in photographs, so that files have the bytes of
photographs of that size at this quality. Needs NumPy and Pillow.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 500, 375
PICTURES = 4
QUALITY = 80
# Amplitude of a photograph's spectrum over frequency, roughly: 1 / f (Field 1987).
SLOPE = 1.15


def noise(rng):
    """Three channels of noise around 0, alike in brightness and different in colour."""
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(WIDTH), np.fft.fftfreq(HEIGHT)))
    frequency[0, 0] = 1.0
    fields = []
    for _ in range(4):
        phase = np.exp(2j * np.pi * rng.random(frequency.shape))
        field = np.fft.irfft2(phase / frequency**SLOPE, s=(HEIGHT, WIDTH))
        fields.append(field / field.std())
    brightness, *colours = fields
    return np.stack([brightness + 0.35 * colour for colour in colours], axis=-1)


def draw(seed):
    rng = np.random.default_rng(seed)
    scene = Image.new("RGB", (WIDTH, HEIGHT), tuple(rng.integers(60, 200, 3)))
    pen = ImageDraw.Draw(scene)
    for _ in range(12):
        x, y = rng.integers(0, WIDTH), rng.integers(0, HEIGHT)
        width, height = rng.integers(20, 180, 2)
        box = (x - width, y - height, x + width, y + height)
        shape = [pen.ellipse, pen.rectangle][rng.integers(2)]
        shape(box, fill=tuple(rng.integers(20, 235, 3)))
    scene = np.asarray(scene.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32)
    pixels = np.clip(scene + 26.0 * noise(rng), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


if __name__ == "__main__":
    for seed in range(PICTURES):
        draw(seed).save(Path(__file__).with_name(f"{seed}.jpg"), quality=QUALITY)
