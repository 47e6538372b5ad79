"""Wrong answers to the notebooks' exercises fail, each with the name of its mistake. Right answers pass."""

import itertools
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refconv
from refconv import notebooks
from refconv.testing import exercises
from refconv.testing.exercises.logarithmic_sizes import MISTAKES, Division, broken_rule, right_sizes

pytest.importorskip("jupytext", reason="the extra 'notebooks' is not installed")

AXES = ("stride", "padding", "dilation")
TRANSPOSED = ("bias", *AXES, "groups", "output_padding")


def written(name: str, function: str, *changes: tuple[str, str]):
    """Return a solution from a notebook, with some of its text changed."""
    cells = [cell for cell in notebooks.build(name, solved=True).cells if cell.cell_type == "code"]
    (own,) = (
        number
        for number, cell in enumerate(cells)
        if "exercise" in cell.metadata.get("tags", []) and cell.source.startswith(f"def {function}(")
    )
    text = cells[own].source
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    names = {"np": np, "refconv": refconv}
    for cell in cells[:own]:
        if "exercise" in cell.metadata.get("tags", []) or cell.source.startswith("def padded("):
            exec(cell.source, names)  # functions that the answer may call
    exec(text, names)
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
        ([("y[n, k, i, j] = np.sum(weight[k] * x[n, :, top : top + k1, left : left + k2])",
           "for c in range(x.shape[1]):\n            window = x[n, c, top : top + k1, left : left + k2]\n"
           "            y[n, k, i, j] = np.sum(weight[k, c] * window)")], "input channels overwrite each other"),
        ([("top : top + k1", "top : top + k1 - 1")], "a slice ends too early"),
        ([("left : left + k2", "left : left + k2 + 1")], "a slice ends too late"),
        ([("(H - k1) // stride[0]", "(H - k1) / stride[0]")], "/ for //"),
    ]),
    ("check_forward", "01_sliding_window", "forward_all", AXES, [
        ([("(padding[1],) * 2))", "(padding[1],) * 2), mode='edge')")],
         "pads by repeating the edge"),
    ]),
    ("check_im2col", "02_im2col", "im2col", AXES, [
        ([("top, left = a * dilation[0], b * dilation[1]", "top, left = a, b")],
         "dilation ignored in the forward pass"),
        ([("return columns.reshape(N,", "return columns.transpose(0, 2, 3, 1, 4, 5).reshape(N,")],
         "weight rows taken taps first"),
        ([("(out[0] - 1) * stride[0] + 1", "(out[0] - 1) * stride[0]")], "a slice ends too early"),
        ([("(out[1] - 1) * stride[1] + 1", "out[1] * stride[1] + 1")], "a slice ends too late"),
        ([("out = [(n - d * (k - 1) - 1) // s + 1", "out = [(n - d * (k - 1) - 1) / s + 1")], "/ for //"),
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
        ([("(out[0] - 1) * stride[0] + 1", "(out[0] - 1) * stride[0]")], "a slice ends too early"),
        ([("(out[1] - 1) * stride[1] + 1", "out[1] * stride[1] + 1")], "a slice ends too late"),
    ]),
    ("check_backward", "03_backward", "my_backward", AXES, [
        ([("g.sum(axis=(0, 2))", "g.sum(axis=(0, 2)) / np.float32(len(x))")], "bias gradient averaged over the batch"),
        ([("np.sum(g @ columns.transpose(0, 2, 1), axis=0)", "np.mean(g @ columns.transpose(0, 2, 1), axis=0)")],
         "weight gradient averaged over the batch"),
        ([("return grad_x, grad_weight,", "return grad_weight, grad_x,")],
         "gradients returned as (grad_weight, grad_x, grad_bias)"),
    ]),
    ("check_backward", "03_backward", "loops", ("stride", "padding"), [
        ([("grad_P[n, :, rows, cols] +=", "grad_P[n, :, rows, cols] =")],
         "windows and output channels overwrite each other"),
        ([("grad_weight[k] +=", "grad_weight[k] =")], "weight gradient of the last sample and position only"),
        ([("left + k2)", "left + k2 - 1)")], "a slice ends too early"),
    ]),
    ("check_forward", "04_channel_groups", "grouped_forward", ("bias", *AXES, "groups"), [
        ([("slice(g * c, (g + 1) * c)", "slice(c)")], "groups ignored: all read the first channels"),
        ([("slice(g * c, (g + 1) * c)", "slice(g, None, groups)")], "input channels interleaved among groups"),
        ([("slice(g * c, (g + 1) * c)", "slice((groups - 1 - g) * c, (groups - g) * c)")], "groups reversed"),
        ([("np.concatenate(parts, axis=1)", "np.concatenate(parts)")], "groups joined along the wrong axis"),
        ([("np.concatenate(parts, axis=1)", "np.concatenate(parts, axis=-1)")], "groups joined along the wrong axis"),
    ]),
    ("check_backward", "04_channel_groups", "grouped_backward", (*AXES, "groups"), [
        ([("x[:, ins], weight[outs]", "x[:, :c], weight[outs]")], "weight gradient reads the first group's input"),
        ([("for part in parts], axis=0)", "for part in parts], axis=1)")], "groups joined along the wrong axis"),
        ([("[part.x for part in parts], axis=1)", "[part.x for part in parts])")],
         "groups joined along the wrong axis"),
    ]),
    ("check_out_size", "05_transposed", "out_size", TRANSPOSED, [
        ([("- 2 * padding", "+ 2 * padding")], "transposed: padding enlarges the output"),
        ([(" + output_padding", "")], "transposed: output padding ignored"),
        ([("full = (n - 1) * stride", "full = n * stride - 1")], "transposed: input dilated with trailing zeros"),
    ]),
    ("check_forward", "05_transposed", "forward", TRANSPOSED, [
        ([("weight[ins, :, a, b]", "weight[ins, :, -1 - a, -1 - b]")], "transposed: kernel flipped"),
        ([("dilation, output_padding))", "dilation, none))"),
          ("return y.copy() if", "y = np.pad(y, [(0, 0)] * 2 + [(0, n) for n in output_padding])\n    return y if")],
         "transposed: output padding appends zeros"),
        ([("kernel, stride, none, dilation,", "kernel, dilation, none, stride,"),
          ("a * dilation[0], b * dilation[1]", "a * stride[0], b * stride[1]"),
          ("(size[0] - 1) * stride[0] + 1, stride[0]", "(size[0] - 1) * dilation[0] + 1, dilation[0]"),
          ("(size[1] - 1) * stride[1] + 1, stride[1]", "(size[1] - 1) * dilation[1] + 1, dilation[1]")],
         "transposed: stride and dilation exchanged in the forward pass"),
        ([("weight[ins, :, a, b]", "weight[ins].reshape(k, c, *kernel)[:, :, a, b].T")],
         "transposed: weight read as (K, C/G, …)"),
        ([("columns] += part", "columns] = part")], "transposed: overlapping kernels overwrite each other"),
        ([("(size[0] - 1) * stride[0] + 1, stride[0]", "(size[0] - 1) * stride[0], stride[0]")],
         "a slice ends too early"),
    ]),
    ("check_backward", "05_transposed", "backward", TRANSPOSED[1:5], [
        ([("refconv.conv(grad_output, weight,", "refconv.conv(grad_output, weight[:, :, ::-1, ::-1],")],
         "transposed: kernel flipped in the input gradient"),
        ([("return grad_x, grad_weight", "return grad_weight, grad_x")],
         "transposed: gradients returned as (grad_weight, grad_x, grad_bias)"),
    ]),
    ("check_forward", "05_transposed", "longer", ("stride", "padding", "output_padding"), [
        ([("    full = [n + extra for n, extra in zip(full, output_padding, strict=True)]\n", ""),
          ("    return y", "    return np.pad(y, ((0, 0), (0, 0), *((0, n) for n in output_padding)))")],
         "transposed: output padding appends zeros"),
    ]),
    ("check_forward", "10_check_your_own", "my_forward", ("bias", *AXES, "groups"), [
        ([("d * (k - 1) + 1", "d * k")], "d·k for d·(k−1)+1"),
        ([("y + bias[:, None, None]", "y")], "bias ignored"),
        ([(":: stride[0], :: stride[1]", ":: stride[1], :: stride[0]")], "strides of the axes exchanged"),
        ([("[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]", "[:, :, :: stride[0], :: stride[1]]"),
          ("spans = [d * (k - 1) + 1 for k, d in axes]", "spans = weight.shape[2:]")], "dilation ignored altogether"),
    ]),
    ("check_backward", "09_break_it", "both", ("stride", "padding"), [
        ([("grad_output, P[where]", "grad_output[-1:], P[where][-1:]")], "weight gradient of the last sample only"),
        ([("grad_weight[(..., *t)] =", "where = reads(t, out, (1, 1), (1, 1))\n        grad_weight[(..., *t)] =")],
         "stride ignored in the weight gradient"),
        ([("grad_P[where] +=", "grad_P[where] =")], "overlapping windows overwrite each other"),
        ([("p : p + H, q : q + W", "p:-p, q:-q")], "[p:-p] is empty where p is 0"),
    ]),
    ("check_input_grad", "12_how_fast_can_numpy_be", "input_grad", ("padding", "dilation"), [
        ([("weight[:, :, ::-1, ::-1]", "weight")], "kernel flipped in the input gradient"),
        ([(".swapaxes(0, 1)", ".reshape(weight.shape[1], len(weight), *weight.shape[2:])")],
         "weight reshaped where it should be transposed"),
        ([("[d * (k - 1) - p for", "[(d * (k - 1), d * (k - 1) - 2 * p) for")],
         "input gradient cropped from the start"),
    ]),
]  # fmt: skip
CASES = [
    pytest.param(check, notebook, function, supports, changes, name, id=f"{function}: {name}")
    for check, notebook, function, supports, mistakes in WRONG
    for changes, name in mistakes
]


