"""The first images, or those of a list, instead of a stratified choice: what published figures on a
subset are checked with."""

import os

import pytest
import torch
from torch import nn

import rpat_cli as rpat
from rpat_cli.data.choice import First, choose, chosen_by, images_of, recorded
from rpat_cli.errors import ConfigError, DataError, RpatError
from rpat_cli.records import eval_file

LABELS = torch.tensor([0, 0, 0, 0, 1, 1])
FILES = ("val/ant/a.png", "val/ant/b.png", "val/ant/x.png", "val/ant/c.png")
FILES = (*FILES, "val/bee/a.png", os.fsdecode(b"val/bee/caf\xe9.png"))


@pytest.mark.parametrize(("limit", "expected"), [("first:3", [0, 1, 2]), ("first:9", range(6))])
def test_the_first_ones(limit, expected):
    chosen = chosen_by(limit, None)
    assert choose(chosen, LABELS).tolist() == list(expected)
    assert images_of(chosen, len(LABELS)) == len(expected)
    assert recorded(chosen) == limit


def test_a_number_is_the_stratified_choice_as_before():
    assert choose(chosen_by(3, None), LABELS).tolist() == choose(3, LABELS).tolist()
    assert recorded(chosen_by(3, None)) == 3
    assert chosen_by("first:3", None) == First(3)


@pytest.mark.parametrize(
    "limit",
    ["0", 0, -5, "-5", "first:0", "first:", "first:-1", "last:3", "ten", "10", 10.5, "", True],
)
def test_impossible_limits_are_refused(limit):
    with pytest.raises(ConfigError, match="must be a whole number, at least 1, or first:"):
        rpat.evaluate("nowhere", "clean", limit=limit)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"4\n0\n", [0, 4]),
        (b"\xef\xbb\xbf# a comment\r\n\r\n0\r\n", [0]),
        (b"val/bee/a.png\nant/b.png\nx.png\n", [1, 2, 4]),
        (b"val/bee/caf\xe9.png\n", [5]),
    ],
)
def test_a_list_of_numbers_or_names(tmp_path, text, expected):
    (tmp_path / "list.txt").write_bytes(text)
    chosen = chosen_by(None, tmp_path / "list.txt")
    assert choose(chosen, LABELS, FILES).tolist() == expected
    assert str(recorded(chosen)).startswith(f"list.txt ({len(expected)} images, ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no image"),
        ("# none\n", "names no image"),
        ("1\n2\n1\n", "names 1 more than once"),
        ("6\n", "has 6 images, numbered from 0"),
        ("a.png\n", "no such file, or several"),  # there are two
        ("ant/none.png\n", "1 of 1 images are not in the test set, ant/none.png"),
        ("b.png\nval/ant/b.png\n", "names an image twice"),
    ],
)
def test_lists_that_do_not_fit(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(RpatError, match=message):
        choose(chosen_by(None, tmp_path / "list.txt"), LABELS, FILES)


def test_what_cannot_be_a_list(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("none.txt", "cannot be read"), ("pipe", "it is a pipe")):
        with pytest.raises(ConfigError, match=message):
            chosen_by(None, tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be combined with --limit"):
        chosen_by(10, tmp_path / "list.txt")
    with pytest.raises(DataError, match="are no files of their own"):
        choose(chosen_by(None, ["a.png"]), LABELS)


def test_an_evaluation_says_which_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    labels = []
    for options in ({"limit": "first:7"}, {"images": [0, 1, 2, 3, 4, 5, 6]}, {"limit": 7}):
        evaluation, file = rpat.evaluate(model, "clean", data="fashion-mini", **options)
        assert evaluation.n == 7
        assert eval_file.read(file).limit == evaluation.limit
        labels.append(evaluation.limit)
    assert labels[0] == "first:7"
    assert "(7 images, " in labels[1]
    assert labels[2] == 7
