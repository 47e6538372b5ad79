"""Wrong answers to the notebooks' exercises: each fails, and is called by its name. Right ones pass."""

import textwrap

import numpy as np
import pytest

from refconv import notebooks
from refconv.testing import exercises

pytest.importorskip("jupytext", reason="the extra 'notebooks' is not installed")

AXES = ("stride", "padding", "dilation")


def written(name: str, function: str, *changes: tuple[str, str]):
    """Return a solution out of a notebook, with some of its text changed."""
    cells = notebooks.build(name, solved=True).cells
    sources = [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", [])]
    (text,) = (source for source in sources if source.startswith(f"def {function}("))
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    import refconv

    names = {"np": np, "refconv": refconv}
    for source in [*sources[: sources.index(next(s for s in sources if s.startswith(f"def {function}(")))], text]:
        exec(textwrap.dedent(source), names)
    return names[function]


WRONG = [
    ("check_out_size", "01_sliding_window", "out_size", AXES, [
        ([("// stride + 1", "// stride")], "+1 missing in the output size"),
        ([("2 * padding", "padding")], "padding counted once in the output size"),
        ([("- dilation * (k - 1) - 1) // stride + 1", "- dilation * (k - 1) + stride - 2) // stride + 1")],
         "ceil for floor in the output size"),
        ([("dilation * (k - 1) - 1", "dilation * k")], "d·k for d·(k−1)+1"),
    ]),
    ("check_forward", "01_sliding_window", "forward", ("stride",), [
        ([("weight[k] *", "weight[k, :, ::-1, ::-1] *")], "kernel flipped in the forward pass"),
        ([("(H - k1) // stride[0] + 1, (W - k2) // stride[1] + 1", "(H - k1) // stride[0], (W - k2) // stride[1]")],
         "+1 missing in the output size"),
        ([("i * stride[0], j * stride[1]", "i, j")], "stride ignored in the forward pass"),
    ]),
    ("check_forward", "01_sliding_window", "forward_all", AXES, [
        ([("np.pad(x, ((0, 0), (0, 0), (padding[0], padding[0]), (padding[1], padding[1])))",
           "np.pad(x, ((0, 0), (0, 0), (padding[0], padding[0]), (padding[1], padding[1])), mode='edge')")],
         "pads by repeating the edge"),
    ]),
    ("check_im2col", "02_im2col", "im2col", AXES, [
        ([("top, left = a * dilation[0], b * dilation[1]", "top, left = a, b")],
         "dilation ignored in the forward pass"),
        ([("return columns.reshape(N,", "return columns.transpose(0, 2, 3, 1, 4, 5).reshape(N,")],
         "weight rows taken taps first"),
    ]),
    ("check_forward", "02_im2col", "forward", ("bias", *AXES), [
        ([("        y = y + bias[:, None]", "        pass")], "bias ignored"),
    ]),
    ("check_col2im", "03_backward", "col2im", AXES, [
        ([("padded[:, :, rows, cols] += columns", "padded[:, :, rows, cols] = columns")],
         "overlapping windows overwrite each other"),
        ([("padding[0] : padding[0] + H, padding[1] : padding[1] + W", ": H, : W")],
         "input gradient cropped from the start"),
        ([("padding[0] : padding[0] + H, padding[1] : padding[1] + W",
           "padding[0] : -padding[0], padding[1] : -padding[1]")], "[p:-p] is empty where p is 0"),
        ([("top, left = a * dilation[0], b * dilation[1]", "top, left = a, b")],
         "dilation ignored in the input gradient"),
    ]),
    ("check_backward", "03_backward", "my_backward", AXES, [
        ([("g.sum(axis=(0, 2))", "g.sum(axis=(0, 2)) / np.float32(len(x))")], "bias gradient averaged over the batch"),
        ([("np.sum(g @ columns.transpose(0, 2, 1), axis=0)", "np.mean(g @ columns.transpose(0, 2, 1), axis=0)")],
         "weight gradient averaged over the batch"),
    ]),
    ("check_forward", "04_channel_groups", "grouped_forward", ("bias", *AXES, "groups"), [
        ([("x[:, g * c : (g + 1) * c]", "x[:, :c]")], "groups ignored: all read the first channels"),
        ([("x[:, g * c : (g + 1) * c]", "x[:, g::groups]")], "input channels interleaved among groups"),
        ([("x[:, g * c : (g + 1) * c]", "x[:, (groups - 1 - g) * c : (groups - g) * c]")], "groups reversed"),
    ]),
    ("check_backward", "04_channel_groups", "grouped_backward", (*AXES, "groups"), [
        ([("x[:, ins], weight[outs]", "x[:, :c], weight[outs]")], "weight gradient reads the first group's input"),
    ]),
]  # fmt: skip
CASES = [
    pytest.param(check, notebook, function, supports, changes, name, id=f"{function}: {name}")
    for check, notebook, function, supports, mistakes in WRONG
    for changes, name in mistakes
]


@pytest.mark.parametrize(("check", "notebook", "function", "supports", "changes", "name"), CASES)
def test_a_wrong_answer_is_called_by_its_name(check, notebook, function, supports, changes, name):
    verdict = getattr(exercises, check)(written(notebook, function, *changes), supports=supports)
    assert not verdict.passed
    assert name in [diagnosis.name for diagnosis in verdict.diagnoses if diagnosis.rank == 1], str(verdict)
    assert str(verdict).startswith(f"FAILED: {function}\n")
    assert f"consistent with: {name}." in " ".join(str(verdict).split())


@pytest.mark.parametrize(("check", "notebook", "function", "supports"), [entry[:4] for entry in WRONG])
def test_a_right_answer_passes(check, notebook, function, supports):
    verdict = getattr(exercises, check)(written(notebook, function), supports=supports)
    assert str(verdict) == f"passed: {function} is right in all 200 cases"


def test_the_smallest_call_is_shown():
    def out_size(n, k, stride, padding, dilation):
        return -(-(n + 2 * padding - dilation * (k - 1) - 1) // stride) + 1

    assert exercises.check_out_size(out_size).call == "out_size(2, 1, 2, 0, 1) returned 2, not 1"


def test_the_smallest_columns_are_shown_beside_the_right_ones():
    wrong = written("02_im2col", "im2col", ("top, left = a * dilation[0], b * dilation[1]", "top, left = a, b"))
    text = str(exercises.check_im2col(wrong))
    shown = """
        im2col(x, (1, 2), (1, 1), (0, 1), (1, 2)) returned
        [[[0.]
          [1.]]]
        and should return
        [[[0.]
          [0.]]]"""
    assert text.endswith(textwrap.dedent(shown)), text


def test_the_smallest_col2im_is_shown_beside_the_right_one():
    wrong = written("03_backward", "col2im", ("rows, cols] += columns", "rows, cols] = columns"))
    text = str(exercises.check_col2im(wrong))
    assert "columns =\n" in text
    assert "\nand should return\n" in text
    assert "to reproduce" not in text


@pytest.mark.parametrize("value", [None, 2.0, "3", -1, 10**9])
def test_an_absurd_size_is_a_failure_and_no_traceback(value):
    verdict = exercises.check_out_size(lambda n, k, stride, padding, dilation: value)
    assert not verdict.passed
    assert str(verdict).startswith("FAILED: out_size\n")


@pytest.mark.parametrize("value", [None, 2.0, "columns", np.zeros((1, 1, 1)), np.zeros(0)])
@pytest.mark.parametrize("check", [exercises.check_im2col, exercises.check_col2im])
def test_absurd_columns_are_a_failure_and_no_traceback(check, value):
    verdict = check(lambda *arguments: value)
    assert not verdict.passed
    assert str(verdict).startswith("FAILED: ")


def test_an_answer_that_raises():
    def wrong(n):
        return n[0]

    assert exercises.check_answer(wrong, lambda result, n: True, [(3,)]).startswith("FAILED: wrong(3): TypeError: ")
