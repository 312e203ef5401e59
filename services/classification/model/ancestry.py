"""What a network is made of, as one name: the same again needs no training of hours."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import numpy.typing as npt

from services.classification.model import batching, finetuning, narrowing, network, transformer
from services.classification.model.classifier import BASE_FILE, MANIFEST_FILE, pretrained_version
from services.classification.model.corpus import digest_of
from services.classification.model.finetuning import Recipe
from services.classification.model.superwords import Superwords

CODE: Final[Sequence[ModuleType]] = (batching, finetuning, narrowing, network, transformer)
"""Whatever is changed here, the network is trained anew."""
PACKAGES: Final = ("jax", "jaxlib", "numpy", "onnx")


def ancestry(
    pieces: Sequence[Sequence[int]], odds: npt.NDArray[np.float32], recipe: Recipe, superwords: Superwords
) -> str:
    """Name all that a network is made of: texts in pieces, their odds (texts, 3), recipe, code and packages."""
    code = {module.__name__: hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in CODE}
    packages = {name: version(name) for name in PACKAGES}
    made_of = (asdict(recipe), superwords.runs, pretrained_version(), code, packages)
    return digest_of([*made_of, *zip(pieces, odds.tolist(), strict=True)])


def network_at_hand(folder: Path, wanted: str) -> bytes | None:
    """Give the network after an artefact's first training, where it is made of what is wanted and as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
        found = (folder / BASE_FILE).read_bytes()
    except FileNotFoundError:
        return None
    told = (manifest.get("base_ancestry"), manifest.get("base_sha256"))
    return found if told == (wanted, hashlib.sha256(found).hexdigest()) else None
