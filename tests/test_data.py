"""Data sets: their contents, splits that share nothing, and errors for unsuitable files."""

from __future__ import annotations

import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.nn import DataError, load_dataset, load_digits_split
from refconv.nn.data import (
    DATASETS,
    PhotographCrops,
    Split,
    augment,
    bundled_photographs,
    bundled_textures,
    color_components,
    cut_patches,
    load_cifar10,
    load_folder,
    load_photographs_split,
    load_textures_split,
    ten_crops,
)
from refconv.nn.data.resize import resized
from refconv.nn.data.split import make_split
from tests.nn_helpers import rng

PHOTOGRAPHS = ("astronaut", "chelsea", "china", "coffee", "flower", "retina", "rocket")


def images_package(name: str = "skimage") -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed: no images")


def same(a: Split, b: Split) -> bool:
    return a.classes == b.classes and all(np.array_equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))


def check_split(split: Split, train: int, test: int, image: tuple[int, int, int], classes: tuple[str, ...]) -> None:
    """Check shapes, types, labels and the standardisation of a Split."""
    assert [part.shape for part in split[:4]] == [(train, *image), (train,), (test, *image), (test,)]
    assert [part.dtype for part in split[:4]] == ["float32", "int64"] * 2
    assert split.classes == classes
    for labels in (split.train_labels, split.test_labels):
        assert set(labels.tolist()) <= set(range(len(classes)))
    wide = split.train_images.astype("float64")
    # Every value was rounded to float32 once, by at most 2⁻²⁴ of itself, and the values' mean square is 1.
    np.testing.assert_allclose(wide.mean(axis=(0, 2, 3)), 0, atol=2**-23)
    np.testing.assert_allclose(wide.std(axis=(0, 2, 3)), 1, atol=2**-23)


# --- Splits and their standardisation ---


