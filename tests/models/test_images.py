"""Images of a folder: pixels of the model's own image processor, labels, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from bitfront.errors import InvalidModel, InvalidText
from bitfront.models.images import _pixels, check_different, read_images
from bitfront.models.load import load_model
from bitfront.models.tasks import IMAGES, task_of
from bitfront.pictures import Album, by_name, number_of

CLASSES = {i: f"digit {i}" for i in range(10)}


@pytest.fixture(scope="module")
def loaded(vit_folder):
    return load_model(str(vit_folder), dtype="float32", device="cpu")


@pytest.fixture
def flat(digit_files, tmp_path):
    """Four images without subfolders, and their labels."""
    paths = sorted((digit_files / "calibration").rglob("*.png"))[::20]
    for path in paths:
        shutil.copy(path, tmp_path / path.name)
    return tmp_path, {path.name: path.parent.name for path in paths}


def read(loaded, folder, n_images, seed=0):
    return read_images(str(folder), loaded.tokenizer, CLASSES, n_images, seed)


def test_pixels_and_labels_are_those_of_the_files(loaded, digit_files, unseen_digits):
    assert task_of(loaded.module) is IMAGES
    pixels, labels = read(loaded, digit_files / "calibration", 80)
    assert pixels.shape == (80, 3, 32, 32)
    ours = sorted(zip(pixels.flatten(1).tolist(), labels.tolist(), strict=True))
    known, right = (x[:80] for x in unseen_digits)
    theirs = sorted(zip(known.flatten(1).tolist(), right.tolist(), strict=True))
    for (found, label), (expected, digit) in zip(ours, theirs, strict=True):
        assert label == digit
        assert found == pytest.approx(expected, abs=1e-6)


def test_the_seed_chooses(loaded, digit_files):
    first, again, other = (read(loaded, digit_files / "evaluation", 5, s)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_file_may_state_the_labels(loaded, flat):
    folder, names = flat
    assert read(loaded, folder, 4)[1] is None
    (folder / "labels.csv").write_text(
        "file,label\n" + "".join(f"{k},{v.upper()}\n" for k, v in names.items())
    )
    by_name = read(loaded, folder, 4)[1]
    (folder / "labels.csv").unlink()
    (folder / "labels.json").write_text(
        json.dumps({k: int(v.rpartition(" ")[2]) for k, v in names.items()})
    )
    assert torch.equal(read(loaded, folder, 4)[1], by_name)


def test_as_many_subfolders_as_classes_are_the_classes_in_order(loaded, flat, tmp_path):
    folder, names = flat
    for index, name in enumerate("abcdefghij"):
        (folder / name).mkdir()
        shutil.copy(folder / next(iter(names)), folder / name / f"{index}.png")
    for name in names:
        (folder / name).unlink()
    assert sorted(read(loaded, folder, 10)[1].tolist()) == list(range(10))


def test_a_name_of_two_classes_is_no_label():
    classes = {0: "crane", 1: "heron", 2: "Crane"}
    assert number_of("heron", classes, by_name(classes)) == 1
    with pytest.raises(InvalidText, match=r"classes 0, 2 of the model: give the number"):
        number_of("crane", classes, by_name(classes))


def test_sixteen_bits_of_grey_are_no_white(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    given = []
    _pixels(tmp_path / "grey.png", lambda images, **_: given.append(images[0]) or blank())
    seen = np.asarray(given[0], dtype=float)
    assert np.abs(seen[..., 0] - ramp / 257).max() <= 1


def test_images_of_several_sizes_are_one_clear_line(tmp_path):
    for name, size in (("a", (8, 8)), ("b", (8, 12))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")

    def uncropped(images, **_):
        return {"pixel_values": torch.zeros(1, 3, images[0].height, images[0].width)}

    with pytest.raises(InvalidText, match=r"give images of one size"):
        read_images(str(tmp_path), uncropped, {}, 2, 0)


def blank():
    return {"pixel_values": torch.zeros(1, 3, 8, 8)}


def test_what_cannot_be_used_is_one_clear_line(loaded, flat):
    folder, names = flat
    first = next(iter(names))
    with pytest.raises(InvalidText, match=r"has 4 images .* 5 are needed"):
        read(loaded, folder, 5)
    with pytest.raises(InvalidText, match="No folder of images at"):
        read(loaded, folder / first, 1)
    (folder / "labels.json").write_text(json.dumps(dict.fromkeys(names, "cat")))
    with pytest.raises(InvalidText, match=r"Label 'cat' .* is no class of the model"):
        read(loaded, folder, 4)
    (folder / "labels.json").write_text(json.dumps({first: 3}))
    with pytest.raises(InvalidText, match="has no label for"):
        read(loaded, folder, 4)
    (folder / "labels.json").write_text("{")
    with pytest.raises(InvalidText, match="Cannot read labels"):
        read(loaded, folder, 4)
    (folder / "labels.json").unlink()
    (folder / "labels.csv").write_text("one\n")
    with pytest.raises(InvalidText, match="line 1 is not"):
        read(loaded, folder, 4)
    (folder / "labels.csv").unlink()
    (folder / "10").mkdir()
    shutil.copy(folder / first, folder / "10" / "x.png")
    with pytest.raises(InvalidText, match=r"'10' .* is no class"):
        read(loaded, folder, 4)
    (folder / "10").rename(folder / "7")
    with pytest.raises(InvalidText, match="is in no subfolder"):
        read(loaded, folder, 5)
    (folder / first).write_bytes(b"no image at all")
    shutil.rmtree(folder / "7")
    with pytest.raises(InvalidText, match=r"cannot be read as an image \(it is none of PNG, JPEG"):
        read(loaded, folder, 4)
    (folder / first).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    with pytest.raises(InvalidText, match=r"it is none of PNG"):  # no program draws it
        read(loaded, folder, 4)
    for side, said in ((10_000, "10,000 x 10,000 pixels, of at most"), (20_000, "exceeds limit")):
        Image.new("1", (side, side)).save(folder / first)  # a few thousand bytes
        with pytest.raises(InvalidText, match=said):
            read(loaded, folder, 4)


def test_two_labels_of_one_image_are_refused(loaded, flat):
    folder, names = flat
    first = next(iter(names))
    lines = "".join(f"{name},{label}\n" for name, label in names.items())
    (folder / "labels.csv").write_text(f"{lines}{first},{names[first]}\n")
    assert read(loaded, folder, 4)[1] is not None
    (folder / "labels.csv").write_text(f"{lines}{first},0{names[first]}\n")
    with pytest.raises(InvalidText, match=r"has two labels for .*: remove one"):
        read(loaded, folder, 4)
    (folder / "labels.json").write_text('{"a": 1}')
    with pytest.raises(InvalidText, match=r"has labels.json and labels.csv: remove one of them"):
        read(loaded, folder, 4)
    (folder / "labels.csv").unlink()
    (folder / "labels.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(InvalidText, match=r"has two labels for 'a', '1' and '2'"):
        read(loaded, folder, 4)


def test_shared_images_are_refused():
    images = torch.randn(3, 3, 4, 4)
    with pytest.raises(InvalidText, match="'a' and evaluation images 'b' share 1:"):
        check_different(images[:2], images[1:], ("a", "b"))
    check_different(images[:2], images[2:], ("a", "b"))


def test_a_model_without_an_image_processor_is_refused(vit_folder, tmp_path):
    folder = tmp_path / "vit"
    shutil.copytree(vit_folder, folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InvalidModel, match=r"no preprocessor_config.json, which says how"):
        load_model(str(folder))


def test_links_in_a_circle_are_no_images(tmp_path):
    (tmp_path / "a.png").symlink_to("a.png")
    album = Album.of(tmp_path)
    assert album.n_images == 0
    assert album.links == (tmp_path / "a.png",)


def test_a_processor_that_makes_huge_images_is_refused(vit_folder, tmp_path):
    folder = shutil.copytree(vit_folder, tmp_path / "vit")
    path = folder / "preprocessor_config.json"
    stated = json.loads(path.read_text()) | {"size": {"height": 30000, "width": 30000}}
    path.write_text(json.dumps(stated))
    with pytest.raises(InvalidModel, match="scales images to 30,000 pixels an edge, of at most"):
        load_model(str(folder), device="cpu")
