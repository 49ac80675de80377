"""Recipe files in other encodings, and streams that cannot show every letter."""

import subprocess
import sys

import pytest

from rpat_cli.errors import ConfigError
from rpat_cli.recipe.layers import read_yaml
from rpat_cli.recipe.suite_file import read_suite


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("name", ["recipe.yaml", "suite.yaml"])
def test_other_encodings_are_named_with_the_remedy(tmp_path, encoding, name):
    file = tmp_path / name
    file.write_bytes("# Café\nepochs: 1\n".encode(encoding))
    with pytest.raises(ConfigError, match=r"encoded in UTF.*save it as UTF-8") as caught:
        read_yaml(file) if name == "recipe.yaml" else read_suite(str(file), source="test")
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read(tmp_path, encoding):
    (tmp_path / "a.yaml").write_bytes("# Café\nepochs: 1\n".encode(encoding))
    assert read_yaml(tmp_path / "a.yaml").values == {"epochs": 1}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_streams_say_it_with_what_they_can(encoding):
    program = (
        "from rpat_cli.cli import console, streams; streams.make_streams_safe(); "
        "print('91\\u2013100 caf\\udce9'); console.error('\\u2013 \\udce9')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
    )
    dash = b"-" if encoding != "utf-8" else "\u2013".encode()
    assert done.stdout.strip() == b"91" + dash + rb"100 caf\udce9"
    assert dash + rb" \udce9" in done.stderr
