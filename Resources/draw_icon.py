"""Draw the module's icon: a slice under a shield whose texture only a network sees. ``python Resources/draw_icon.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE, FINE = 128, 4
BLUE, ORANGE, SHIELD, EDGE = (26, 115, 255), (255, 140, 26), (24, 44, 84), (240, 245, 255)


def shield(x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """Inside of a heraldic shield, x and y in [-1, 1] with y downwards."""
    x, y = x / scale, y / scale
    sides = np.where(y < 0.1, 0.78, 0.78 * np.sqrt(np.clip(1 - (np.maximum(y - 0.1, 0) / 0.88) ** 1.7, 0, None)))
    return (np.abs(x) < sides) & (y > -0.86 + 0.10 * np.abs(x) ** 2) & (y < 0.98)


def draw() -> Image.Image:
    n = SIZE * FINE
    y, x = np.mgrid[:n, :n] / (n / 2) - 1 + 1 / n
    picture = np.zeros((n, n, 4), np.uint8)
    picture[shield(x, y, 1.0)] = (*EDGE, 255)
    picture[shield(x, y, 0.93)] = (*SHIELD, 255)
    organ = ((x + 0.02) / 0.52) ** 2 + ((y - 0.02) / 0.44 + 0.25 * x) ** 2 < 1
    inner = ((x + 0.02) / 0.42) ** 2 + ((y - 0.02) / 0.34 + 0.25 * x) ** 2 < 1
    picture[organ] = (205, 212, 224, 255)
    cell = (np.floor((x + 1) * 11) + np.floor((y + 1) * 11)).astype(int) % 2 == 0
    band = organ & ~inner
    picture[band & cell] = (*ORANGE, 255)
    picture[band & ~cell] = (*BLUE, 255)
    return Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    draw().save(Path(__file__).parents[1] / "MedProtect" / "Resources" / "Icons" / "MedProtect.png", optimize=True)
