"""``refconv predict``: the classes of images, by a trained network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refconv.cli.options import PATH, backend_option, engine_option, json_option, load_backend
from refconv.cli.signals import working
from refconv.cli.training import print_confusion

if TYPE_CHECKING:
    from refconv.experiments.predict import TrainedNetwork

_SHOWN = 3
"""Number of likely classes that the table has for each image."""


@click.command("predict")
@click.argument("checkpoint", type=PATH)
@click.argument("images", nargs=-1, type=PATH, metavar="[IMAGE]…")
@click.option("--invert", is_flag=True, help="Exchange black and white, for dark ink on light paper.")
@backend_option
@engine_option
@json_option
def command(checkpoint: Path, images: tuple[Path, ...], invert: bool, backend: str | None, as_json: bool) -> None:
    """Classify images with a network that refconv train saved.

    CHECKPOINT is the file that it saved, or the folder of that file. IMAGE is a file such as digit.png. It is cropped
    to its central square, resized, and scaled as the training images were. Without IMAGE, the test images of the
    network's data set are classified. Digits are light strokes on a dark ground: see --invert. Nothing is unpickled.
    Needs the extra refconv[train].

    \b
    refconv predict refconv-train
    refconv predict lenet photo-of-a-7.jpg --invert
    """  # noqa: D301
    if invert and not images:
        raise click.UsageError("--invert is only for images that are given")
    from refconv.experiments.predict import load_network, load_test_images, read_images
    from refconv.experiments.probabilities import confusion_matrix, probabilities

    load_backend(backend)
    try:
        with working():
            network = load_network(checkpoint, backend)
            data = None if images else load_test_images(network)
            inputs = read_images(network, images, invert=invert) if data is None else data.test_images
            found = probabilities(network.model, inputs)
    except (ImportError, ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from error
    report: dict[str, Any] = {"model": network.config["model"], "classes": list(network.classes)}
    predicted = found.argmax(axis=1)
    if data is not None:
        report["data"] = network.config["data"]
        report["test_accuracy"] = float((predicted == data.test_labels).mean())
        report["confusion"] = confusion_matrix(data.test_labels, predicted, len(network.classes))
    report["predictions"] = [
        {
            **({"image": str(images[index])} if data is None else {"right": network.classes[data.test_labels[index]]}),
            "class": network.classes[predicted[index]],
            "probabilities": found[index].tolist(),
        }
        for index in range(len(found))
    ]
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif data is not None:
        click.echo(f"{report['model']} on {report['data']}: test accuracy {100 * report['test_accuracy']:.2f} %")
        print_confusion(network.classes, report["confusion"])
    else:
        _print_predictions(network, report["predictions"])


def _print_predictions(network: TrainedNetwork, predictions: list[dict[str, Any]]) -> None:
    from refconv.tables import Column, print_table

    shown = min(_SHOWN, len(network.classes))
    columns = [Column("image", words=True)]
    for place in ("class", "second", "third")[:shown]:
        columns += [Column(place, words=True), Column("%", joined=True)]
    rows = []
    for prediction in predictions:
        row = [prediction["image"]]
        likely = sorted(zip(prediction["probabilities"], network.classes, strict=True), key=lambda pair: -pair[0])
        for probability, name in likely[:shown]:
            row += [name, f"{100 * probability:.1f}"]
        rows.append(row)
    print_table("", columns, rows)