def checked(check: str, notebook: str, answer, supports: tuple[str, ...]):
    options = {"transposed": True} if notebook == "05_transposed" else {}
    return getattr(exercises, check)(answer, supports=supports, **options)


@pytest.mark.thinned(20)
@pytest.mark.parametrize(("check", "notebook", "function", "supports", "changes", "name"), CASES)
def test_a_wrong_answer_is_called_by_its_name(check, notebook, function, supports, changes, name):
    verdict = checked(check, notebook, written(notebook, function, *changes), supports)
    assert not verdict.passed
    assert name in [diagnosis.name for diagnosis in verdict.diagnoses if diagnosis.rank == 1], str(verdict)
    assert str(verdict).startswith(f"FAILED: {function}\n")
    assert f"consistent with: {name}." in " ".join(str(verdict).split())


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("check", "notebook", "function", "supports"), [entry[:4] for entry in WRONG])
def test_a_right_answer_passes(check, notebook, function, supports):
    verdict = checked(check, notebook, written(notebook, function), supports)
    assert re.fullmatch(rf"passed: {function} is right in all \d+ cases", str(verdict))


def test_what_did_not_pass_is_an_error_for_a_grader(capsys):
    def out_size(n, k, stride, padding, dilation):
        return (n + 2 * padding - dilation * (k - 1) - 1) // stride

    verdict = exercises.check_out_size(out_size)
    with pytest.raises(AssertionError, match=r"^FAILED: out_size$"):
        exercises.must_pass(verdict)
    assert capsys.readouterr().out == f"{verdict}\n"
    exercises.must_pass("passed: out_size is right")
    assert capsys.readouterr().out == "passed: out_size is right\n"


