"""Photographs from wallpaper packages, and their SIFT descriptors.

    OpenCV, packages.py -> [photographs.py] -> recipes.py

A descriptor counts the gradients around a point in 4 x 4 cells and 8 directions: 128 small
integers (Lowe, 2004). Rows and queries come from different photographs, listed here by package and
path, so that a query finds what looks alike and not its own picture.

Nothing here draws the sample or pins the packages: recipes.py does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.environment import Progress, need
from benchmarks.packages import debian_files
from soardb.errors import CorruptStorage

# Wallpapers that are photographs, chosen by eye: each scene once, at its largest size.
PHOTOS = {
    "lomiri-wallpapers-16.04": (
        "Dragonfly_by_Bolly.jpg",
        "Picture_0B_by_freespace.jpg",
        "Picture_1A_by_freespace.jpg",
        "aitzgorri_by_Aitzol_Berasategi.jpg",
        "analogpattern_by_Peter_Nerlich.jpg",
        "free_by_Peter_Nerlich.jpg",
        "friends_by_Aitzol_Berasategi.jpg",
        "greentock_by_Peter_Nerlich.jpg",
        "life_by_Aitzol_Berasategi.jpg",
        "picosdeeuropa_by_Aitzol_Berasategi.jpg",
        "seeding_by_Clements_Engelhardt.jpg",
        "sunset_by_Aitzol_Berasategi.jpg",
    ),
    "mate-backgrounds": (
        "nature/Aqua.jpg",
        "nature/Blinds.jpg",
        "nature/FreshFlower.jpg",
        "nature/Garden.jpg",
        "nature/GreenMeadow.jpg",
        "nature/LadyBird.jpg",
        "nature/RainDrops.jpg",
        "nature/Storm.jpg",
        "nature/Wood.jpg",
        "nature/YellowFlower.jpg",
    ),
    "plasma-workspace-wallpapers": (
        "BytheWater/contents/images/2560x1600.jpg",
        "ColorfulCups/contents/images/2560x1600.jpg",
        "DarkestHour/contents/images/2560x1600.jpg",
        "EveningGlow/contents/images/2560x1600.jpg",
        "FallenLeaf/contents/images/2560x1600.jpg",
        "Grey/contents/images/2560x1600.jpg",
        "OneStandsOut/contents/images/2560x1600.jpg",
        "Path/contents/images/2560x1600.jpg",
        "Volna/contents/images/5120x2880.jpg",
        "summer_1am/contents/images/2560x1600.jpg",
    ),
}
QUERY_PHOTOS = {
    "lomiri-wallpapers-16.04": ("Bridge_by_Sander_Klootwijk.jpg", "Wine_by_Jakkub_Mede.jpg"),
    "lomiri-wallpapers-20.04": ("Kleiber_by_Lukas_Baubkus.jpg",),
    "mate-backgrounds": ("nature/Dune.jpg", "nature/TwoWings.jpg"),
    "plasma-workspace-wallpapers": (
        "ColdRipple/contents/images/2560x1600.jpg",
        "Kite/contents/images/2560x1600.jpg",
    ),
}


def describe(image: bytes) -> npt.NDArray[np.uint8]:
    """SIFT descriptors (m, 128) of an image file, integers as OpenCV rounds them.

    The contrast threshold is 0.01, a quarter of OpenCV's default: weak corners count too.
    Images over 13.4 megapixels are shrunk to that, which keeps the scale space within 3.2 GB.
    """
    cv2 = need("cv2")
    cv2.setNumThreads(1)
    grey = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise CorruptStorage("expected a JPEG or PNG image; OpenCV cannot decode it")
    if (scale := float(np.sqrt(13.4e6 / grey.size))) < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, found = cv2.SIFT_create(contrastThreshold=0.01).detectAndCompute(grey, None)
    return np.zeros((0, 128), np.uint8) if found is None else found.astype(np.uint8)


def describe_all(
    packages: dict[str, Path],
    photos: dict[str, tuple[str, ...]],
    stage: str,
    progress: Progress,
) -> npt.NDArray[np.uint8]:
    """Descriptors (m, 128) of the photos, by package and path in that order."""
    total = sum(map(len, photos.values()))
    found: list[npt.NDArray[np.uint8]] = []
    for name, endings in photos.items():
        images = sorted(debian_files(packages[name], endings))
        if len(images) != len(endings):
            came = [path for path, _ in images]
            raise CorruptStorage(f"{packages[name]}: expected {endings}, found {came}")
        for _, image in images:
            found.append(describe(image))
            progress(stage, len(found) / total)
    return np.concatenate(found)
