# ruff: noqa: E501  (the table of breaks reads best one to a line)
"""Break refconv on purpose, one line at a time, and show which test turns red.

    python tests/break_on_purpose.py [NAME …]

Each break is made in a copy of the package; the suite then runs against the copy and must fail. Exits with 1 if
any break goes unnoticed. Not part of the suite itself: it runs the suite once per break.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL_TESTS = ["test_cost.py", "test_models.py", "test_nn.py", "test_measure.py"]
SUITES = {  # the tests that a break must turn red, by the first of these that its file begins with
    "nn/data/": ["test_data.py"],
    **dict.fromkeys(["nn/models/", "nn/towers", "cost", "experiments/measure"], MODEL_TESTS),
    "files": ["test_files.py"],
    "nn/malloc": ["test_nn_malloc.py"],
    "nn/": ["test_nn.py", "test_nn_pooling.py", "test_nn_normalisation.py", "test_nn_layers.py", "test_nn_state.py",
            "test_checkpoint.py", "test_training.py"],
    "bench/": ["test_bench.py"],
    "cpu/adjoint.py": ["test_cpu_adjoint.py"],
    "cpu/layouts.py": ["test_cpu_layouts.py"],
    "cpu/choices.py": ["test_cpu_layouts.py", "test_cpu_adjoint.py"],
    "cpu/plan.py": ["test_cpu_plan.py", "test_cpu_passes.py"],
    "cpu/threads.py": ["test_cpu_threads.py", "test_cpu_passes.py"],
    "cpu/passes.py": ["test_cpu_passes.py", "test_cpu_adjoint.py", "test_cpu_layouts.py", "test_conv_forward.py",
                      "test_conv_backward.py", "test_conv_transpose.py"],
    "textbook.py": ["test_textbook.py", "test_conv_forward.py", "test_conv_backward.py", "test_conv_transpose.py",
                    "test_devices.py"],
    "engine.py": ["test_settings.py", "test_textbook.py"],
    "settings.py": ["test_settings.py"],
    "shapes.py": ["test_errors.py", "test_messages.py", "test_conv_forward.py", "test_conv_transpose.py", "test_cpu_passes.py"],
    "notebooks/nbgrader": ["test_nbgrader.py"],
    "notebooks/": ["test_notebooks.py"],
    "../tests/run_notebooks.py": ["test_notebooks.py"],
    "testing/exercises": ["test_exercises.py"],
    "experiments/train.py": ["test_training.py"],
    "experiments/": ["test_compare.py"],
    "cli": ["test_train_command.py"],
    "": ["test_im2col.py", "test_conv_forward.py", "test_conv_backward.py", "test_conv_transpose.py", "test_properties.py",
         "test_cpu_passes.py", "test_groups.py", "test_nn_layers.py", "test_messages.py", "test_devices.py"],
}  # fmt: skip

# name: file, what stands there, what is put in its place
BREAKS = {
    "im2col-taps-transposed": ("arrays.py", "*map(operator.mul, spatial, dilation)", "*map(operator.mul, reversed(spatial), dilation)"),
    "im2col-dilation-ignored": ("arrays.py", "*map(operator.mul, spatial, dilation)", "*spatial"),
    "im2col-stride-ignored": ("arrays.py", "*map(operator.mul, spatial, stride)", "*spatial"),
    "im2col-returns-a-view": ("im2col.py", "gather_columns(xp, padded, geo, shape[0], copy=True)", "gather_columns(xp, padded, geo, shape[0])"),
    "col2im-loses-overlaps": ("im2col.py", "add_to(xp, padded, xp.moveaxis(columns[(slice(None), *tap, ...)], 1, 0), (..., *where))", "padded[(..., *where)] = xp.moveaxis(columns[(slice(None), *tap, ...)], 1, 0)"),
    "col2im-stride-ignored": (
        "im2col.py",
        "in tap_slices(geo.kernel, geo.stride, geo.dilation, geo.output):\n        add_to",
        "in tap_slices(geo.kernel, (1,) * len(geo.stride), geo.dilation, geo.output):\n        add_to",
    ),
    "groups-first-kernel-only": ("cpu/passes.py", "[matrix[tile.piece.groups] for matrix in blocks[tile.piece.block]]", "[matrix[:1] + 0 * matrix[tile.piece.groups] for matrix in blocks[tile.piece.block]]"),
    "groups-of-one-size-reversed": (
        "conv.py",
        "arrays = list(weight)[block.first : block.first + block.count]",
        "arrays = list(weight)[block.first : block.first + block.count][::-1]",
    ),
    "groups-shared-channels-overwrite": ("textbook.py", "add_to(xp, total, xp.take(listed, table, axis=1))", "total = xp.take(listed, table, axis=1)"),
    "weight-gradient-channel-order": (
        "im2col.py",
        "(*range(1, d + 2), 0, *range(d + 2, 2 * d + 2))",
        "(*range(1, d + 2), *range(d + 2, 2 * d + 2), 0)",
    ),
    "weight-gradient-last-batch-slice-only": ("cpu/passes.py", "functools.reduce(np.ndarray.__iadd__, map(sums, tiles))", "list(map(sums, tiles))[-1]"),
    "padding-reflect-repeats-the-edge": ("padding.py", "Run(0, before, before, -1)", "Run(0, before, before - 1, -1)"),
    "padding-circular-starts-late": ("padding.py", "Run(0, before, n - before, 1)", "Run(0, before, n - before - 1, 1)"),
    "padding-replicate-far-edge": (
        "padding.py",
        "Run(0, before, 0, 0), Run(end, end + after, n - 1, 0)",
        "Run(0, before, 0, 0), Run(end, end + after, 0, 0)",
    ),
    "padding-gradient-forgets-the-border": (
        "padding.py",
        "add_to(xp, x, _flip(xp, part, combination), (..., *(run.input for run in combination)))",
        "x[(..., *(run.input for run in combination))] = _flip(xp, part, combination)",
    ),
    "padding-same-odd-before": (
        "shapes.py",
        '(small, large) if padding == "same"',
        '(large, small) if padding == "same"',
    ),
    "transposed-output-padding-ignored": ("shapes.py", "+ 1 + extra[axis]", "+ 1"),
    "transposed-too-many-windows": (
        "shapes.py",
        'return _geometry(tuple(output), kernel, stride, dilation, pads, "zeros", size)',
        'return geometry(tuple(output), kernel, stride=stride, padding=pads, dilation=dilation)',
    ),
    "transposed-gradient-not-conjugated": ("conv.py", "[conj(xp, kernel) for kernel in engine.outer(call, _to_first(c, x), grad, c.accumulate)]", "engine.outer(call, _to_first(c, x), grad, c.accumulate)"),
    "transposed-sides-exchanged": ("shapes.py", "return self.groups.outputs if self.transposed else self.groups.inputs", "return self.groups.inputs"),
    "input-gradient-not-conjugated": ("conv.py", "return [conj(c.xp, kernel) for kernel in _to_kernels(c, weight)]", "return _to_kernels(c, weight)"),
    "bias-per-group-not-sliced": ("textbook.py", "xp.astype(bias[channels], part.dtype", "xp.astype(bias[: channels.stop - channels.start], part.dtype"),
    "half-precision-accumulates-in-half": ("arrays.py", "return \"float32\" if name == \"float16\" else computing_dtype(xp, name)", "return name"),
    "tiles-of-rows-miss-the-halo": ("cpu/passes.py", "first = -(-(rows[0] + before - geo.spans[0] + 1) // geo.stride[0])", "first = -(-(rows[0] + before) // geo.stride[0])"),
    "data-tested-on-what-was-trained-on": ("nn/data/patches.py", "order[tests:], train_count", "order, train_count"),
    "data-blocks-overlap": ("nn/data/patches.py", "(row + 1) * height // rows", "row * height // rows + 2 * patch + 2"),
    "data-standardised-by-the-test-images": ("nn/data/split.py", "(train[part, channel]", "(test[part, channel]"),
    "data-cifar-red-last": ("nn/data/cifar.py", "SIDE, SIDE), labels", "SIDE, SIDE)[:, ::-1], labels"),
    "data-cifar-label-10": ("nn/data/cifar.py", "labels >= _CLASSES", "labels > _CLASSES"),
    "data-folder-tests-on-training-images": ("nn/data/folder.py", "train += order[tests:]", "train += order"),
    "data-bomb-is-opened": ("nn/data/folder.py", 'simplefilter("error", Image.', 'simplefilter("ignore", Image.'),
    "data-shift-along-rows": ("nn/data/augmentation.py", "eigenvalues) @ eigenvectors.T", "eigenvalues) @ eigenvectors"),
    "data-shift-by-the-deviation": ("nn/data/augmentation.py", "(alpha * eigenvalues)", "(alpha * eigenvalues**0.5)"),
    "data-crop-never-at-the-end": ("nn/data/augmentation.py", "height - crop + 1, count", "height - crop, count"),
    "data-mirrored-upside-down": ("nn/data/augmentation.py", "found[:, :, ::-1] if", "found[:, ::-1] if"),
    "max-pool-gives-a-tie-to-the-last": (
        "nn/pooling.py",
        "xp.maximum(chosen[windows], xp.astype(found, dtype) * rank)",
        "xp.where(found, rank, chosen[windows])",
    ),
    "max-pool-loses-overlaps": ("nn/pooling.py", "total[inputs] += masked(", "total[inputs] = masked("),
    "max-pool-nan-gets-no-gradient": ("nn/pooling.py", "        if nan:\n", "        if False:\n"),
    "max-pool-numbers-in-a-byte": ("nn/pooling.py", 'return "uint8" if taps < 2**8 else', 'return "uint8" if taps < 2**9 else'),
    "pooling-last-window-behind-the-input": ("nn/pooling.py", "(count - 1) * s >= n + p", "(count - 1) * s > n + p"),
    "pooling-windows-start-late": ("nn/pooling.py", "start = max(0, -((tap - padding) // stride))", "start = max(0, (padding - tap) // stride + 1)"),
    "avg-pool-counts-beyond-the-padding": ("nn/pooling.py", "end = np.minimum(first + k, n + p)", "end = first + k"),
    "avg-pool-always-counts-the-padding": ("nn/pooling.py", "win.counts(padding=self.count_include_pad)", "win.counts(padding=True)"),
    "gradient-of-infinity-is-nan-elsewhere": ("arrays.py", "if xp is np and all_finite(array):", "if xp is np:"),
    "response-norm-divides-alpha": ("nn/normalisation.py", "if self.divide_by_size else self.alpha", "if True else self.alpha"),
    "response-norm-crosses-blocks": (
        "nn/normalisation.py",
        "return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]",
        "return [slice(0, ends[-1])]",
    ),
    "response-norm-gradient-window-not-mirrored": (
        "nn/normalisation.py",
        "g * a / s, (self.size - 1) // 2, self.size // 2, blocks",
        "g * a / s, self.size // 2, (self.size - 1) // 2, blocks",
    ),
    "batch-norm-running-variance-biased": ("nn/normalisation.py", "variance * (count / (count - 1))", "variance"),
    "batch-norm-testing-moves-with-the-batch": ("nn/normalisation.py", "        if self.training:\n", "        if True:\n"),
    "batch-norm-gradient-without-the-variance": ("nn/normalisation.py", "grad - per_channel(xp, grad_bias / count, grad) - normal", "grad - per_channel(xp, grad_bias / count, grad) - 0 * normal"),
    "dropout-not-rescaled": ("nn/dropout.py", "scale = 1 / (1 - self.p) if self.training else 1 - self.p", "scale = 1.0"),
    "dropout-draws-in-testing": ("nn/dropout.py", "if self.training and self.p:", "if self.p:"),
    "shuffle-is-its-own-inverse": ("nn/layers.py", "grad_output.shape[1] // self.groups)", "self.groups)"),
    "tanh-slope-not-differentiated": ("nn/layers.py", "self.amplitude * self.slope * (1 - t * t)", "self.amplitude * (1 - t * t)"),
    "products-cut-by-the-number-of-workers": (
        "nn/product.py",
        "length = max(1, BLOCK_MULTIPLY_ADDS // (short * a.shape[1]))",
        "from refconv import tiling\n    length = max(1, long // (tiling._workers.get() or 1))",
    ),
    "products-miss-the-last-block": ("nn/product.py", "cut(long, length), block_bytes", "cut(long, length)[:-1] or cut(long, length), block_bytes"),
    "state-without-running-statistics": ("nn/base.py", "own |= {name: getattr(self, name) for name in self._buffers}", "own |= {}"),
    "state-loaded-without-a-copy": ("nn/base.py", "asarray(array, copy=True)", "asarray(array, copy=None)"),
    "modes-of-this-layer-only": ("nn/base.py", "            child._set_training(training)\n", "            child.training = training\n"),
    "checkpoint-without-a-checksum": ("nn/checkpoint.py", 'if _digest(arrays, header["meta"]) != header["sha256"]:', "if False:"),
    "checkpoint-not-on-the-disk": ("files.py", "os.fsync(file.fileno())", "pass"),
    "resume-forgets-dropout": ("nn/training.py", '{"order": check_rng(rng), **(generators or {})}', '{"order": check_rng(rng)}'),
    "resume-forgets-velocities": ("nn/training.py", "self.optimiser.lr, self.optimiser.velocities = meta[\"lr\"], velocities", "self.optimiser.lr = meta[\"lr\"]"),
    "resume-draws-a-new-order": ("nn/training.py", "self._order = step, order", "self._order = step, np.arange(self._count)"),
    "rate-falls-under-momentum": ("nn/optim.py", "[lr / self.lr * velocity for", "[velocity for"),
    "two-processes-in-one-folder": ("files.py", "            alone = False\n", "            pass\n"),
    "loss-that-is-no-number-goes-on": ("experiments/train.py", "if not math.isfinite(step.loss):", "if False:"),
    "hang-up-that-was-ignored": ("cli.py", " and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN", ""),
    "resume-with-other-settings": ("experiments/train.py", "if before.get(key) != config.get(key):", "if False:"),
    "metrics-as-a-kill-left-them": ("experiments/train.py", "    _write_metrics(folder, rows)  #", "    #"),
    "checkpoint-before-the-metrics-row": ("experiments/train.py", '"epochs": rows, "version"', '"epochs": rows[:-1], "version"'),
    "towers-see-only-their-own": ("nn/towers.py", "x = xp.concat(outputs, axis=1) if", "x = xp.concat(outputs[::-1], axis=1) if"),
    "towers-gradient-of-the-last-only": ("nn/towers.py", "total = grad if total is None else total + grad", "total = grad"),
    "towers-gradient-of-the-wrong-channels": ("nn/towers.py", "grad_output[:, start:stop, ...]", "grad_output[:, : stop - start, ...]"),
    "towers-count-their-own-as-received": ("nn/towers.py", "(len(towers) - 1) * elements", "len(towers) * elements"),
    "alexnet-norm-crosses-the-gpus": ("nn/models/alexnet.py", "LocalResponseNorm(sizes=sizes)", "LocalResponseNorm()"),
    "alexnet-norm2-cut-as-conv2-reads": ("nn/models/alexnet.py", 'norm("norm2", written)', 'norm("norm2", read)'),
    "alexnet-biases-start-at-zero": ("nn/models/alexnet.py", "padding=kernel // 2, initial_bias=1", "padding=kernel // 2, initial_bias=0"),
    "alexnet-conv3-grouped": ("nn/models/alexnet.py", "widths.conv2, own.conv3, 3, padding=1", "widths.conv2, own.conv3, 3, padding=1, groups=2"),
    "alexnet-dropout-scales-in-training": ("nn/models/alexnet.py", ', rescale="testing"', ""),
    "alexnet-pools-without-overlap": ("nn/models/alexnet.py", "MaxPool(3, 2)", "MaxPool(2, 2)"),
    "alexnet-smallest-side-too-small": ("nn/models/alexnet.py", "SMALLEST = 63", "SMALLEST = 62"),
    "tower-weights-interleaved": ("nn/models/alexnet.py", "array[t * rows : (t + 1) * rows, ...]", "array[t::towers, ...]"),
    "lenet5-without-squashing-c1": ("nn/models/lenet5.py", "        C1_tanh=tanh(),\n", ""),
    "lenet5-c3-dense": ("nn/models/lenet5.py", "groups=as_grouping(groups)(6, 16)", "groups=1"),
    "memory-forgets-masks": ("cost.py", '"relu": 1, ', '"relu": 0, '),
    "memory-of-norms-without-the-scale": ("cost.py", "keeps_output=2 * FLOAT", "keeps_output=FLOAT"),
    "memory-halves-what-towers-need-whole": ("cost.py", "inputs = self.inputs if self.sees_all else self.inputs // towers", "inputs = self.inputs // towers"),
    "memory-without-gradients": ("cost.py", "made = FLOAT * (parameters - gradients)", "made = 0 * (parameters - gradients)"),
    "memory-keeps-gradients-before-their-layer": ("cost.py", "            gradients += p\n", ""),
    "step-keeps-its-gradients": ("nn/optim.py", "            parameter.grad = None\n", ""),
    "step-of-the-first-piece-only": ("nn/optim.py", "spread_rows(xp, work, elements(w.shape)", "spread_rows(xp, work, min(elements(w.shape), 2**14)"),
    "peak-in-kilobytes": ("experiments/measure.py", "return 1024 * next(", "return next("),
    "turned-kernels-not-turned": ("cpu/adjoint.py", "kernels = np.flip(kernels, axis=tuple(range(3, 3 + 2 * d, 2)))", "pass"),
    "turned-phases-in-the-order-of-taps": ("cpu/adjoint.py", "*range(4, 4 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2)", "*range(3, 3 + 2 * d, 2), 1, *range(4, 4 + 2 * d, 2)"),
    "turned-crop-forgotten": ("cpu/adjoint.py", "slice(max(0, start) - start, end - start)", "slice(0, end)"),
    "turned-infinities-spread": ("cpu/passes.py", "        if work.result() is None:\n", "        if work.result() is False:\n"),
    "turned-infinities-of-the-weight-spread": ("cpu/passes.py", "        watch(to[(*[slice(None)] * axis, part)])\n", ""),
    "shared-columns-infinities-of-x-spread": ("cpu/passes.py", "        self.watch(part)\n", ""),
    "shared-columns-of-another-sample": ("cpu/passes.py", "conj(np, tiles.listed(image, tile))", "conj(np, tiles.listed(image[::-1], tile))"),
    "shared-columns-x-not-conjugated": ("cpu/passes.py", "conj(np, tiles.listed(image, tile)), tiles.columns(grad, tile)", "tiles.listed(image, tile), tiles.columns(grad, tile)"),
    "joined-samples-by-the-workspace": ("cpu/plan.py", "separate = not cuts.sums_batch and not cuts.joins_samples", "separate = not cuts.sums_batch"),
    "weight-laid-out-but-for-the-last-part": ("cpu/passes.py", "for part in cut(to.shape[axis], size)]", "for part in cut(to.shape[axis], size)[:-1] or cut(to.shape[axis], size)]"),
    "parts-added-as-they-come": ("cpu/passes.py", "            while self._added in self._early:\n                array = self._early.pop(self._added)", "            while self._early:\n                array = self._early.popitem()[1]"),
    "tasks-do-not-wait": ("cpu/threads.py", "step.waits_for.wait(failures)", "pass"),
    "gates-open-early": ("cpu/threads.py", "self._left = [True, *[False] * (preparations - 1)]", "self._left = [True] * preparations"),
    "small-products-under-the-lock": ("cpu/layouts.py", "n * few >= LOCKED and", "n * few >= 0 and"),
    "calls-remembered-by-equality": ("shapes.py", "lru_cache(maxsize=256, typed=True)", "lru_cache(maxsize=256)"),
    "bench-ratio-upside-down": ("bench/run.py", '"ratio": own / median', '"ratio": median / own'),
    "bench-roofs-the-lowest": ("bench/run.py", "max(found[name] for found in roofs)", "min(found[name] for found in roofs)"),
    "bench-threads-not-set": ("bench/worker.py", "with threads(peer, layer):", "with threads(peer, WORKLOADS['small'][0]):"),
    "forget-keeps-the-children": ("nn/base.py", "            child.forget()\n", "            pass\n"),
    "width-never-below-the-budget": ("experiments/widths.py", "widths[max(above - 1, 0) : above + 1]", "widths[above : above + 1]"),
    "interval-of-the-normal-distribution": ("experiments/paired.py", "(1 + confidence) / 2, n - 1)", "(1 + confidence) / 2, 1e9)"),
    "interval-of-all-not-of-a-sample": ("experiments/paired.py", "* statistics.stdev(", "* statistics.pstdev("),
    "an-interval-that-touches-zero-is-clear": ("experiments/paired.py", "self.low <= 0 <= self.high", "self.low < 0 < self.high"),
    "comparisons-not-counted": ("experiments/tables.py", "1 - (1 - CONFIDENCE) / comparisons", "CONFIDENCE"),
    "seeds-not-paired": ("experiments/tables.py", "for a, b in zip(mine, others, strict=True)", "for a, b in zip(mine, others[::-1], strict=True)"),
    "order-depends-on-the-width": (
        "experiments/tasks.py",
        "rng, order = np.random.default_rng(seed).spawn(2)",
        "rng = order = np.random.default_rng(seed)",
    ),
    "half-a-line-of-results-read": ("experiments/compare.py", 'split(b"\\n")[:-1]', 'split(b"\\n")'),
    "other-settings-resumed": ("experiments/compare.py", "if was != now:", "if was is now:"),
    "a-stopped-training-counts": (
        "experiments/tasks.py",
        "if stopping():\n                return None",
        "if stopping():\n                break",
    ),
    "error-bars-twice-as-long": ("experiments/figures.py", '[100 * entry["deviation"]', '[200 * entry["deviation"]'),
    "tiles-of-rows-take-windows-that-touch-none": ("cpu/passes.py", "before - geo.spans[0] + 1) // geo", "before - geo.spans[0] - 1) // geo"),
    "rows-that-no-window-reads-in-later-samples": ("cpu/passes.py", "np.zeros((batch.stop - batch.start, channels,", "np.zeros((batch.stop, channels,"),
    "result-on-another-device": ("textbook.py", "dtype=native_dtype(xp, like), device=device(like))", "dtype=native_dtype(xp, like))"),
    "rows-phases-mixed": ("cpu/layouts.py", "padded[:, :, phase :: geo.stride[0]]", "padded[:, :, :: geo.stride[0]]"),
    "rows-dilation-forgotten": ("cpu/layouts.py", "(divmod(tap * geo.dilation[0], geo.stride[0]) for", "(divmod(tap, geo.stride[0]) for"),
    "rows-a-tap-not-summed": ("cpu/layouts.py", "    for pair in pairs:\n", "    for pair in list(pairs)[:-1]:\n"),
    "rows-taps-written-in-another-order": ("cpu/layouts.py", ".transpose(1, 2, 4, 0, 3)", ".transpose(1, 2, 4, 3, 0)"),
    "rows-parts-of-a-product-not-summed": ("cpu/layouts.py", "sum_axis(np, _outer(a, b), -3)", "_outer(a, b)[..., 0, :, :]"),
    "windows-phases-mixed": ("cpu/layouts.py", "padded[:, phase:] if phase else padded", "padded"),
    "windows-dilation-forgotten": ("cpu/layouts.py", "[step * s for step, s in zip(steps, geo.dilation[1:], strict=True)]", "[step * 1 for step in steps]"),
    "windows-stride-forgotten": ("cpu/layouts.py", "[step * s for step, s in zip(steps, geo.stride[1:], strict=True)]", "[step * 1 for step in steps]"),
    "channels-last-samples-in-another-order": ("cpu/layouts.py", "found.transpose(2, 0, d + 2, 1, *range(3, d + 2)).reshape(shape)", "found.transpose(1, 0, d + 2, 2, *range(3, d + 2)).reshape(shape)"),
    "channels-last-positions-in-another-order": ("cpu/layouts.py", "positions.transpose(1, 2, 3, 0,", "positions.transpose(1, 2, 0, 3,"),
    "channels-last-of-a-single-sample": ("cpu/choices.py", "call.batch > 1 and", "call.batch > 0 and"),
    "channels-last-of-short-rows": ("cpu/choices.py", "C * together >= LONG", "C * together >= LONG // 2"),
    "channels-last-not-repaid": ("cpu/choices.py", "math.prod(geo.output) >= PAYS_OFF", "math.prod(geo.output) >= 0"),
    "channels-last-of-rows-between": ("cpu/choices.py", "        and rows_to_copy(geo) <= geo.kernel[0] * geo.output[0]\n", ""),
    "channels-last-of-transposed-sides": ("shapes.py", "return [(block.count, block.out_size, block.in_size)", "return [(block.count, block.in_size, block.out_size)"),
    "rows-between-not-counted": ("cpu/plan.py", "C * (more + between) * self.item_bytes", "C * more * self.item_bytes"),
    "batch-of-columns-in-another-order": ("cpu/layouts.py", "return sum_of_products(kernels, columns).reshape(listed, batch, *output).swapaxes(0, 1)", "return sum_of_products(kernels, columns).reshape(shape)"),
    "strided-out-of-bounds": ("arrays.py", "if x.flags.c_contiguous:", "if True:"),
    "rows-bias-forgotten-in-place": ("cpu/passes.py", "                part += bias[channels]", "                part = part + bias[channels]"),
    "threads-go-on-after-a-failure": ("cpu/threads.py", "while todo and not failures:", "while todo:"),
    "threads-are-not-waited-for": ("cpu/threads.py", "                    thread.join()\n", "                    pass\n"),
    "threads-joined-only-once": ("cpu/threads.py", "while interrupted and thread.ident", "while False and thread.ident"),
    "tiles-of-rows-larger-than-a-tile": ("cpu/plan.py", "return self.geo.spans[0] // self.geo.stride[0]", "return 0"),
    "stale-text-of-a-notebook": ("../tests/run_notebooks.py", "if texts[0] != texts[1]:", "if texts[0] is texts[1]:"),
    "stale-picture-of-a-notebook": ("../tests/run_notebooks.py", " or not all(map(_alike, *pictures)):", ":"),
    "stale-cell-of-a-notebook": ("../tests/run_notebooks.py", "if [c.source for c in kept.cells] != [c.source for c in fresh.cells]:", "if len(kept.cells) != len(fresh.cells):"),
    "notebook-copied-over-work": ("notebooks/__init__.py", "if path.exists():", "if path.is_dir():"),
    "notebook-warns": ("../tests/run_notebooks.py", '_warnings.simplefilter("error")', '_warnings.simplefilter("ignore")'),
    "notebook-uses-the-network": ("../tests/run_notebooks.py", "_socket.socket.connect = _refuse", "pass"),
    "notebook-with-broken-sliders": ("../tests/run_notebooks.py", 'if output["output_type"] == "error":', 'if output["output_type"] == "stream":'),
    "notebook-with-solutions-open": ("notebooks/__init__.py", 'return _unmarked(_without("SOLUTION", source, "" if "### BEGIN MISTAKE" in source else STUB))', "return _unmarked(source)"),
    "nbgrader-solution-left-in": ("notebooks/nbgrader.py", 'return f"### BEGIN SOLUTION\\n{source}\\n### END SOLUTION"', "return source"),
    "nbgrader-mistake-not-given": ("notebooks/nbgrader.py", "given.source = opened(cell.source)", 'given.source = ""'),
    "nbgrader-check-unlocked": ("notebooks/nbgrader.py", "grade=True, locked=True, points=points", "grade=True, points=points"),
    "nbgrader-check-that-only-prints": ("notebooks/nbgrader.py", 'line[:start] + b"must_pass" + line[start', 'line[:start] + b"print" + line[start'),
    "nbgrader-two-cells-of-one-name": ("notebooks/nbgrader.py", 'facts["grade_id"] += f"-part-{count}"', "pass"),
    "memory-in-mappings-of-its-own": ("nn/malloc.py", "bool(mallopt(_MMAP_MAX, 0)) and ", ""),
    "four-slices-of-every-block": ("cpu/plan.py", "4 if len(shares) == 1 else 2", "4"),
    "reply-looked-for-once": ("../tests/run_notebooks.py", "min(EVERY, until - monotonic())", "until - monotonic()"),
    "grader-accepts-anything": ("testing/exercises/checks.py", 'if not found.startswith("passed: "):', "if not found:"),
    "exercise-accepts-anything": ("testing/exercises/checks.py", "(written if len(arguments[where]) else right)", "right"),
    "exercise-asks-for-an-empty-batch": ("testing/exercises/checks.py", "(written if len(arguments[where]) else right)", "written"),
    "exercise-with-its-size-unused": ("testing/exercises/checks.py", "return tuple(operator.index(out_size(*axis)) for axis in _axes(size, kernel, p))", "return super().outputs(size, kernel, p)"),
    "sizes-that-leave-channels-over": ("testing/exercises/logarithmic_sizes.py", "if sum(sizes) != c:", "if sum(sizes) > c:"),
    "sizes-with-an-empty-group": ("testing/exercises/logarithmic_sizes.py", "if min(sizes) < 1:", "if min(sizes) < 0:"),
    "sizes-not-exact": ("testing/exercises/logarithmic_sizes.py", "if division.is_exact and size != ideal:", "if division.is_exact and abs(size - ideal) > 1:"),
    "sizes-far-from-their-ideals": ("testing/exercises/logarithmic_sizes.py", "if abs(size - ideal) > 1:", "if abs(size - ideal) > 2:"),
    "sizes-refused-at-one-channel": ("testing/exercises/logarithmic_sizes.py", "if abs(size - ideal) > 1:", "if abs(size - ideal) >= 1:"),
    "sizes-that-grow": ("testing/exercises/logarithmic_sizes.py", "if size > before:", "if size > before + 1:"),
    "a-bool-for-a-size": ("testing/exercises/logarithmic_sizes.py", "if isinstance(item, bool):", "if item is None:"),
    "a-size-of-any-length": ("testing/exercises/logarithmic_sizes.py", "if abs(size) >= 10**100:", "if abs(size) > 10**100:"),
    "an-answer-that-cannot-be-judged": ("testing/exercises/checks.py", "fine = bool(right(result, *arguments))", "fine = right(result, *arguments)"),
    "an-exception-that-cannot-be-printed": ("testing/exercises/checks.py", "return None, f\"raised {_raised(error)}\"", "return None, f\"raised {error}\""),
    "mistakes-of-all-kinds-at-once": ("testing/exercises/logarithmic_sizes.py", "if d.kind <= wrong]", "]"),
    "measurement-gone-from-a-notebook": ("../tests/run_notebooks.py", "if not kinds[0] or kinds[0] != kinds[1]:", "if not kinds[0]:"),
    "notebook-beyond-its-time": ("../tests/run_notebooks.py", "if seconds > limit:", "if seconds > 10 * limit:"),
    "message-with-another-number": ("shapes.py", "padding {before} + {after} = {n + before + after}, but", "padding {before} + {after} = {n + before - after}, but"),
    "textbook-groups-ignored": ("textbook.py", "return gather_columns(xp, P, call.geometry, block.count)", "return xp.flip(gather_columns(xp, P, call.geometry, block.count), axis=0)"),
    "textbook-samples-for-channels": ("textbook.py", "parts.append((block.positions, xp.moveaxis(Y, 0, 1)))", "parts.append((block.positions, xp.reshape(Y, (Y.shape[1], Y.shape[0], *Y.shape[2:]))))"),
    "textbook-positions-not-moved": ("textbook.py", "return xp.reshape(xp.moveaxis(y, 0, 1), shape)", "return xp.reshape(y, shape)"),
    "textbook-kernels-not-transposed": ("textbook.py", "matmul(xp, xp.matrix_transpose(kernels), Y)", "matmul(xp, xp.reshape(kernels, (kernels.shape[0], kernels.shape[2], kernels.shape[1])), Y)"),
    "textbook-slices-not-added-up": ("textbook.py", "add_to(xp, kernels, xp.matrix_transpose(XY))", "kernels[...] = xp.matrix_transpose(XY)"),
    "textbook-workspace-ignored": ("textbook.py", "item_bytes(dtype_of(like)), workspace.get())", "item_bytes(dtype_of(like)), 2**40)"),
    "textbook-all-groups-at-once-not-counted": ("textbook.py", "kept = 0 if call.groups.is_contiguous else", "kept = 0 if call.groups.n else"),
    "textbook-blocks-of-the-first": ("textbook.py", "x = read(xp, x, call.image_side, block.image)", "x = read(xp, x, call.image_side, slice(0, block.image.stop - block.image.start))"),
    "textbook-bias-before-the-sum-is-rounded": ("textbook.py", "shift = xp.astype(bias[channels], part.dtype, copy=False)", "shift, part = bias[channels], xp.astype(part, out.dtype, copy=False)"),
    "textbook-weight-copied-for-each-sample": ("textbook.py", "Y = matmul(xp, kernels, _columns", "kernels = xp.concat([kernels] * call.batch, axis=0)[: block.count, ...]\n            Y = matmul(xp, kernels, _columns"),
    "fold-forgets-a-replicated-border": ("padding.py", "part = sum_axis(xp, part, replicated, keepdims=True)", "part = part[(..., *[slice(0, 1) if run.step == 0 else slice(None) for run in combination])]"),
    "engine-always-fast": ("engine.py", "and settings.engine() == \"fast\"", ""),
    "engine-of-other-modules": ("engine.py", "cpu is not None and is_numpy(xp) and", "cpu is not None and"),
    "set-engine-forgets-the-environment": ("settings.py", "os.environ.get(\"REFCONV_ENGINE\") or \"fast\"", "\"fast\""),
}  # fmt: skip


def run(name: str) -> str | None:
    """Make one break in a copy and return the first test that fails, or None."""
    file, old, new = BREAKS[name]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "refconv", copy / "refconv", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "docs", copy / "docs")
        shutil.copytree(ROOT / "benchmarks", copy / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "notebooks", copy / "notebooks")
        shutil.copy(ROOT / "pyproject.toml", copy)
        target = copy / "refconv" / file
        text = target.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise SystemExit(f"{name}: the line to break stands {text.count(old)} times in {file}; bring it up to date")
        target.write_text(text.replace(old, new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
        suite = next(tests for start, tests in SUITES.items() if file.startswith(start))
        command += [f"tests/{test}" for test in suite]
        done = subprocess.run(
            [*command, "--backend", "numpy"],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not failed:
        raise SystemExit(f"{name}: the suite did not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[0].split(" - ")[0]


def main() -> int:
    """Run the named breaks, or all of them."""
    missed = []
    for name in sys.argv[1:] or BREAKS:
        caught = run(name)
        print(f"{name:40} {caught or 'NOT CAUGHT'}", flush=True)  # noqa: T201
        if caught is None:
            missed.append(name)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