def test_the_smallest_call_is_shown():
    def out_size(n, k, stride, padding, dilation):
        return -(-(n + 2 * padding - dilation * (k - 1) - 1) // stride) + 1

    assert exercises.check_out_size(out_size).call == "out_size(1, 1, 3, 1, 1) returned 2, not 1"


@pytest.mark.parametrize(("value", "shown"), [
    (1.0, "1.0, a float: use //"), (np.float32(1), "1.0, a float: use //"), (np.nan, "nan, a float: use //"),
    ("1", "'1', which is not an int"), (None, "None, which is not an int"), (2, "2, not 1"), (np.int8(2), "2, not 1"),
])  # fmt: skip
def test_a_wrong_size_is_shown_with_its_call_alone(value, shown):
    text = str(exercises.check_out_size(lambda n, k, stride, padding, dilation: value, supports=()))
    assert text.splitlines()[:2] == ["FAILED: out_size", f"out_size(1, 1, 1, 0, 1) returned {shown}"]
    assert all(line.startswith(("consistent with: ", "less likely: ", "    ")) for line in text.splitlines()[2:])


def test_the_smallest_columns_are_shown_with_the_right_ones():
    wrong = written("02_im2col", "im2col", ("top, left = a * dilation[0], b * dilation[1]", "top, left = a, b"))
    shown = (
        r"\nim2col\(x, \(1, 2\), \(1, 1\), \(0, 1\), \(1, 2\)\)\nx =\n\[\[\[\[-?\d\.\]\]\]\]\n"
        r"returned\n\[\[\[ ?0\.\]\n  \[-?\d\.\]\]\]\nand should return\n\[\[\[0\.\]\n  \[0\.\]\]\]\n"
    )
    assert re.search(shown, str(exercises.check_im2col(wrong)))


@pytest.mark.parametrize(
    ("check", "notebook", "function", "change", "shown"),
    [
        ("check_input_grad", "12_how_fast_can_numpy_be", "input_grad", ("weight[:, :, ::-1, ::-1]", "weight"),
         r"\ninput_grad\(grad_output, weight, \(.*\ngrad_output =\n.*\nweight =\n"),
        ("check_col2im", "03_backward", "col2im", ("rows, cols] += columns", "rows, cols] = columns"),
         r"\ncol2im\(columns, \(.*\ncolumns =\n"),
    ],
)  # fmt: skip
def test_the_smallest_gradient_is_shown_with_the_right_one(check, notebook, function, change, shown):
    text = str(getattr(exercises, check)(written(notebook, function, change)))
    assert re.search(f"(?s){shown}.*\nreturned\n.*\nand should return\n", text), text
    assert "to reproduce" not in text


def test_the_failing_call_comes_before_the_arrays():
    forward = written("01_sliding_window", "forward", ("top : top + k1", "top : top + k1 - 1"))
    lines = str(exercises.check_forward(forward, supports=("stride",))).splitlines()
    call = "forward(x, weight, None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)"
    assert lines[:2] == ["FAILED: forward", call]
    assert [line.partition(":")[0] for line in lines[2:7]] == ["values", "x", "weight", "expected", "actual"]
    assert "Read out" not in "".join(lines)  # the slip has a name, so no other explanation is needed
    backward = written("03_backward", "my_backward", ("g.sum(axis=(0, 2))", "-g.sum(axis=(0, 2))"))
    lines = str(exercises.check_backward(backward)).splitlines()
    assert lines[1].startswith("my_backward(grad_output, x, weight, stride=(1, 1), padding=")


CRASHES = [
    ("x.nothing", "AttributeError: 'numpy.ndarray' object has no attribute 'nothing'"),
    ("np.pad(x, 'three')", ""),
    ("refconv.conv(x, weight, stride=0)", "ValueError: stride must be at least 1"),
    ("np.einsum('ab,bc->ac', x, weight)", ""),
]


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("source", "message"), CRASHES)
@pytest.mark.parametrize("check", ["check_forward", "check_backward", "check_im2col", "check_out_size"])
def test_an_exception_is_shown_with_the_line_that_the_learner_wrote(check, source, message):
    arguments = {
        "check_backward": "grad_output, x, weight, stride, padding, dilation, groups",
        "check_forward": "x, weight, bias, stride, padding, dilation, groups",
        "check_im2col": "x, kernel, stride, padding, dilation",
        "check_out_size": "n, k, stride, padding, dilation",
    }[check]
    names = {"np": np, "refconv": refconv}
    body = source if check != "check_out_size" else source.replace("x", "np.ones((1, 1, 1, 1), 'float32')", 1)
    body = body.replace("weight", "np.ones((1, 1, 1, 1), 'float32')") if "weight" not in arguments else body
    exec(f"def mine({arguments}):\n    # why not\n    return {body}", names)
    text = str(getattr(exercises, check)(names["mine"], supports=()))
    assert f"raised {message}" in text
    assert "(line 3, in mine)" in text, text
    assert "refconv/" not in text
    assert "numpy/" not in text