def test_images_are_standardised_by_the_training_images_alone() -> None:
    train = rng().integers(0, 256, (5, 2, 3, 4)).astype("uint8")
    train[:, 1] //= 4  # another mean and deviation in the second channel
    test = np.full((2, 2, 3, 4), 255, "uint8")
    labels = np.array([1, 0, 1, 0, 1])
    split = make_split(train, labels, test, labels[:2], ["a", "b"])
    check_split(split, 5, 2, (2, 3, 4), ("a", "b"))
    for channel in range(2):
        mean, deviation = np.mean(train[:, channel], dtype="float64"), np.std(train[:, channel], dtype="float64")
        for found, raw in ((split.train_images, train), (split.test_images, test)):
            expected = (raw[:, channel].astype("float64") - mean) / deviation
            np.testing.assert_allclose(found[:, channel], expected, rtol=2**-22, atol=0)
        assert split.scale[channel] == pytest.approx((mean / 255, deviation / 255), rel=1e-12)
    again = make_split(train, labels, test // 2, labels[:2], ["a", "b"])
    np.testing.assert_array_equal(again.train_images, split.train_images)


def test_many_images_are_counted_whole() -> None:
    train = np.arange(2500, dtype="uint8").reshape(2500, 1, 1, 1)
    split = make_split(train, np.zeros(2500), train[:1], np.zeros(1), ["a"])
    check_split(split, 2500, 1, (1, 1, 1), ("a",))


def test_a_channel_of_one_value_is_only_shifted() -> None:
    train = np.full((2, 1, 2, 2), 7, "uint8")
    split = make_split(train, np.zeros(2), train + np.uint8(1), np.zeros(2), ["a"])
    assert np.all(split.train_images == 0)
    assert np.all(split.test_images == 1)


def test_digits_enlarged() -> None:
    images_package("sklearn")
    datasets = images_package("sklearn.datasets")
    check_split(load_digits_split(), 1347, 450, (1, 8, 8), tuple("0123456789"))
    small = load_digits_split(3, test_size=40)
    check_split(small, 1757, 40, (1, 8, 8), tuple("0123456789"))
    assert same(small, load_digits_split(3, test_size=40))
    assert not same(small, load_digits_split(4, test_size=40))
    every = np.concatenate([small.train_images, small.test_images])
    counts = np.unique(every, return_inverse=True)[1].reshape(-1, 64)  # grey values in order: 0 … 16
    ((mean, deviation),) = small.scale
    assert [every.min() * deviation + mean, every.max() * deviation + mean] == pytest.approx([0, 1], abs=1e-6)
    labels = np.concatenate([small.train_labels, small.test_labels])
    images, known = datasets.load_digits(return_X_y=True)
    found = np.column_stack([counts, labels]).tolist()
    assert sorted(found) == sorted(np.column_stack([images, known]).astype("int64").tolist())
    for side in (16, 24, 32):
        large = load_digits_split(3, test_size=40, side=side)
        for found, original in zip(large[:4:2], small[:4:2], strict=True):
            np.testing.assert_array_equal(found, np.kron(original, np.ones((side // 8, side // 8), "float32")))
        np.testing.assert_array_equal(large.train_labels, small.train_labels)


@pytest.mark.parametrize("side", [0, 4, 12, 40, 64, -8])
def test_digits_have_no_other_side(side: int) -> None:
    with pytest.raises(ValueError, match=rf"side must be .*got {side}"):
        load_digits_split(side=side)


# --- Patches ---


def ids(*shape: int) -> Any:
    """Return an image in which all values differ."""
    return np.arange(np.prod(shape)).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "patch"), [((11, 22), 2), ((25, 13), 3), ((12, 9), 1), ((19, 10, 3), 2), ((6, 13), 3)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_pixel_is_both_trained_on_and_tested_with(shape: tuple[int, ...], patch: int, seed: int) -> None:
    image = ids(*shape)
    train, _, test, _ = cut_patches({"ids": image}, seed, patch=patch, train_per_class=3000, test_per_class=1000)
    trained, tested = set(train.ravel().tolist()), set(test.ravel().tolist())
    assert not trained & tested
    assert trained | tested == set(range(image.size))  # the blocks cover the image, and every one is used
    blocks = (shape[0] // (2 * patch)) * (shape[1] // (2 * patch))
    assert abs(len(tested) / image.size - 1 / 4) < 1.6 / blocks  # a half by rounding, and unequal blocks


def test_every_block_is_used_by_the_fewest_patches_that_can() -> None:
    image = ids(16, 12)  # patches of 2 in blocks of 4: 12 blocks, 3 of them for testing
    train, _, test, _ = cut_patches({"ids": image}, 0, patch=2, train_per_class=9, test_per_class=3)
    block = [{(i // 12 // 4, i % 12 // 4) for i in patch.ravel().tolist()} for patch in (*train, *test)]
    assert all(len(one) == 1 for one in block)
    assert len(set.union(*block)) == 12


@pytest.mark.parametrize(("trained", "tested"), [(1, 9), (9, 1)])
def test_two_blocks_are_one_for_either_side(trained: int, tested: int) -> None:
    train, _, test, _ = cut_patches({"a": ids(4, 8)}, 0, patch=2, train_per_class=trained, test_per_class=tested)
    assert (len(train), len(test)) == (trained, tested)
    assert not set(train.ravel().tolist()) & set(test.ravel().tolist())


def test_patches_are_parts_of_their_image_and_only_training_patches_are_mirrored() -> None:
    first, second = ids(20, 30, 3), ids(17, 16, 3) + 10_000
    parts = cut_patches({"a": first, "b": second}, 5, patch=3, train_per_class=400, test_per_class=100)
    mirrored = []
    for patches, labels in (parts[:2], parts[2:]):
        assert np.bincount(labels).tolist() == [len(patches) // 2] * 2
        assert len(np.flatnonzero(np.diff(labels))) > len(labels) / 3  # mixed, not one class after the other
        count = 0
        for found, label in zip(patches, labels, strict=True):
            image = (first, second)[label]
            top, left = np.argwhere(image[:, :, 0] == found[0].min())[0]
            expected = image[top : top + 3, left : left + 3]
            if found[0, 0, 0] > found[0, 0, 1]:
                count, expected = count + 1, expected[:, ::-1]
            np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))
        mirrored.append(count)
    assert 330 < mirrored[0] < 470  # of 800: within five standard deviations
    assert mirrored[1] == 0


def test_patches_depend_on_the_seed_alone() -> None:
    def cut(seed: int) -> Any:
        return cut_patches({"a": ids(20, 20)}, seed, patch=2, train_per_class=9, test_per_class=4)

    assert all(np.array_equal(a, b) for a, b in zip(cut(1), cut(1), strict=True))
    assert not np.array_equal(cut(1)[0], cut(2)[0])


@pytest.mark.parametrize("shape", [(7, 7), (3, 40), (4, 4)])
def test_a_patch_too_large_for_two_blocks(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"two blocks of 4×4 in each image.*wall has \d+×\d+; got patch 2"):
        cut_patches({"wall": ids(*shape)}, 0, patch=2, train_per_class=1, test_per_class=1)


@pytest.mark.parametrize("wrong", [{"patch": 0}, {"train_per_class": 0}, {"test_per_class": -1}, {"seed": -1}])
def test_patches_refuse_wrong_numbers(wrong: dict[str, int]) -> None:
    (name,) = wrong
    arguments = {"seed": 0, "patch": 2, "train_per_class": 3, "test_per_class": 3} | wrong
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        cut_patches({"a": ids(9, 9)}, **arguments)


TEXTURES = ("brick", "grass", "gravel")


@pytest.mark.parametrize(
    ("load", "train", "test", "image", "classes"),
    [
        (load_textures_split, 400, 150, (1, 16, 16), TEXTURES),
        (load_photographs_split, 300, 100, (3, 32, 32), PHOTOGRAPHS),
    ],
)
def test_bundled_images(load: Any, train: int, test: int, image: Any, classes: Any) -> None:
    images_package()
    images_package("sklearn")
    n = len(classes)
    split = load()
    check_split(split, n * train, n * test, image, classes)
    assert np.bincount(split.train_labels).tolist() == [train] * n
    few = load(2, patch=20, train_per_class=7, test_per_class=5)
    check_split(few, 7 * n, 5 * n, (image[0], 20, 20), classes)
    assert same(few, load(2, patch=20, train_per_class=7, test_per_class=5))
    assert not same(few, load(3, patch=20, train_per_class=7, test_per_class=5))


def test_the_bundled_originals() -> None:
    images_package()
    images_package("sklearn")
    assert {image.shape for image in bundled_textures().values()} == {(512, 512)}
    photographs = bundled_photographs()
    assert tuple(photographs) == PHOTOGRAPHS
    assert {(image.dtype.name, image.shape[2]) for image in photographs.values()} == {("uint8", 3)}
    with pytest.raises(ValueError, match="chelsea has 300×451; got patch 120"):
        load_photographs_split(patch=120)


def test_bundled_images_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    images_package()
    images_package("sklearn")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    bundled_photographs()
    bundled_textures()


@pytest.mark.parametrize(
    ("package", "load", "message"),
    [
        ("sklearn.datasets", load_digits_split, "the digits need scikit-learn"),
        ("skimage", load_textures_split, "the textures need scikit-image"),
        ("skimage", load_photographs_split, "the photographs need scikit-learn and scikit-image"),
        ("sklearn.datasets", PhotographCrops, "the photographs need scikit-learn and scikit-image"),
    ],
)
def test_a_missing_package_is_named(
    package: str, load: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=f"{message}: pip install {message.partition(' need ')[2].replace(' and', '')}$"
    ):
        load()


# --- CIFAR-10 ---

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Return a folder in CIFAR-10's binary format, with one to six records per file."""
    for count, name in enumerate([*TRAIN, "test_batch.bin"], start=1):
        records = rng(count).integers(0, 256, (count, 3073)).astype("uint8")
        records[:, 0] = np.arange(count) + 4
        (tmp_path / name).write_bytes(records.tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return tmp_path


def test_cifar10(cifar: Path) -> None:
    split = load_cifar10(cifar)
    check_split(split, 15, 6, (3, 32, 32), tuple(NAMES))
    assert split.train_labels.tolist() == [4, 4, 5, 4, 5, 6, 4, 5, 6, 7, 4, 5, 6, 7, 8]
    assert split.test_labels.tolist() == [4, 5, 6, 7, 8, 9]
    raw = b"".join((cifar / name).read_bytes() for name in TRAIN)
    pixels = np.empty((15, 3, 32, 32))
    for n, c, y, x in np.ndindex(pixels.shape):
        pixels[n, c, y, x] = raw[3073 * n + 1 + 1024 * c + 32 * y + x]
    mean, deviation = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
    expected = (pixels - mean[:, None, None]) / deviation[:, None, None]
    np.testing.assert_allclose(split.train_images, expected, rtol=2**-22, atol=1e-12)


def test_cifar10_in_its_subfolder(cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    above = tmp_path_factory.mktemp("above")
    cifar.rename(above / "cifar-10-batches-bin")
    assert load_cifar10(str(above)).classes == tuple(NAMES)


def change(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def to_python_version(folder: Path, above: str = ".") -> None:
    (folder / above).mkdir(exist_ok=True)
    for name in (*TRAIN, "test_batch.bin"):
        (folder / name).rename(folder / above / name.removesuffix(".bin"))


def folder_for_a_file(folder: Path) -> None:
    (folder / "data_batch_2.bin").unlink()
    (folder / "data_batch_2.bin").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            change("data_batch_4.bin", lambda data: data[:-1]),
            r"data_batch_4.bin has 12,291 bytes; expected a multiple of 3,073 .*30,730,000 bytes",
        ),
        (
            change("test_batch.bin", lambda data: data + b"\0"),
            r"test_batch.bin has 18,439 bytes; expected a multiple of 3,073",
        ),
        (change("data_batch_1.bin", lambda data: b""), r"data_batch_1.bin has 0 bytes; .*at least one record"),
        (
            change("data_batch_3.bin", lambda data: data[: 2 * 3073] + b"\n" + data[2 * 3073 + 1 :]),
            r"data_batch_3.bin: the label of record 2 \(from 0\) is 10; expected 0 … 9",
        ),
        (to_python_version, "Python version of CIFAR-10, which uses pickle and is never.*CIFAR-10 binary version"),
        (
            lambda f: to_python_version(f, "cifar-10-batches-py"),
            "-py contains the Python version of CIFAR-10, which uses pickle.*CIFAR-10 binary version",
        ),
        (lambda f: (f / "data_batch_5.bin").unlink(), r"lacks data_batch_5.bin; expected the CIFAR-10 binary version"),
        (lambda f: (f / "batches.meta.txt").unlink(), r"lacks batches.meta.txt; expected"),
        (change("batches.meta.txt", lambda data: b"cat\ndog\n"), r"batches.meta.txt must contain.*10.*got 2"),
        (folder_for_a_file, r"data_batch_2.bin is not a file"),
    ],
)
def test_cifar10_damaged(cifar: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(cifar)
    with pytest.raises(DataError, match=message) as caught:
        load_cifar10(cifar)
    assert str(cifar) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_cifar10_does_not_wait_for_a_pipe(cifar: Path) -> None:
    pipe = cifar / "test_batch.bin"
    pipe.unlink()
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)  # without it, a wrong reader would wait forever
    os.write(writer, b"x")
    threading.Timer(0.2, os.close, [writer]).start()
    with pytest.raises(DataError, match=r"test_batch.bin is not a file"):
        load_cifar10(cifar)


@pytest.mark.parametrize("load", [load_cifar10, load_folder])
def test_a_name_that_the_system_refuses(load: Callable[[str], object]) -> None:
    with pytest.raises(DataError, match=r"^x{999}.* (cannot be read|is missing)"):
        load("x" * 5000)


def test_cifar10_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is missing; expected the CIFAR-10 binary version"):
        load_cifar10(tmp_path / "nowhere")
    (tmp_path / "cifar-10-binary.tar.gz").touch()
    with pytest.raises(DataError, match=r"tar.gz is not a folder; expected"):
        load_cifar10(tmp_path / "cifar-10-binary.tar.gz")
    with pytest.raises(DataError, match=r"lacks data_batch_1.bin, data_batch_2.bin.*batches.meta.txt; expected"):
        load_cifar10(tmp_path)


# --- Folders of images ---


def save(path: Path, pixels: Any, **options: Any) -> None:
    image = images_package("PIL.Image")
    path.parent.mkdir(exist_ok=True)
    image.fromarray(np.asarray(pixels, "uint8")).save(path, **options)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Return a folder of five cats, three dogs and things to ignore. Image n has the single colour (10·n, n, 255−n)."""
    images_package("PIL.Image")
    for n in range(8):
        name = f"cat/{n}.png" if n < 5 else f"dog/{n}.PNG"
        save(tmp_path / name, np.broadcast_to([10 * n, n, 255 - n], (4 + n, 6, 3)))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / "cat" / "further").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "labels.csv").write_text("no image")
    return tmp_path


def shades(split: Split) -> tuple[list[float], list[float]]:
    """Return the original red values of the training and of the test images."""
    red = np.concatenate([split.train_images, split.test_images])[:, 0, 0, 0]
    order = np.argsort(np.argsort(red)).tolist()
    return order[: len(split.train_labels)], order[len(split.train_labels) :]


def test_a_folder(pets: Path) -> None:
    split = load_folder(pets, side=5, test_fraction=0.4)
    check_split(split, 5, 3, (3, 5, 5), ("cat", "dog"))
    assert sorted(split.train_labels.tolist()) == [0, 0, 0, 1, 1]
    train, test = shades(split)
    assert sorted(train + test) == list(range(8))
    for shade, label in zip(train + test, [*split.train_labels, *split.test_labels], strict=True):
        assert label == (shade >= 5)
    assert same(split, load_folder(str(pets), side=5, test_fraction=0.4))
    drawn = {tuple(sorted(shades(load_folder(pets, side=2, seed=seed))[1])) for seed in range(8)}
    assert len(drawn) > 3
    check_split(load_folder(pets), 6, 2, (3, 32, 32), ("cat", "dog"))  # one of five, one of three
    for fraction, tests in ((0.01, 2), (0.99, 6)):  # at least one per class on either side
        assert len(load_folder(pets, side=2, test_fraction=fraction).test_labels) == tests


def raw_images(folder: Path, side: int) -> list[Any]:
    """Return the original images of the first class; a black and a white image in the second class give the scale."""
    split = load_folder(folder, side=side)
    every = np.concatenate([split.train_images, split.test_images])
    low, high = every.min(axis=(0, 2, 3), keepdims=True), every.max(axis=(0, 2, 3), keepdims=True)
    every = np.rint((every - low) / (high - low) * 255).astype("int64")
    labels = np.concatenate([split.train_labels, split.test_labels])
    return [image for image, label in zip(every, labels, strict=True) if label == 0]


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    save(tmp_path / "scale/black.png", np.zeros((9, 9, 3)))
    save(tmp_path / "scale/white.png", np.full((9, 9, 3), 255))
    return tmp_path


@pytest.mark.parametrize(("height", "width"), [(4, 9), (8, 4), (4, 4)])
def test_the_centre_square_is_cut_out_exactly(scaled: Path, height: int, width: int) -> None:
    pixels = rng().integers(0, 256, (height, width, 3))
    for name in "ab":
        save(scaled / "image" / f"{name}.png", pixels)
    top, left = (height - 4) // 2, (width - 4) // 2
    for found in raw_images(scaled, 4):
        np.testing.assert_array_equal(found, pixels[top : top + 4, left : left + 4].transpose(2, 0, 1))


def test_modes_and_turns(scaled: Path) -> None:
    image = images_package("PIL.Image")
    pixels = rng().integers(0, 256, (3, 3, 3))
    turned = image.fromarray(pixels.astype("uint8"))
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was rotated: the top row is the picture's right column
    turned.save(scaled / "scale" / "turned.png", exif=exif)
    (scaled / "image").mkdir()
    (scaled / "scale" / "turned.png").rename(scaled / "image" / "turned.png")
    save(scaled / "image" / "grey.png", pixels[:, :, 0])
    palette = image.fromarray(pixels[:, :, 0].astype("uint8")).convert("P")
    palette.save(scaled / "image" / "palette.png", transparency=bytes(range(255, -1, -1)))
    alpha = np.concatenate([pixels, pixels[:, :, :1]], axis=2)
    save(scaled / "image" / "alpha.png", alpha)
    found = [image.tolist() for image in raw_images(scaled, 3)]
    grey = np.broadcast_to(pixels[:, :, 0], (3, 3, 3)).tolist()
    plain = pixels.transpose(2, 0, 1)
    expected = [np.rot90(plain, -1, (1, 2)).tolist(), grey, grey, plain.tolist()]
    assert sorted(found) == sorted(expected)


def png_of(width: int, height: int, text: bytes = b"") -> bytes:
    """Return a small PNG file whose header states this size, with a compressed text."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    note = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text))
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + note + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def truncated(file: Path) -> None:
    save(file, rng().integers(0, 256, (40, 40, 3)))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    file.write_bytes(data)


def deep(file: Path) -> None:
    pixels = np.arange(16, dtype="uint16").reshape(4, 4) * 4000
    images_package("PIL.Image").fromarray(pixels).save(file)


def containing(data: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("dog/cut.png", truncated, "cannot be read as an image: .*truncated"),
        ("dog/cut.jpg", truncated, "cannot be read as an image: .*truncated"),
        ("dog/a.png", containing(b""), "is not an image in a format that Pillow knows"),
        ("dog/a.png", containing(b"hello"), "is not an image in a format that Pillow knows"),
        ("dog/a.png", containing(b"\x89PNG\r\n\x1a\n" + b"x" * 50), "cannot be read as an image|not an image in a"),
        ("dog/a.png", containing(png_of(0, 3)), "cannot be read as an image|not an image in a format"),
        (
            "dog/a.png",
            containing(png_of(10_000, 10_000)),
            r"more pixels than Pillow considers safe: .*100000000 pixels",
        ),
        ("dog/a.png", containing(png_of(60_000, 60_000)), r"more pixels than Pillow considers safe: .*3600000000"),
        (
            "dog/a.png",
            containing(png_of(8, 8, bytes(2**21))),
            "cannot be read as an image: Decompressed data too large",
        ),
        ("dog/5.PNG", flipped, "cannot be read as an image"),
        ("dog/a.png", deep, "has Pillow's mode I;16; expected at most 8 bits per channel"),
        ("dog/a.png", lambda file: file.symlink_to(file), "is a symbolic link that leads nowhere, or to itself"),
        ("ant", lambda folder: folder.symlink_to(folder), "is a symbolic link that leads nowhere, or to itself"),
        ("dog/pipe.png", lambda file: os.mkfifo(file), "is not a file; expected an image"),
        ("dog/folder.png", Path.mkdir, "is not a file; expected an image"),
        ("pets", lambda folder: folder.symlink_to(folder.parent), "has 0 images; expected one subfolder per class"),
        ("empty", Path.mkdir, "has 0 images; expected one subfolder per class"),
        (
            "fox",
            lambda folder: save(folder / "0.png", [[0]]),
            "has 1 images; expected one subfolder per class, at least t",
        ),
    ],
)
def test_a_folder_damaged(pets: Path, name: str, damage: Callable[[Path], object], message: str) -> None:
    culprit = pets / name
    damage(culprit)
    with pytest.raises(DataError, match=message) as caught:
        load_folder(pets)
    assert str(caught.value).startswith(f"{culprit} ")
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(str(culprit)) == 1


def test_damaged_metadata_is_neither_refused_nor_warned_of(pets: Path) -> None:
    image = images_package("PIL.Image")
    exif = image.Exif()
    exif[0x010E] = "a description"
    data = exif.tobytes()[:-30]
    image.new("RGB", (4, 4)).save(pets / "dog" / "damaged.png", exif=data)
    with pytest.warns(UserWarning, match="EXIF"), image.open(pets / "dog" / "damaged.png") as opened:
        opened.getexif()
    assert len(load_folder(pets, side=2).train_labels) == 7


def test_a_png_cut_anywhere_is_refused(pets: Path) -> None:
    whole = (pets / "dog/5.PNG").read_bytes()
    end = whole.index(b"IDAT")  # everything after the pixels is optional for Pillow
    for length in range(0, end + 8, 3):
        (pets / "dog/5.PNG").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"5.PNG "):
            load_folder(pets, side=1)


def test_a_folder_without_subfolders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is missing; expected one subfolder per class"):
        load_folder(tmp_path / "nowhere")
    save(tmp_path / "cat.png", np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match=r"has 0 subfolders; expected one subfolder per class, at least two"):
        load_folder(tmp_path)
    with pytest.raises(DataError, match=r"cat.png is not a folder; expected"):
        load_folder(tmp_path / "cat.png")
    save(tmp_path / "cat" / "1.png", np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match=r"has 1 subfolders; expected one subfolder per class, at least two"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"side": 0}, "side must be at least 1"),
        ({"side": 10**6}, "side must be at most 4096"),
        ({"test_fraction": 0}, "test_fraction must be finite and more than 0"),
        ({"test_fraction": 1}, "test_fraction must be finite and more than 0 and less than 1"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_a_folder_refuses_wrong_numbers(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_folder("anywhere", **wrong)


def test_a_folder_needs_pillow(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"images need Pillow: pip install Pillow$"):
        load_folder(pets)


# --- Augmentation ---

TURN = np.array([[2, 1, 2], [1, 2, -2], [-2, 2, 1]])  # three times a rotation; not symmetric, so rows are not columns


def test_components_of_a_known_set() -> None:
    """All eight pixels m ± a·p₁ ± b·p₂ ± c·p₃ have variances a², b², c² along the axes p."""
    signs = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])
    pixels = 100 + (signs * [2, 5, 3]) @ TURN.T  # (8, 3): axes of length 3
    images = pixels.reshape(2, 2, 2, 3).transpose(0, 3, 1, 2)
    eigenvalues, eigenvectors = color_components(images.astype("uint8"))
    np.testing.assert_allclose(eigenvalues, [9 * 25, 9 * 9, 9 * 4], rtol=1e-13)
    # The largest entry of each column is positive; if two are equally large, either may be.
    for found, axis in zip(eigenvectors.T, TURN.T[[1, 2, 0]] / 3, strict=True):
        np.testing.assert_allclose(found * np.sign(found @ axis), axis, atol=1e-13)


def test_components_against_numpy() -> None:
    images = rng().normal(size=(300, 3, 4, 5)) * [[[3]], [[1]], [[2]]] + [[[5]], [[6]], [[7]]]
    images[:, 1] += images[:, 0]
    covariance = np.cov(images.transpose(1, 0, 2, 3).reshape(3, -1), bias=True)
    eigenvalues, eigenvectors = color_components(images)
    np.testing.assert_allclose(covariance @ eigenvectors, eigenvectors * eigenvalues, atol=1e-12)
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(3), atol=1e-14)
    assert eigenvalues[0] > eigenvalues[1] > eigenvalues[2] > 0
    assert np.all(eigenvectors[np.abs(eigenvectors).argmax(axis=0), range(3)] > 0)


def test_crops_and_mirror_images_are_parts_of_the_image() -> None:
    images = np.stack([ids(3, 7, 9) + 1000 * n for n in range(500)])
    found = augment(images, rng(1), crop=5)
    assert found.dtype == np.float32
    assert found.shape == (500, 3, 5, 5)
    places = np.zeros((3, 5, 2), int)
    for n, crop in enumerate(found):
        mirrored = int(crop[0, 0, 0] > crop[0, 0, 1])
        top, left = divmod(int(crop[0].min()) - 1000 * n, 9)
        expected = images[n, :, top : top + 5, left : left + 5]
        np.testing.assert_array_equal(crop, expected[..., ::-1] if mirrored else expected)
        places[top, left, mirrored] += 1
    assert places.min() > 0  # all 30, each 500/30 ≈ 17 times
    assert places.max() < 40
    assert 194 < places[..., 1].sum() < 306  # five standard deviations
    np.testing.assert_array_equal(found, augment(images, rng(1), crop=5))
    assert not np.array_equal(found, augment(images, rng(2), crop=5))


def test_the_colour_shift_is_the_papers() -> None:
    """The same draws without components give the crops, to which one p·(α ∘ λ) is added for all pixels of an image."""
    images = rng().random((6, 3, 5, 6))
    eigenvalues, eigenvectors = np.array([8.0, 4.0, 2.0]), TURN / 3
    plain = augment(images, rng(4), crop=4)
    shifted = augment(images, rng(4), crop=4, components=(eigenvalues, eigenvectors), sigma=0.25)
    draws = rng(4)
    draws.integers(0, 2, 6), draws.integers(0, 3, 6), draws.random(6)
    alpha = draws.normal(0, 0.25, (6, 3))
    for n in range(6):
        shift = sum(eigenvectors[:, i] * alpha[n, i] * eigenvalues[i] for i in range(3))
        expected = np.broadcast_to(shift[:, None, None], (3, 4, 4))
        np.testing.assert_allclose(shifted[n] - plain[n], expected, atol=2**-20)  # numbers below 8 in float32
    default, named = (augment(images, rng(4), crop=4, components=(eigenvalues, eigenvectors), **options) for options in
                      ({}, {"sigma": 0.1}))  # fmt: skip
    np.testing.assert_array_equal(default, named)


def test_augmenting_leaves_its_images_alone() -> None:
    images = rng().random((2, 3, 4, 4)).astype("float32")
    before = images.copy()
    images.flags.writeable = False
    augment(images, rng(), crop=4, components=color_components(images))
    ten_crops(images[0], 4)[:] = 0
    np.testing.assert_array_equal(images, before)


def test_ten_crops() -> None:
    image = ids(3, 7, 10)
    found = ten_crops(image, 4)
    assert found.dtype == image.dtype
    five = [image[:, :4, :4], image[:, :4, 6:], image[:, 3:, :4], image[:, 3:, 6:], image[:, 1:5, 3:7]]
    np.testing.assert_array_equal(found, [*five, *(part[:, :, ::-1] for part in five)])
    whole = ids(3, 4, 4)
    np.testing.assert_array_equal(ten_crops(whole, 4)[:5], [whole] * 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ten_crops(ids(3, 4, 9), 5), ValueError, "crop must be at most 4; got 5"),
        (lambda: ten_crops(ids(4, 9), 2), ValueError, r"image must have shape \(C, H, W\).*got \(4, 9\)"),
        (lambda: augment(ids(2, 3, 4, 9), rng(), crop=5), ValueError, "crop must be at most 4; got 5"),
        (lambda: augment(ids(2, 3, 4, 9), rng(), crop=0), ValueError, "crop must be at least 1"),
        (lambda: augment(ids(2, 3, 4, 9), 0, crop=2), TypeError, "rng must be a numpy.random.Generator; got 0"),
        (lambda: augment(ids(3, 4, 9), rng(), crop=2), ValueError, r"images must have shape \(N, C, H, W\)"),
        (
            lambda: augment(ids(2, 1, 4, 9), rng(), crop=2, components=(np.ones(3), np.eye(3))),
            ValueError,
            r"images must have shape \(N, 3, H, W\)",
        ),
        (lambda: augment(ids(2, 3, 4, 9), rng(), crop=2, sigma=-1), ValueError, "sigma must be finite and at least 0"),
        (lambda: color_components(ids(2, 1, 4, 4)), ValueError, r"images must have shape \(N, 3, H, W\)"),
        (lambda: color_components(np.ones((0, 3, 4, 4))), ValueError, "without empty axes"),
    ],
)
def test_augmentation_refuses_wrong_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.fixture(scope="module")
def crops() -> PhotographCrops:
    images_package()
    images_package("sklearn")
    return PhotographCrops(0, side=64, crop=48)


def test_photograph_crops(crops: PhotographCrops) -> None:
    images, labels = crops.batch(50, rng(1))
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((50, 3, 48, 48), "float32", (50,), "int64")
    assert crops.classes == PHOTOGRAPHS
    assert set(labels.tolist()) == set(range(7))
    np.testing.assert_allclose(crops.images.mean(axis=0), 0, atol=1e-6)
    whole = crops.images + crops.mean
    assert whole.min() >= -1e-6
    assert 0.9 < whole.max() < 1 + 1e-6
    np.testing.assert_allclose(color_components(whole)[0], crops.components[0], rtol=1e-5)
    # A crop comes from the photograph of its label: it differs from a part of that by one shift of each channel.
    draws = rng(1)
    assert np.array_equal(draws.integers(0, 7, 50), labels)
    np.testing.assert_array_equal(images, augment(crops.images[labels], draws, crop=48, components=crops.components))


def test_photograph_crops_follow_their_seed(crops: PhotographCrops) -> None:
    again, other = PhotographCrops(0, side=64, crop=48), PhotographCrops(1, side=64, crop=48)
    first = again.batch(3)
    assert not np.array_equal(first[0], again.batch(3)[0])  # the generator continues
    assert not np.array_equal(first[0], other.batch(3)[0])
    for a, b in zip(first, PhotographCrops(0, side=64, crop=48).batch(3), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="crop must be at most 64; got 65"):
        PhotographCrops(0, side=64, crop=65)
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator; got 1"):
        crops.batch(3, 1)  # type: ignore[arg-type]


def test_the_photographs_of_alexnets_size() -> None:
    images_package()
    images_package("sklearn")
    found = PhotographCrops()
    assert found.images.shape == (7, 3, 256, 256)
    assert found.batch(2)[0].shape == (2, 3, 224, 224)


# --- By name ---


def test_data_sets_by_name(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images_package()
    images_package("sklearn")
    assert same(load_dataset("digits", seed=2), load_digits_split(2))
    assert same(load_dataset("textures", seed=2), load_textures_split(2))
    assert same(load_dataset("photographs", seed=2), load_photographs_split(2))
    assert load_dataset("digits", side=32).test_images.shape == (450, 1, 32, 32)
    assert same(load_dataset("textures", seed=2, side=24), load_textures_split(2, patch=24))
    assert same(load_dataset("photographs", seed=2, side=24), load_photographs_split(2, patch=24))
    assert same(load_dataset(f"cifar10:{cifar}", seed=5, side=32), load_cifar10(cifar))
    monkeypatch.setenv("HOME", str(cifar))
    monkeypatch.setenv("USERPROFILE", str(cifar))
    assert load_dataset("cifar10:~").classes == tuple(NAMES)


def test_a_folder_by_name(pets: Path) -> None:
    assert same(load_dataset(f"folder:{pets}", seed=3), load_folder(pets, seed=3))
    assert load_dataset(f"folder:{pets}", side=9).train_images.shape == (6, 3, 9, 9)
    with pytest.raises(DataError, match=r"~no-such-user.* is missing"):
        load_dataset("folder:~no-such-user/pets")


@pytest.mark.parametrize(
    "spec", ["", "mnist", "cifar10", "cifar10:", "folder", "digits:here", "Digits", ":x", "cifar10 :x"]
)
def test_no_such_data_set(spec: str) -> None:
    with pytest.raises(ValueError, match=rf"dataset must be one of {', '.join(DATASETS)}; got {spec!r}"):
        load_dataset(spec)


def test_images_that_come_in_one_size_are_interpolated_to_another(cifar: Path) -> None:
    images_package("sklearn")
    for split, larger in (
        (load_dataset("digits"), load_dataset("digits", side=20)),
        (load_cifar10(cifar), load_dataset(f"cifar10:{cifar}", side=20)),
    ):
        for images, found in ((split.train_images, larger.train_images), (split.test_images, larger.test_images)):
            expected = np.stack([[interpolated(channel, 20) for channel in image] for image in images[:2]])
            np.testing.assert_allclose(found[:2], expected, rtol=1e-5, atol=1e-5)
            assert found.dtype == np.float32
            assert found.shape == (*images.shape[:2], 20, 20)


def interpolated(image: Any, side: int) -> Any:
    """Pillow's bilinear filter."""
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed: nothing to compare with")
    return np.asarray(image_module.fromarray(image).resize((side, side), image_module.Resampling.BILINEAR))


def test_resized_keeps_constants_and_refuses_what_is_not_square() -> None:
    for side in (1, 3, 5, 8, 17):
        np.testing.assert_allclose(resized(np.full((2, 1, 5, 5), 3.0), side), 3.0, rtol=1e-12)
    images = np.zeros((1, 1, 4, 4), "float32")
    assert resized(images, 4) is images
    for shape in ((1, 1, 4, 5), (4, 4), ()):
        with pytest.raises(ValueError, match="images must have shape"):
            resized(np.zeros(shape), 2)
    with pytest.raises(ValueError, match="side must be at least 1"):
        resized(images, 0)


def test_data_sets_refuse_a_wrong_side_or_type(cifar: Path) -> None:
    for spec in (f"cifar10:{cifar}", "digits", "textures", f"folder:{cifar}"):
        with pytest.raises(ValueError, match=r"^side must be at least 1; got 0"):
            load_dataset(spec, side=0)
        with pytest.raises(ValueError, match=r"^side must be at most 4096; got 100000"):
            load_dataset(spec, side=100_000)
    with pytest.raises(ValueError, match=r"^side=3000 does not suit textures: patch must leave two blocks"):
        load_dataset("textures", side=3000)
    with pytest.raises(TypeError, match="dataset must be a string; got 3"):
        load_dataset(3)  # type: ignore[arg-type]
