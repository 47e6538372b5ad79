"""Costs: the published tables to the last digit, group specifications, every bad input."""

import json
import math

import numpy as np
import pytest

from refconv.cost import MODELS, GroupSpec, Walk, alexnet, lenet5, model_cost, parse_groups, residual
from refconv.groups import lenet5_c3_groups, logarithmic_groups, uniform_groups


def figures(*layers):
    """Return the published figures of layers, without the memory that our training keeps."""
    return [(layer.name, layer.parameters, layer.macs, layer.output_shape) for layer in layers]


# Krizhevsky et al. 2012: output shape, then parameters and multiply-adds with two groups and with one.
ALEXNET = {
    "conv1": ((96, 55, 55), 34_944, 34_944, 105_415_200, 105_415_200),
    "norm1": ((96, 55, 55), 0, 0, 0, 0),
    "pool1": ((96, 27, 27), 0, 0, 0, 0),
    "conv2": ((256, 27, 27), 307_456, 614_656, 223_948_800, 447_897_600),
    "norm2": ((256, 27, 27), 0, 0, 0, 0),
    "pool2": ((256, 13, 13), 0, 0, 0, 0),
    "conv3": ((384, 13, 13), 885_120, 885_120, 149_520_384, 149_520_384),
    "conv4": ((384, 13, 13), 663_936, 1_327_488, 112_140_288, 224_280_576),
    "conv5": ((256, 13, 13), 442_624, 884_992, 74_760_192, 149_520_384),
    "pool5": ((256, 6, 6), 0, 0, 0, 0),
    "fc6": ((4096,), 37_752_832, 37_752_832, 37_748_736, 37_748_736),
    "fc7": ((4096,), 16_781_312, 16_781_312, 16_777_216, 16_777_216),
    "fc8": ((1000,), 4_097_000, 4_097_000, 4_096_000, 4_096_000),
}


@pytest.mark.parametrize("groups", [2, 1])
def test_alexnet(groups):
    cost = alexnet(groups)
    assert [layer.name for layer in cost.layers] == list(ALEXNET)
    for layer in cost.layers:
        shape, params_2, params_1, macs_2, macs_1 = ALEXNET[layer.name]
        expected = (params_2, macs_2) if groups == 2 else (params_1, macs_1)
        assert (layer.parameters, layer.macs) == expected, layer.name
        assert layer.output_shape == shape
        assert layer.activations == math.prod(shape)
    assert cost.parameters == {2: 60_965_224, 1: 62_378_344}[groups]
    assert cost.macs == {2: 724_406_816, 1: 1_135_256_096}[groups]
    convolutions = [layer for layer in cost.layers if layer.name.startswith("conv")]
    assert sum(layer.parameters for layer in convolutions) == {2: 2_334_080, 1: 3_747_200}[groups]
    assert sum(layer.macs for layer in convolutions) == {2: 665_784_864, 1: 1_076_634_144}[groups]
    full = [layer for layer in cost.layers if layer.name.startswith("fc")]
    assert (sum(f.parameters for f in full), sum(f.macs for f in full)) == (58_631_144, 58_621_952)
    assert cost.input_shape == (3, 227, 227)
    assert cost.activations == 1_413_347


def test_alexnet_memory():
    cost = alexnet()
    assert cost.groups == 2
    assert cost.memory(0).textbook == 12 * 60_965_224
    assert cost.memory(128).textbook == 12 * 60_965_224 + 8 * 128 * 1_413_347


# LeCun et al. 1998, section II-B: trainable parameters and connections of each layer.
LENET5 = {
    "C1": ((6, 28, 28), 156, 122_304),
    "S2": ((6, 14, 14), 12, 5_880),
    "C3": ((16, 10, 10), 1_516, 151_600),
    "S4": ((16, 5, 5), 32, 2_000),
    "C5": ((120, 1, 1), 48_120, 48_120),
    "F6": ((84,), 10_164, 10_164),
}