def test_a_function_with_other_arguments_fails_without_a_traceback():
    def forward(x, weight):
        return x

    text = str(exercises.check_forward(forward))
    assert re.search(r"\nraised TypeError: .*forward\(\) takes 2 positional arguments but 7 were given\n", text), text


def test_what_is_wrong_beyond_the_numbers_of_a_piece_is_said():
    def im2col(x, kernel, stride, padding, dilation):
        columns = SOLVED_IM2COL(x, kernel, stride, padding, dilation)
        x *= 2
        return columns

    text = str(exercises.check_im2col(im2col, supports=()))
    assert "\nreturned the right numbers\ninputs unchanged: forward wrote to its argument x" in text, text
    text = str(exercises.check_im2col(lambda *arguments: SOLVED_IM2COL(*arguments).astype(float), supports=()))
    assert "\nreturned data type float64; it must be float32" in text
    text = str(exercises.check_im2col(lambda *arguments: SOLVED_IM2COL(*arguments)[0], supports=()))
    assert "\nreturned shape (1, 1); it must return (N, C·k1·k2, L) = (1, 1, 1)" in text


SOLVED_IM2COL = written("02_im2col", "im2col")


@pytest.mark.parametrize("value", [None, 2.0, "3", -1, 10**9])
def test_an_absurd_size_is_a_failure_and_no_traceback(value):
    verdict = exercises.check_out_size(lambda n, k, stride, padding, dilation: value, supports=())
    assert not verdict.passed
    assert str(verdict).startswith("FAILED: out_size\n")


