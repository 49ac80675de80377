"""What a file is that should be a checkpoint and is none, told by its first bytes."""

import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

DAMAGED = "not a checkpoint, or a damaged one"

_PAGE = (
    "but a web page (HTML): the download gave a page instead of the file. Download the file "
    "itself, and look at its first lines if that happens again"
)
_ARCHIVE = "but a compressed archive. Unpack it, and name the checkpoint in it"

_BY_FIRST_BYTES: Mapping[bytes, str] = {
    b"version https://git-lfs": "but a Git LFS pointer, which only names the file. Fetch the file "
    "itself with: git lfs pull",
    b"<!doctype html": _PAGE,
    b"<html": _PAGE,
    b"<head": _PAGE,
    b"<?xml": "but an XML text, such as the error message of a download. Download the file itself",
    b"\x89hdf\r\n": "but an HDF5 file, such as Keras writes. Save a PyTorch state dict instead: "
    "torch.save(model.state_dict(), FILE)",
    b"\x93numpy": "but a NumPy array. Save a PyTorch state dict instead: "
    "torch.save(model.state_dict(), FILE)",
    b"\x1f\x8b": _ARCHIVE,
    b"bzh": _ARCHIVE,
    b"\xfd7zxz": _ARCHIVE,
    b"(\xb5/\xfd": _ARCHIVE,
    b"7z\xbc\xaf": _ARCHIVE,
    b"rar!": _ARCHIVE,
    b"%pdf": "but a PDF document",
    b"\x89png": "but an image",
    b"\xff\xd8\xff": "but an image",
}
"""In lower case."""

_FIRST = 1024
_TAR_AT = 257


def not_a_checkpoint(path: Path) -> str:
    """What is wrong with the file, as the rest of a sentence that begins with its path: "not a
    checkpoint but ...". "" if its first bytes could be those of a checkpoint.

    Only regular files are opened: reading a pipe or a device might never end.
    """
    if not path.is_file():
        return "is not a file." if path.exists() else "no such file."
    with suppress(OSError), path.open("rb") as file:
        start = file.read(_FIRST)
        if not start:
            return f"{DAMAGED}: the file is empty."
        text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        for first, meaning in _BY_FIRST_BYTES.items():
            if text.startswith(first):
                return f"not a checkpoint {meaning}."
        if start.startswith(b"PK"):
            return _wrong_zip(path)
        if start[_TAR_AT : _TAR_AT + 5] == b"ustar":
            return f"not a checkpoint {_ARCHIVE}."
        if text.startswith((b"{", b"[")) and _is_text(start):
            return "not a checkpoint but a JSON text."
        if _is_text(start):
            return f"{DAMAGED}: it is a text that begins with {start[:40].decode().strip()!r}."
    return ""


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors does: the length of a JSON text (8 bytes), then the
    text."""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        return len(start) == 9 and start[8:] == b"{" and 2 <= length <= path.stat().st_size - 8
    return False


def _wrong_zip(path: Path) -> str:
    """torch.save writes a zip archive; its table of contents is at the end."""
    try:
        if not zipfile.is_zipfile(path):
            return f"{DAMAGED}: the end of the file is missing, as after a download that broke off."
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile raises half a dozen kinds for a damaged table
        return f"{DAMAGED} ({type(error).__name__})."
    members = {name.partition("/")[2] for name in names}
    if "constants.pkl" in members or any(member.startswith("code/") for member in members):
        return (
            "not a state dict but a TorchScript program, which is not run unasked. To measure it, "
            "write a function that returns torch.jit.load(FILE), and name it with "
            "--model-file FILE.py:FUNCTION; to have its weights only, save its state_dict()."
        )
    if names and all(name.endswith(".npy") for name in names):
        return "not a checkpoint but NumPy arrays (.npz). Save a PyTorch state dict instead."
    if "data.pkl" not in members:
        return f"not a checkpoint {_ARCHIVE}."
    return ""


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode()
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char.isspace() for char in text)
