"""Make `data/photographs/`: eight photographs that two Python packages ship, grey and half as large.

    pip install scikit-image scikit-learn
    python data/make_photographs.py

Each photograph is made grey (Pillow's mode L, weights of ITU-R 601) and reduced by the mean of 2 x 2
pixels, which also takes off most traces of JPEG compression. Licences: `data/photographs/README.md`.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

from PIL import Image

from snnmlp_edu.data.photographs import PHOTOGRAPHS
from snnmlp_edu.data.scripts import run_script, write_shipped
from snnmlp_edu.errors import InputError

FOLDERS = {"scikit-image": ("skimage", "data"), "scikit-learn": ("sklearn", "datasets/images")}
ORIGINALS = {
    "astronaut": ("scikit-image", "astronaut.png"),
    "camera": ("scikit-image", "camera.png"),
    "chelsea": ("scikit-image", "chelsea.png"),
    "china": ("scikit-learn", "china.jpg"),
    "coffee": ("scikit-image", "coffee.png"),
    "coins": ("scikit-image", "coins.png"),
    "flower": ("scikit-learn", "flower.jpg"),
    "rocket": ("scikit-image", "rocket.jpg"),
}


def original(name: str) -> Path:
    """Where an installed package keeps a photograph.

    Raises:
        InputError: the package is not installed, or came without it.
    """
    package, file_name = ORIGINALS[name]
    module, folder = FOLDERS[package]
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise InputError(f"{name} comes with {package}, which is not installed; run pip install {package}")
    file = Path(found.origin).parent / folder / file_name
    if not file.is_file():
        raise InputError(f"{package} was installed without {file}; reinstall its wheel")
    return file


def grey_and_half(file: Path) -> bytes:
    """The PNG that is stored."""
    buffer = io.BytesIO()
    with Image.open(file) as image:
        image.convert("L").reduce(2).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def make() -> None:
    """Write the photographs and enter them in the manifest."""
    contents = {f"photographs/{name}.png": grey_and_half(original(name)) for name in PHOTOGRAPHS}
    write_shipped(Path(__file__).resolve().parent, contents)


if __name__ == "__main__":
    run_script(make, __doc__)