def test_lenet5():
    cost = lenet5()
    *trained, output = cost.layers
    assert [layer.name for layer in trained] == list(LENET5)
    for layer in trained:
        shape, parameters, connections = LENET5[layer.name]
        assert (layer.output_shape, layer.parameters) == (shape, parameters)
        if layer.name.startswith("S"):  # four inputs (one coefficient) and a bias are five connections
            assert layer.macs * 5 == layer.activations * 5 == connections
        else:  # the paper counts every use of a bias as a connection
            assert layer.macs + layer.activations == connections
    assert figures(output) == [("output", 0, 840, (10,))]
    assert cost.parameters == 60_000
    assert (cost.groups, cost.input_shape) == ("table", (1, 32, 32))
    assert cost.activations == 32 * 32 + 4704 + 1176 + 1600 + 400 + 120 + 84 + 10


@pytest.mark.parametrize(
    ("groups", "label", "weights"),
    [
        ("table", "table", 60),
        ("dense", 1, 96),
        (2, 2, 48),
        ("log:3", "log:3", 3 * 8 + 2 * 4 + 1 * 4),
    ],
)
def test_lenet5_in_other_groups(groups, label, weights):
    cost = lenet5(groups)
    assert cost.groups == label
    assert figures(cost.layers[2]) == [("C3", 25 * weights + 16, 25 * weights * 100, (16, 10, 10))]
    assert cost.parameters == 60_000 + 25 * (weights - 60)


def test_alexnet_in_logarithmic_groups():
    # conv2: 96 = 48 + 24 + 24 and 256 = 128 + 64 + 64 channels
    layers = {layer.name: layer for layer in alexnet("log:3").layers}
    assert layers["conv2"].parameters == 25 * (48 * 128 + 24 * 64 * 2) + 256
    assert layers["conv3"] == {layer.name: layer for layer in alexnet().layers}["conv3"]


# --- Reports --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_report(model):
    cost = model_cost(model)
    report = cost.to_dict()
    assert json.loads(json.dumps(report)) == report
    assert set(report) == {
        "model", "groups", "input_shape", "layers", "parameters", "macs", "activations", "bytes", "memory", "note"
    }  # fmt: skip
    assert report["model"] == model
    for key in ("parameters", "macs", "activations"):
        start = math.prod(report["input_shape"]) if key == "activations" else 0
        assert report[key] == start + sum(layer[key] for layer in report["layers"])
    for layer in report["layers"]:
        assert set(layer) == {"name", "parameters", "macs", "output_shape", "activations"}
        assert layer["activations"] == math.prod(layer["output_shape"])
    assert report["bytes"] == {
        "parameters": 12 * report["parameters"],
        "activations_per_image": 8 * report["activations"],
    }
    assert [row["batch"] for row in report["memory"] if row["towers"] == 1] == [128]
    for batch in (0, 1, np.int64(7)):
        parts = report["bytes"]
        assert cost.memory(batch).textbook == parts["parameters"] + int(batch) * parts["activations_per_image"]


def test_model_cost_is_the_model():
    assert model_cost("alexnet") == alexnet(2) == model_cost("alexnet", "uniform:2")
    assert model_cost("lenet5") == lenet5("table") == model_cost("lenet5", "table")
    assert model_cost("alexnet", 1) == alexnet("dense") != alexnet()


# --- Walking --------------------------------------------------------------------------------------------------


def test_walk_along_any_axes():
    walk = Walk("video", parse_groups("log:2"), (4, 9, 10, 11))
    assert walk.shape == (4, 9, 10, 11)
    walk.conv("conv", 6, 3, stride=2, padding=1, grouped=True)
    walk.conv("dense", 5, 2)
    walk.window("pool", 2, stride=2)
    walk.linear("fc", 3)
    cost = walk.cost()
    assert (cost.model, cost.groups, cost.input_shape) == ("video", "log:2", (4, 9, 10, 11))
    assert figures(*cost.layers) == [
        ("conv", 27 * 12 + 6, 27 * 12 * 5 * 5 * 6, (6, 5, 5, 6)),
        ("dense", 8 * 30 + 5, 8 * 30 * 4 * 4 * 5, (5, 4, 4, 5)),
        ("pool", 0, 0, (5, 2, 2, 2)),
        ("fc", 40 * 3 + 3, 40 * 3, (3,)),
    ]