@pytest.mark.thinned(4)
@pytest.mark.parametrize("value", [None, 2.0, "columns", np.zeros((1, 1, 1)), np.zeros(0)])
@pytest.mark.parametrize("check", [exercises.check_im2col, exercises.check_col2im, exercises.check_input_grad])
def test_absurd_columns_are_a_failure_and_no_traceback(check, value):
    verdict = check(lambda *arguments: value, supports=())
    assert not verdict.passed
    assert str(verdict).startswith("FAILED: ")


# --- Logarithmic sizes -----------------------------------------------------------------------------------------------


def ideal_sizes(c, n, base):
    return [Fraction(c * (base - 1), base**i) for i in range(1, n)] + [Fraction(c, base ** (n - 1))]


def rest_in_one(place, rounding):
    """Round all sizes but one, and give that one the remainder."""

    def sizes(c, n, base):
        found = [rounding(size) for size in ideal_sizes(c, n, base)]
        found[place] = 0
        found[place] = c - sum(found)
        return found

    return sizes


def uneven_shares(c, n, base):
    """Give each group its share of the remaining channels, rounded down."""
    left = [-(-c // base**i) for i in range(n)]
    return [*(before - after for before, after in itertools.pairwise(left)), left[-1]]


def library(c, n, base=2):
    return refconv.logarithmic_groups(c, c, n, base).in_sizes


SOLUTION = written("08_logarithmic_groups", "logarithmic_sizes")
WRONG_SIZES = [
    ("last size missing", lambda c, n, base: [c * (base - 1) // base**i for i in range(1, n)]),
    ("last size missing", lambda c, n, base: SOLUTION(c, n, base)[:-1]),
    ("divided on to the end", lambda c, n, base: [c * (base - 1) // base**i for i in range(1, n + 1)]),
    ("divided on to the end", lambda c, n, base: np.asarray([round(c / 2**i) for i in range(1, n + 1)])),
    ("first size skipped a division", lambda c, n, base: [c * (base - 1) // base**i for i in range(n)]),
    ("first size skipped a division",
     lambda c, n, base: [c * (base - 1) // base**i for i in range(n - 1)] + [c // base ** (n - 1)]),
    ("last size a copy of the one before",
     lambda c, n, base: [c * (base - 1) // base ** min(i, n - 1) for i in range(1, n + 1)]),
    ("factor b − 1 forgotten", lambda c, n, base: [c // base ** min(i, n - 1) for i in range(1, n + 1)]),
    ("factor b − 1 forgotten", lambda c, n, base: [*(s := [c // base**i for i in range(1, n)]), c - sum(s)]),
    ("base ignored", lambda c, n, base: SOLUTION(c, n, 2)),
    ("base ignored", lambda c, n, base: library(c, n)),
    ("order reversed", lambda c, n, base: SOLUTION(c, n, base)[::-1]),
    ("order reversed", lambda c, n, base: library(c, n, base)[::-1]),
    ("equal groups", lambda c, n, base: [c // n + (i < c % n) for i in range(n)]),
    ("one group too many", lambda c, n, base: SOLUTION(c, n + 1, base)),
    ("one group too few", lambda c, n, base: SOLUTION(c, n - 1, base)),
    ("each size rounded for itself", lambda c, n, base: [math.floor(s) for s in ideal_sizes(c, n, base)]),
    ("each size rounded for itself", lambda c, n, base: [math.ceil(s) for s in ideal_sizes(c, n, base)]),
    ("each size rounded for itself", lambda c, n, base: [round(s) for s in ideal_sizes(c, n, base)]),
    ("last group gets what the roundings leave", rest_in_one(-1, math.floor)),
    ("last group gets what the roundings leave", rest_in_one(-1, math.ceil)),
    ("last group gets what the roundings leave", rest_in_one(-1, round)),
    ("last group gets what the roundings leave", uneven_shares),
    ("first group gets what the roundings leave", rest_in_one(0, math.floor)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wrong"), WRONG_SIZES)
def test_wrong_sizes_are_called_by_their_mistake_and_no_other(name, wrong):
    verdict = exercises.check_logarithmic_sizes(wrong)
    assert not verdict.passed
    assert [mistake.name for mistake in verdict.diagnoses] == [name], str(verdict)
    first, call, message, *rest = str(verdict).splitlines()
    assert first == f"FAILED: {wrong.__name__}"
    assert re.match(re.escape(wrong.__name__) + r"\(\d+, \d+, \d+\) returned ", call)
    assert "; right is (" in message
    assert rest[0].startswith(f"consistent with: {name}. ")


def test_every_mistake_has_a_wrong_answer():
    assert {mistake.name for mistake, _ in MISTAKES} == {name for name, _ in WRONG_SIZES}


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        ([1, 0], "the sizes do not add up: their sum is 1, not 2 (1 left over)"),
        ([2, 1], "the sizes do not add up: their sum is 3, not 2 (1 too many)"),
        ([2, 0], "size 2 is 0: an empty group"),
        ([2], "there must be n = 2 sizes, not 1"),
    ],
)
def test_the_smallest_division_that_is_wrong_is_shown(wrong, shown):
    verdict = exercises.check_logarithmic_sizes(lambda c, n, base: wrong)
    assert (verdict.call, verdict.message) == (f"<lambda>(2, 2, 2) returned {wrong}", f"{shown}; right is (1, 1)")


def one_wrong(division, sizes):
    """Return sizes that are right except for one division."""
    return lambda *asked: sizes if asked == division else SOLUTION(*asked)


@pytest.mark.parametrize(
    ("division", "sizes", "message"),
    [
        ((8, 2, 2), (5, 3), "size 1 is 5, and must be 4: 2^1 divides 8"),
        ((7, 3, 2), (5, 1, 1), "size 1 is 5, more than one channel from 7/2"),
        ((5, 3, 2), (2, 1, 2), "size 3 is 2, larger than the previous one, 1"),
        ((9, 1, 2), (8,), "the sizes do not add up: their sum is 8, not 9 (1 left over)"),
    ],
)
def test_each_part_of_the_rule_is_checked(division, sizes, message):
    verdict = exercises.check_logarithmic_sizes(one_wrong(division, sizes))
    assert verdict.message.startswith(f"{message}; right is "), str(verdict)
    assert verdict.call.endswith(f"{division} returned {sizes}")


@pytest.mark.parametrize(
    ("division", "sizes"),
    [((7, 3, 2), (3, 2, 2)), ((7, 3, 2), (4, 2, 1)), ((6, 3, 2), (4, 1, 1)), ((5, 3, 2), (2, 2, 1))],
)
def test_all_sizes_that_obey_the_rule_are_right(division, sizes):
    assert exercises.check_logarithmic_sizes(one_wrong(division, sizes)).passed


@pytest.mark.parametrize("kind", [list, tuple, np.asarray, iter])
@pytest.mark.parametrize("right", [SOLUTION, library, lambda *division: right_sizes(Division(*division))])
def test_right_sizes_pass(right, kind):
    verdict = exercises.check_logarithmic_sizes(lambda c, n, base: kind(right(c, n, base)))
    assert re.fullmatch(r"passed: <lambda> is right in all \d+ cases", str(verdict))


@given(st.integers(2, 12), st.data())
def test_the_library_and_the_oracle_obey_the_rule_everywhere(base, data):
    c = data.draw(st.integers(1, 10**6))
    n = data.draw(st.integers(1, next(k for k in itertools.count(1) if base**k > c)))
    for sizes in (library(c, n, base), right_sizes(Division(c, n, base)), tuple(SOLUTION(c, n, base))):
        assert broken_rule(sizes, Division(c, n, base)) == ""


@pytest.mark.parametrize("value", [None, 3, "sizes", [1.0, 1.0], [True, True], [[1], [1]], {1: 1, 2: 2}.items()])
def test_absurd_sizes_are_a_failure_and_no_traceback(value):
    verdict = exercises.check_logarithmic_sizes(lambda c, n, base: value)
    assert verdict.message == "it must return a sequence of ints; right is (1, 1)"
    assert verdict.diagnoses == ()


def test_endless_sizes_are_not_waited_for():
    verdict = exercises.check_logarithmic_sizes(lambda c, n, base: itertools.count(1))
    assert verdict.message == "there must be n = 2 sizes, not 4; right is (1, 1)"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("zeros", [100, 5000])
def test_sizes_too_large_to_be_written_are_a_failure_and_no_traceback(sign, zeros):
    verdict = exercises.check_logarithmic_sizes(lambda c, n, base: [sign * 10**zeros] * n)
    assert verdict.call.startswith("<lambda>(2, 2, 2) returned ")
    assert verdict.message == "it must return a sequence of ints, and none absurdly large; right is (1, 1)"


def raising(error):
    def mine(*arguments):
        raise error

    return mine


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (IndexError("out of range"), "IndexError: out of range"),
        (ValueError("raised NotImplementedError"), "ValueError: raised NotImplementedError"),
        (MuteError(), "MuteError, which cannot be printed"),
    ],
)
def test_an_answer_that_raises(error, raised):
    text = exercises.check_answer(raising(error), lambda result, n: True, [(3,)])
    assert re.fullmatch(rf"FAILED: mine\(3\) raised {re.escape(raised)} \(line \d+, in mine\)", text)
    text = str(exercises.check_logarithmic_sizes(raising(error)))
    assert text.startswith(f"FAILED: mine\nmine(2, 2, 2) raised {raised}\n"), text


def test_an_answer_that_is_not_written():
    unwritten = raising(NotImplementedError())
    assert exercises.check_answer(unwritten, lambda result: True) == "FAILED: mine is not written yet"
    assert str(exercises.check_logarithmic_sizes(unwritten)) == "FAILED: mine is not written yet"


def returning(value):
    def mine(*arguments):
        return value

    return mine


@pytest.mark.parametrize(
    ("value", "expected", "shown"),
    [
        (3, 4, "returned 3, not 4"),
        (4.0, 4, "returned 4.0, a float: use //"),
        (4.9, 4, "returned 4.9, a float: use //"),
        (3.0, 4, "returned 3.0, not 4"),
        (math.inf, 4, "returned inf, not 4"),
        ("4", 4, "returned 4, not 4"),
        ((2, 227), (227, 2), "returned (2, 227): these are the right values in the wrong order"),
        ([1, 3, 2], [1, 2, 3], "returned [1, 3, 2]: these are the right values in the wrong order"),
        ((1, 3), (1, 2), "returned (1, 3), not (1, 2)"),
        (np.array([1, 2]), np.array([2, 1]), "\nreturned\n[1 2]\nand should return\n[2 1]"),
        (np.array([1, 2]), np.array([2]), "returned ndarray of shape (2,), not (1,)"),
        (2, np.array([2]), "returned int of shape (), not (1,)"),
    ],
)
def test_a_wrong_answer_is_shown_with_the_expected_one(value, expected, shown):
    text = exercises.check_answer(returning(value), cases=[(1,)], expected=returning(expected))
    assert text == f"FAILED: mine(1){'' if shown[0] == chr(10) else ' '}{shown}"


@pytest.mark.parametrize("right", [4, np.int64(4)])
def test_an_answer_equal_to_the_expected_one_passes(right):
    assert exercises.check_answer(returning(right), expected=returning(4)) == "passed: mine is right"
    assert exercises.check_answer(returning(np.ones(2)), expected=returning(np.ones(2))) == "passed: mine is right"


def test_a_teacher_may_give_a_hint_in_place_of_the_answer():
    verdict = exercises.check_answer(returning(3), lambda result: result == 4, hint="Count the window at 0.")
    assert verdict == "FAILED: mine() returned 3, which is not right\nhint: Count the window at 0."
    verdict = exercises.check_answer(
        returning(3), lambda result, n: result == n, [(4,)], hint=lambda result, n: f"{n - result} too few"
    )
    assert verdict.endswith("\nhint: 1 too few")
    assert exercises.check_answer(returning(3), lambda result: result == 3, hint="none").startswith("passed")


def test_values_in_the_wrong_order_are_seen_without_an_expected_answer():
    text = exercises.check_answer(returning((2, 227)), lambda result: result == (227, 2))
    assert text == "FAILED: mine() returned (2, 227): these are the right values in the wrong order"


def test_an_answer_that_cannot_be_judged():
    def nothing(n):
        return None

    text = exercises.check_answer(nothing, lambda result, n: sum(result) == n, [(3,)])
    assert text == "FAILED: nothing(3) returned None, which is not right (TypeError: 'NoneType' object is not iterable)"

    def array():
        return np.ones(2, bool)

    text = exercises.check_answer(array, lambda result: result == [True, True])
    assert text.startswith("FAILED: array() returned [ True  True], which is not right (ValueError: ")
