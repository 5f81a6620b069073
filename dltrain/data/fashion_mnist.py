"""Fashion-MNIST: found or fetched, and every byte checked.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
learning algorithms", 2017.
"""

from __future__ import annotations

from pathlib import Path

from .dataset import cache_folder
from .idx import IdxDataset
from .known_files import KnownFile, KnownFiles

__all__ = ["fashion_mnist"]

CLASS_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
FILES = (
    KnownFile(
        "train-images-idx3-ubyte", 47_040_016, 26_421_880,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    KnownFile(
        "train-labels-idx1-ubyte", 60_008, 29_515,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    KnownFile(
        "t10k-images-idx3-ubyte", 7_840_016, 4_422_102,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    KnownFile(
        "t10k-labels-idx1-ubyte", 10_008, 5_148,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)  # fmt: skip
REMEDY = "apt-get install dataset-fashion-mnist, or name a folder with data.root=, or choose data=synthetic"


def fashion_mnist(*, root: str | None = None) -> IdxDataset:
    """60,000 and 10,000 grey 28x28 images of ten kinds of clothing.

    Looked for in `root` alone or, without it, in the user's cache, where Debian's package
    dataset-fashion-mnist puts it, and on the mirrors.
    """
    if root is not None:
        source = KnownFiles(FILES, folders=(Path(root).expanduser(),), remedy=REMEDY)
    else:
        cache = cache_folder("fashion_mnist")
        source = KnownFiles(FILES, cache=cache, folders=(DEBIAN_FOLDER,), mirrors=MIRRORS, remedy=REMEDY)
    return IdxDataset(source, class_names=CLASS_NAMES)
