"use strict";
/* The explorer's arithmetic: the convolution of one sample in two dimensions, without anything of the page.

The words are those of refconv/textbook.py. The *image* is padded and read through windows: it is x, or y if the
convolution is transposed. The other array has one element per *position* of the window: it is y, or x if transposed.

A problem has
  image, positions, kernel, stride, dilation   pairs: rows, columns
  padding                                      [[before, after], [before, after]]
  mode                                         "zeros", "reflect", "replicate" or "circular"
  groups                                       for each group {image: [channels], positions: [channels]}
and `places` adds reads[t][l], the element of the image that tap t reads at position l, or -1 in the zeros around it.

Arrays are flat, the last axis fastest: an image is (channels, rows, columns), and so are the positions. Weights are
one flat matrix per group: a row for each of its positions' channels, a column for each (image channel, tap). */

const convolution = (() => {
  const product = ([rows, columns]) => rows * columns;
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  const range = (count, first = 0) => Array.from({ length: count }, (_, i) => first + i);

  /** Elements from the first to the last tap. */
  const span = (kernel, dilation) => dilation * (kernel - 1) + 1;

  /** Positions of a window along one axis; 0 or less if it does not fit. */
  function positionCount(size, kernel, stride, [before, after], dilation) {
    return Math.floor((size + before + after - span(kernel, dilation)) / stride) + 1;
  }

  /** Output size of a transposed convolution along one axis. */
  function transposedSize(size, kernel, stride, [before, after], dilation, outputPadding) {
    return (size - 1) * stride - before - after + span(kernel, dilation) + outputPadding;
  }

  /** The element of an axis that stands at place i, which may be outside; -1 for a zero. */
  function source(i, size, mode) {
    const wrap = (value, period) => ((value % period) + period) % period;
    if (i >= 0 && i < size) return i;
    if (mode === "zeros") return -1;
    if (mode === "replicate") return i < 0 ? 0 : size - 1;
    if (mode === "circular") return wrap(i, size);
    if (size === 1) return 0;
    const turned = wrap(i, 2 * size - 2);
    return turned < size ? turned : 2 * size - 2 - turned;
  }

  /** The problem with reads: for each tap, the element of the image at each position. */
  function places(problem) {
    const { image, positions, kernel, stride, dilation, padding, mode } = problem;
    const axis = (a) =>
      range(kernel[a]).map((t) =>
        range(positions[a]).map((l) => source(l * stride[a] + t * dilation[a] - padding[a][0], image[a], mode)),
      );
    const [down, across] = [axis(0), axis(1)];
    const reads = down.flatMap((rows) =>
      across.map((columns) =>
        Int32Array.from(rows.flatMap((i) => columns.map((j) => (i < 0 || j < 0 ? -1 : i * image[1] + j)))),
      ),
    );
    return { ...problem, reads, taps: product(kernel), length: product(positions), elements: product(image) };
  }

  /** im2col: a row for each (channel, tap) of the channels, a column for each position. */
  function columns(problem, image, channels) {
    const { reads, taps, length, elements } = problem;
    const matrix = new Float64Array(channels.length * taps * length);
    channels.forEach((channel, c) => {
      for (let t = 0; t < taps; t++)
        for (let l = 0; l < length; l++)
          if (reads[t][l] >= 0) matrix[(c * taps + t) * length + l] = image[channel * elements + reads[t][l]];
    });
    return matrix;
  }

  /** The columns that a group spreads over the image: weights, transposed, times its part of the positions. */
  function spread(problem, group, weights, values) {
    const { taps, length } = problem;
    const rows = group.image.length * taps;
    const matrix = new Float64Array(rows * length);
    group.positions.forEach((channel, k) => {
      for (let r = 0; r < rows; r++)
        for (let l = 0; l < length; l++)
          matrix[r * length + l] += weights[k * rows + r] * values[channel * length + l];
    });
    return matrix;
  }

  /** col2im: add columns to an image, those of the first `until` positions. */
  function addColumns(problem, matrix, channels, image, until = problem.length) {
    const { reads, taps, length, elements } = problem;
    channels.forEach((channel, c) => {
      for (let t = 0; t < taps; t++)
        for (let l = 0; l < until; l++)
          if (reads[t][l] >= 0) image[channel * elements + reads[t][l]] += matrix[(c * taps + t) * length + l];
    });
  }

  const channelCount = (groups, side) => Math.max(-1, ...groups.flatMap((group) => group[side])) + 1;

  /** weights · columns: a convolution's output, or a transposed one's input gradient. */
  function correlate(problem, image, weights) {
    const { groups, taps, length } = problem;
    const values = new Float64Array(channelCount(groups, "positions") * length);
    groups.forEach((group, g) => {
      const matrix = columns(problem, image, group.image);
      const rows = group.image.length * taps;
      group.positions.forEach((channel, k) => {
        for (let r = 0; r < rows; r++)
          for (let l = 0; l < length; l++)
            values[channel * length + l] += weights[g][k * rows + r] * matrix[r * length + l];
      });
    });
    return values;
  }

  /** col2im(weightsᵀ · values): a convolution's input gradient, or a transposed one's output. */
  function scatter(problem, values, weights, until = problem.length) {
    const { groups, elements } = problem;
    const image = new Float64Array(channelCount(groups, "image") * elements);
    groups.forEach((group, g) =>
      addColumns(problem, spread(problem, group, weights[g], values), group.image, image, until),
    );
    return image;
  }

  /** values · columnsᵀ: the gradient of the weights, summed over the first `until` positions. */
  function outer(problem, image, values, until = problem.length) {
    const { groups, taps, length } = problem;
    return groups.map((group) => {
      const matrix = columns(problem, image, group.image);
      const rows = group.image.length * taps;
      const gradient = new Float64Array(group.positions.length * rows);
      group.positions.forEach((channel, k) => {
        for (let r = 0; r < rows; r++)
          for (let l = 0; l < until; l++)
            gradient[k * rows + r] += values[channel * length + l] * matrix[r * length + l];
      });
      return gradient;
    });
  }

  // --- Channel groups: for each group the input channels that it reads and the output channels that it writes ---

  /** Consecutive groups of these sizes. */
  function groupsFromSizes(ins, outs) {
    let [c, k] = [0, 0];
    return ins.map((size, g) => {
      const group = { reads: range(size, c), writes: range(outs[g], k) };
      c += size;
      k += outs[g];
      return group;
    });
  }

  const uniformSizes = (channels, n) => Array(n).fill(channels / n);

  /** c/2, c/4, …, c/2^(n-1), c/2^(n-1), rounded to whole channels by largest remainder. */
  function logarithmicSizes(channels, n) {
    const whole = 2 ** (n - 1);
    const ideals = [...range(n - 1, 1).map((i) => channels * 2 ** (n - 1 - i)), channels];
    const sizes = ideals.map((ideal) => Math.floor(ideal / whole));
    const byRemainder = range(n).sort((a, b) => (ideals[b] % whole) - (ideals[a] % whole));
    byRemainder.slice(0, channels - sum(sizes)).forEach((i) => sizes[i]++);
    return sizes;
  }

  /** Layer C3 of LeNet-5: each of 16 maps reads some of 6. */
  function lenet5Groups() {
    const kinds = [[[0, 1, 2], 6], [[0, 1, 2, 3], 6], [[0, 1, 3, 4], 3], [[0, 1, 2, 3, 4, 5], 1]];
    const lists = kinds.flatMap(([steps, count]) =>
      range(count).map((first) => steps.map((step) => (first + step) % 6).sort((a, b) => a - b)),
    );
    return lists.map((reads, k) => ({ reads, writes: [k] }));
  }

  return {
    positionCount, transposedSize, span, source, places, columns, spread, addColumns, correlate, scatter, outer,
    groupsFromSizes, uniformSizes, logarithmicSizes, lenet5Groups, range, sum,
  };
})();
