"""Small data sets in the real on-disk formats, and the checksums that go with them."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = tuple(f"n{i:08d}" for i in range(200))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_idx(path: Path, array: np.ndarray) -> None:
    """`array` uint8 as an idx file, gzipped if the name says so."""
    data = (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_mnist(
    folder: Path, suffix: str = "", train: int = 40, test: int = 20
) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[part] = random.randint(0, 256, (count, 28, 28)).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", arrays[part])
        write_idx(
            folder / f"{part}-labels-idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8)
        )
    return arrays


def _pickle(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_cifar10(root: Path) -> np.ndarray:
    """Five training batches of 20 images and one of test images; returns the training images
    NCHW."""
    random, folder = np.random.RandomState(1), root / "cifar-10-batches-py"
    rows = random.randint(0, 256, (120, 3072)).astype(np.uint8)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        part = slice(20 * number, 20 * number + 20)
        _pickle(folder / name, {"data": rows[part], "labels": [i % 10 for i in range(20)]})
    _pickle(folder / "batches.meta", {"label_names": [f"thing{i}" for i in range(10)]})
    return rows[:100].reshape(-1, 3, 32, 32)


def write_cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    for name, count in (("train", 300), ("test", 100)):
        rows = np.random.RandomState(2).randint(0, 256, (count, 3072)).astype(np.uint8)
        fine = [i % 100 for i in range(count)]
        _pickle(folder / name, {"data": rows, "fine_labels": fine, "coarse_labels": [0] * count})
    _pickle(folder / "meta", {"fine_label_names": [f"fine{i}" for i in range(100)]})


def trust_cifar(monkeypatch, reader, root: Path) -> None:
    """Let torchvision's reader take the small files' checksums for the published ones."""
    folder = root / reader.base_folder
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(
            reader, name, [[file, md5(folder / file)] for file, _ in getattr(reader, name)]
        )
    monkeypatch.setattr(
        reader, "meta", {**reader.meta, "md5": md5(folder / reader.meta["filename"])}
    )


def write_svhn(root: Path) -> np.ndarray:
    """Two .mat files, X (32, 32, 3, N) and y (N, 1) with 10 for the digit 0; returns the training
    images NCHW."""
    from scipy.io import savemat

    root.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(3)
    images = random.randint(0, 256, (60, 3, 32, 32)).astype(np.uint8)
    for part in ("train", "test"):
        labels = (np.arange(60) % 10 + 1).astype(np.uint8).reshape(-1, 1)
        savemat(root / f"{part}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": labels})
    return images


def trust_svhn(monkeypatch, reader, root: Path) -> None:
    lists = {
        part: [url, file, md5(root / file)]
        for part, (url, file, _) in reader.split_list.items()
        if part != "extra"
    }
    monkeypatch.setattr(reader, "split_list", {**reader.split_list, **lists})


def write_image(
    path: Path, color: object, size: tuple[int, int] = (64, 64), mode: str = "RGB"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


def write_tiny_imagenet(root: Path, *, layout: str) -> None:
    """All 200 classes, two training images and one test image each. `layout`: annotated, refolded,
    refolded-images."""
    folder = root / "tiny-imagenet-200"
    rows = []
    for i, wnid in enumerate(WNIDS):
        for k in range(2):
            write_image(folder / "train" / wnid / "images" / f"{wnid}_{k}.JPEG", (i, k, 0))
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t9\t9\n")
        file = f"val_{199 - i}.JPEG"  # not in the order of the classes
        inner = {"annotated": "images", "refolded": wnid, "refolded-images": f"{wnid}/images"}[
            layout
        ]
        write_image(folder / "val" / inner / file, (i, 9, 0))
        rows.append(f"{file}\t{wnid}\t0\t0\t9\t9\n")
    if layout == "annotated":
        (folder / "val" / "val_annotations.txt").write_text("".join(rows))
    (folder / "words.txt").write_text(f"{WNIDS[0]}\tgoldfish, Carassius auratus\n")
    write_image(folder / "test" / "images" / "test_0.JPEG", 0)


def write_imagefolder(
    root: Path, *, test: str = "test", classes: tuple[str, ...] = ("ant", "bee"), per_class: int = 4
) -> None:
    for part in ("train", test):
        for number, name in enumerate(classes):
            for k in range(per_class):
                write_image(root / part / name / f"{k}.png", (number * 100, k, 200), size=(40, 20))