# --- Memory ---------------------------------------------------------------------------------------------------


def test_memory_by_hand():
    walk = Walk("tiny", parse_groups(2), (4, 6, 6))
    walk.conv("conv", 6, 3, padding=1, grouped=True)  # 2·(3·2·9) + 6 = 114 parameters
    walk.activate("relu")
    walk.window("pool", 2, stride=2)
    walk.linear("fc", 10)  # 54·10 + 10 = 550 parameters
    cost = walk.cost()
    kept = [4 * 4 * 36 + 6 * 36, 6 * 9, 4 * 54]  # an image and a mask; indices; a flat image
    fc, pool, conv = 4 * (54 + 10), 4 * (6 * 36 + 6 * 9), 4 * 2 * 6 * 36  # gradients in flight
    memory = cost.memory(3)
    assert (memory.batch, memory.towers) == (3, 1)
    assert memory.parameters == memory.gradients == memory.momentum == 4 * 664
    assert memory.activations == 3 * sum(kept)
    moments = [4 * 550 + 3 * (sum(kept) + fc), 4 * 550 + 3 * (sum(kept[:2]) + pool), 4 * 664 + 3 * (kept[0] + conv)]
    steps = [4 * 664 + 8 * 114, 4 * 550 + 8 * 550]
    assert memory.workspace == 2**26
    assert memory.predicted == 8 * 664 + max(moments + steps) + 2**26
    assert memory.textbook == 12 * 664 + 8 * 3 * (144 + 216 + 54 + 10)
    assert cost.memory(0).predicted == 8 * 664 + max(steps) + 2**26

    half = cost.memory(3, towers=2)  # the linear layer needs all of the pooled image
    assert half.parameters == 4 * 332
    assert half.activations == 3 * (kept[0] // 2 + kept[1] // 2 + kept[2])
    assert half.textbook == 12 * 332 + 8 * 3 * (144 + (216 + 54 + 10) // 2)


def test_alexnet_on_two_towers():
    whole, half = alexnet().memory(128), alexnet().memory(128, 2)
    assert half.parameters * 2 == whole.parameters == 4 * 60_965_224
    # Complete on each tower: the image, and the inputs of conv3, fc6, fc7 and fc8.
    extra = 4 * 128 * (3 * 227 * 227 + 43_264 + 9_216 + 4_096 + 4_096)
    assert half.activations == (whole.activations + extra) // 2
    assert whole.predicted < whole.textbook
    assert half.predicted < 3 * 10**9  # a GTX 580 has 3 GB
    assert [(m.batch, m.towers) for m in alexnet().memories((1, 128))] == [(1, 1), (1, 2), (128, 1), (128, 2)]
    assert [m.towers for m in alexnet("log:3").memories((1,))] == [1]
    assert [m.towers for m in residual(32).memories((1,))] == [1]  # 10 classes do not split into 32


@pytest.mark.parametrize(
    ("cost", "towers"), [(alexnet(1), 2), (alexnet(2), 4), (alexnet("log:3"), 2), (lenet5(), 2), (residual(4), 4)]
)
def test_towers_that_do_not_fit(cost, towers):
    refused(ValueError, f"^towers={towers} must divide .*; {cost.model} has groups=", lambda: cost.memory(1, towers))


# --- Words for groups -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "parsed", "label", "built"),
    [
        (4, GroupSpec("uniform", 4), 4, uniform_groups(16, 32, 4)),
        (np.int16(4), GroupSpec("uniform", 4), 4, uniform_groups(16, 32, 4)),
        ("4", GroupSpec("uniform", 4), 4, uniform_groups(16, 32, 4)),
        ("uniform:4", GroupSpec("uniform", 4), 4, uniform_groups(16, 32, 4)),
        ("dense", GroupSpec("uniform", 1), 1, uniform_groups(16, 32, 1)),
        ("log:4", GroupSpec("log", 4), "log:4", logarithmic_groups(16, 32, 4)),
    ],
)
def test_parse_groups(spec, parsed, label, built):
    assert parse_groups(spec) == parsed
    assert parse_groups(spec).label == label
    assert parse_groups(parse_groups(spec).label) == parsed
    assert parse_groups(spec).build(16, 32) == built


def test_parse_table():
    spec = parse_groups("table")
    assert (spec.n, spec.label, spec.build(6, 16)) == (16, "table", lenet5_c3_groups())
    for sides in ((6, 15), (16, 6), (96, 256)):
        with pytest.raises(ValueError, match=f"C={sides[0]} and K={sides[1]}$"):
            spec.build(*sides)


# --- Bad input ------------------------------------------------------------------------------------------------

BAD_WORDS = [
    "", " ", " 2", "2 ", "-1", "+2", "2.0", "1e3", "0x2", "1_0", "²", "２", "0", "00", "two", "uniform", "uniform:",
    "uniform:0", "uniform:-2", "uniform:two", "uniform:2:2", "log", "log:", "log:0", "log:2.5", "log 2", "LOG:2",
    "dense:1", "Dense", "table:16", "none", "None", "nan", "inf", "True", "2\n", "2\n3", "x" * 10**5, "9" * 5000,
    "log:" + "9" * 5000, "\0",
]  # fmt: skip


def refused(kind, message, call):
    """Check that a call is refused in one short line."""
    with pytest.raises(kind, match=message) as error:
        call()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("word", BAD_WORDS, ids=lambda word: repr(word[:12]))
def test_bad_words(word):
    for call in (parse_groups, alexnet, lenet5, lambda word: model_cost("lenet5", word)):
        refused(ValueError, r"^groups must be", lambda call=call: call(word))


@pytest.mark.parametrize("value", [0, -1, 2**63, -(2**63) - 1, 2**300])
def test_bad_numbers(value):
    refused(ValueError, r"^groups must", lambda: parse_groups(value))
    if value:
        refused(ValueError, r"^batch must", lambda: lenet5().memory(value))


@pytest.mark.parametrize(
    "value", [None, True, np.True_, 2.0, math.nan, 2j, b"2", [2], (2,), {"n": 2}, np.array([2, 2]), object()]
)
def test_bad_types(value):
    for call in (parse_groups, alexnet, lenet5):
        refused(TypeError, r"^groups must be an integer", lambda call=call: call(value))
    refused(TypeError, r"^model must be a string", lambda: model_cost(value))
    refused(TypeError, r"^batch must be an integer", lambda: lenet5().memory(value))
    refused(TypeError, r"^towers must be an integer", lambda: lenet5().memory(1, value))


@pytest.mark.parametrize("model", ["", "AlexNet", "vgg", " lenet5", "x" * 10**5, "a\nb"], ids=lambda m: repr(m[:9]))
def test_unknown_models(model):
    refused(ValueError, r"^model must be one of alexnet, lenet5", lambda: model_cost(model))


@pytest.mark.parametrize(
    ("model", "groups", "message"),
    [
        ("alexnet", 3, "layer conv2 of alexnet: groups=3 does not divide K=256 output channels"),
        ("alexnet", 5, "layer conv2 of alexnet: groups=5 does not divide C=96 input channels"),
        ("alexnet", "log:8", "layer conv2 of alexnet: .*largest n that fits is 7"),
        ("alexnet", "table", "layer conv2 of alexnet: groups=table .* C=96 and K=256"),
        ("alexnet", 10**15, "layer conv2 of alexnet: n must be at most"),
        ("lenet5", 3, "layer C3 of lenet5: groups=3 does not divide K=16"),
        ("lenet5", "log:4", "layer C3 of lenet5: .*largest n that fits is 3"),
    ],
)
def test_groups_that_do_not_fit(model, groups, message):
    refused(ValueError, message, lambda: model_cost(model, groups))
