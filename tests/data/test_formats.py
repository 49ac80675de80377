"""Every set is read from small files in its real format; everything that can be wrong with files
gives one message."""

import gzip
import shutil
import tarfile
import threading
import urllib.error
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from on_disk import (
    WNIDS,
    md5,
    trust_cifar,
    trust_svhn,
    write_cifar10,
    write_cifar100,
    write_idx,
    write_mnist,
    write_svhn,
    write_tiny_imagenet,
)
from torchvision import datasets as readers

from rpat_cli.data import fashion, tiny_imagenet
from rpat_cli.data.load import load_dataset
from rpat_cli.data.sources import File
from rpat_cli.errors import DataError


def load(name, root, **options):
    return load_dataset(name, root=root, **{"val_size": 0, "workers": 0, **options})


def error(name, root, **options) -> str:
    """The message of the DataError, which must be one line."""
    with pytest.raises(DataError) as caught:
        load(name, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def no_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", tmp_path / "debian")
    return tmp_path / "debian"


# ---- good files


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")]
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_sets(tmp_path, no_debian, name, folder, suffix):
    arrays = write_mnist(tmp_path / folder, suffix)
    data = load(name, tmp_path)
    assert np.array_equal(data.train.images.numpy()[:, 0], arrays["train"])
    assert np.array_equal(data.test.images.numpy()[:, 0], arrays["t10k"])
    assert data.test.labels.tolist() == [i % 10 for i in range(20)]


def test_fashion_mnist_of_debian_comes_second(tmp_path, no_debian):
    arrays = write_mnist(no_debian, ".gz")
    assert np.array_equal(
        load("fashion-mnist", tmp_path).train.images.numpy()[:, 0], arrays["train"]
    )
    write_mnist(tmp_path / "FashionMNIST/raw", train=30)
    assert len(load("fashion-mnist", tmp_path).train) == 30


def test_cifar10(tmp_path, monkeypatch, capsys):
    images = write_cifar10(tmp_path)
    trust_cifar(monkeypatch, readers.CIFAR10, tmp_path)
    for download in (False, True):
        data = load("cifar10", tmp_path, download=download)
        assert np.array_equal(data.train.images.numpy(), images)
        assert data.train.labels.tolist() == [i % 10 for i in range(20)] * 5
        assert data.class_names == tuple(f"thing{i}" for i in range(10))
    assert capsys.readouterr().out == ""


def test_cifar10_unpacks_an_archive_put_there_by_hand(tmp_path, monkeypatch, no_network):
    images = write_cifar10(tmp_path / "made")
    trust_cifar(monkeypatch, readers.CIFAR10, tmp_path / "made")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made/cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(readers.CIFAR10, "tgz_md5", md5(archive))
    assert np.array_equal(load("cifar10", tmp_path).train.images.numpy(), images)


def test_cifar100_has_fine_labels_and_its_own_mean(tmp_path, monkeypatch):
    write_cifar100(tmp_path)
    trust_cifar(monkeypatch, readers.CIFAR100, tmp_path)
    data = load("cifar100", tmp_path)
    assert data.classes == 100
    assert data.train.labels.tolist() == [i % 100 for i in range(300)]
    assert data.mean == (0.5071, 0.4865, 0.4409)


def test_svhn_digit_ten_is_zero(tmp_path, monkeypatch):
    images = write_svhn(tmp_path)
    trust_svhn(monkeypatch, readers.SVHN, tmp_path)
    data = load("svhn", tmp_path, val_size=10)
    assert len(data.train) == 50
    assert np.array_equal(data.test.images.numpy(), images)
    assert data.test.labels.tolist() == [(i + 1) % 10 for i in range(60)]


@pytest.mark.parametrize("layout", ["annotated", "refolded", "refolded-images"])
def test_tiny_imagenet(tmp_path, layout):
    write_tiny_imagenet(tmp_path, layout=layout)
    data = load("tiny-imagenet", tmp_path)
    assert (len(data.train), len(data.test), data.classes) == (400, 200, 200)
    assert data.class_names[:2] == ("goldfish", WNIDS[1])
    x, y = data.test.to("cpu").tensors()
    red = (x[:, 0].mean((1, 2)) * 255).round()
    assert (red - y).abs().max() <= 3  # the color tells the class, up to what JPEG does to it
    assert data.shape == (3, 64, 64)


@pytest.fixture
def server(tmp_path):
    """A web server on this machine; yields its folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()


def test_mnist_is_downloaded_once(tmp_path, monkeypatch, server, capfd):
    folder, url = server
    arrays = write_mnist(folder, ".gz")
    monkeypatch.setattr(readers.MNIST, "mirrors", [url])
    sums = [(name, md5(folder / name)) for name, _ in readers.MNIST.resources]
    monkeypatch.setattr(readers.MNIST, "resources", sums)
    data = load("mnist", tmp_path / "root", download=True)
    assert np.array_equal(data.train.images.numpy()[:, 0], arrays["train"])
    assert capfd.readouterr().out == ""
    monkeypatch.setattr(readers.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    assert len(load("mnist", tmp_path / "root", download=True).train) == 40


@pytest.mark.parametrize("whole", [True, False])
def test_tiny_imagenet_is_downloaded_and_unpacked(tmp_path, monkeypatch, server, whole):
    folder, url = server
    write_tiny_imagenet(tmp_path / "made", layout="annotated")
    archive = Path(shutil.make_archive(str(folder / "tiny-imagenet-200"), "zip", tmp_path / "made"))
    published = File(archive.name, md5(archive), url + archive.name)
    monkeypatch.setattr(
        tiny_imagenet, "SOURCE", replace(tiny_imagenet.SOURCE, archives=(published,))
    )
    if whole:
        assert len(load("tiny-imagenet", tmp_path / "root", download=True).test) == 200
    else:
        archive.write_bytes(archive.read_bytes()[:5000])
        message = error("tiny-imagenet", tmp_path / "root", download=True)
        assert "the download failed" in message
        assert "half downloaded" in message


# -- missing, damaged, wrong
# ----

EXPECTED = {
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "cifar100": "cifar-100-python/train",
    "svhn": "train_32x32.mat",
    "tiny-imagenet": "tiny-imagenet-200/train",
}
ARCHIVE = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte.gz",
    "fashion-mnist": "FashionMNIST/raw/train-images-idx3-ubyte.gz",
    "cifar10": "cifar-10-python.tar.gz",
    "cifar100": "cifar-100-python.tar.gz",
    "svhn": "train_32x32.mat",
    "tiny-imagenet": "tiny-imagenet-200.zip",
}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_missing_data_names_the_path_and_the_command(tmp_path, no_debian, name):
    message = error(name, tmp_path / "none")
    assert f"not found at {tmp_path / 'none' / EXPECTED[name]}" in message
    assert f"rpat train --data {name} --download" in message
    assert Path(ARCHIVE[name]).name in message
    assert message.endswith(f"into {(tmp_path / 'none' / ARCHIVE[name]).parent}/")
    if name == "fashion-mnist":
        assert str(no_debian) in message
        assert "apt install dataset-fashion-mnist" in message


@pytest.mark.parametrize("name", list(EXPECTED))
def test_failed_download(tmp_path, no_debian, no_network, name, capsys):
    message = error(name, tmp_path, download=True)
    assert f"{name}: the download failed" in message
    assert "name resolution" in message
    assert message.endswith(f"into {(tmp_path / ARCHIVE[name]).parent}/")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "tiny-imagenet"])
@pytest.mark.parametrize("download", [False, True])
def test_half_downloaded_archive(tmp_path, no_network, name, download):
    (tmp_path / ARCHIVE[name]).write_bytes(b"\x1f\x8b half of it")
    message = error(name, tmp_path, download=download)
    if download:
        assert "the download failed" in message
        assert f"{tmp_path / ARCHIVE[name]} is damaged or half downloaded" in message
    else:
        assert f"{tmp_path / ARCHIVE[name]} (13 bytes) is damaged" in message
        assert f"Delete it, then run: rpat train --data {name} --download" in message


def test_wrong_checksum_names_the_file(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    trust_cifar(monkeypatch, readers.CIFAR10, tmp_path)
    with (tmp_path / "cifar-10-batches-py/data_batch_3").open("ab") as file:
        file.write(b"!")
    assert "data_batch_3" in (message := error("cifar10", tmp_path))
    assert "checksum" in message


def test_files_of_another_make_are_refused(tmp_path):
    write_cifar10(tmp_path)  # right format, but not the published checksums
    assert "checksum is wrong" in error("cifar10", tmp_path)
    write_svhn(tmp_path)
    assert "checksum is wrong" in error("svhn", tmp_path)


def test_incomplete_folder_names_the_first_missing_file(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    trust_cifar(monkeypatch, readers.CIFAR10, tmp_path)
    (tmp_path / "cifar-10-batches-py/batches.meta").unlink()
    assert "cifar-10-batches-py/batches.meta" in error("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("cifar10", "cifar-10-batches-py"),
        ("mnist", "MNIST/raw"),
        ("tiny-imagenet", "tiny-imagenet-200"),
    ],
)
def test_a_root_inside_the_data_set_is_recognized(tmp_path, name, inner):
    if name == "cifar10":
        write_cifar10(tmp_path)
    elif name == "mnist":
        write_mnist(tmp_path / inner, ".gz")
    else:
        write_tiny_imagenet(tmp_path, layout="annotated")
    message = error(name, tmp_path / inner)
    assert "lies inside the data set" in message
    assert message.endswith(f"the folder that holds {inner.split('/')[0]}/.")


def _cut(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_file_cut_short(tmp_path, suffix):
    write_mnist(tmp_path / "MNIST/raw", suffix)
    broken = tmp_path / f"MNIST/raw/train-images-idx3-ubyte{suffix}"
    _cut(broken)
    message = error("mnist", tmp_path)
    assert f"{broken} (" in message
    assert "is damaged" in message


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"\0\0\x08\x03\0\0", b"<html>404</html>", b"\0\0\x0d\x03" + bytes(40)],
)
def test_not_an_idx_file(tmp_path, content):
    write_mnist(tmp_path / "MNIST/raw")
    (tmp_path / "MNIST/raw/t10k-images-idx3-ubyte").write_bytes(content)
    assert "not an idx file" in error("mnist", tmp_path)


def test_gzip_with_a_wrong_checksum(tmp_path):
    write_mnist(tmp_path / "MNIST/raw", ".gz")
    path = tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz"
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # in the CRC
    path.write_bytes(bytes(data))
    assert "CRC check failed" in error("mnist", tmp_path)
    path.write_bytes(gzip.compress(b"text"))
    assert "not an idx file" in error("mnist", tmp_path)


def test_images_and_labels_of_two_sets(tmp_path):
    write_mnist(tmp_path / "MNIST/raw")
    write_idx(tmp_path / "MNIST/raw/train-labels-idx1-ubyte", np.zeros(41, dtype=np.uint8))
    assert "40 images but 41 labels" in error("mnist", tmp_path)


def test_tiny_imagenet_half_unpacked(tmp_path):
    write_tiny_imagenet(tmp_path, layout="annotated")
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val/images/val_7.JPEG").unlink()
    assert "val_7.JPEG" in error("tiny-imagenet", tmp_path)
    table = folder / "val/val_annotations.txt"
    table.write_text("val_1.JPEG\tn99999999\t0\t0\t1\t1\n")
    assert "n99999999" in error("tiny-imagenet", tmp_path)
    table.write_text("val_1.JPEG\n")
    assert "val_annotations.txt is damaged" in error("tiny-imagenet", tmp_path)
    table.unlink()
    assert "neither" in error("tiny-imagenet", tmp_path)
    table.write_text("val_1.JPEG\tn00000198\n")
    for path in sorted((folder / "train" / WNIDS[5]).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert WNIDS[5] in error("tiny-imagenet", tmp_path)
    (folder / "train" / WNIDS[5]).rmdir()
    assert "199 classes" in error("tiny-imagenet", tmp_path)


def test_no_random_number_is_drawn(tmp_path):
    write_mnist(tmp_path / "MNIST/raw")
    state = torch.get_rng_state()
    load("mnist", tmp_path, val_size=5)
    assert torch.equal(state, torch.get_rng_state())
