/* Runs the explorer's arithmetic on test vectors: `failures(problems)` lists what is wrong, until there are `most`. Arrays come as base64 of
float64 numbers, so that NaN and infinity arrive. */

function failures(problems, most = Infinity) {
  const decoded = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Float64Array(bytes.buffer);
  };
  const pair = (numbers, absent) => (numbers.length === 1 ? [absent, ...numbers] : numbers); // one axis: a single row
  const wrong = [];
  for (const one of problems) {
    if (wrong.length >= most) break;
    const transposed = one.operation === "conv_transpose";
    const [N, C] = one.x_shape;
    const K = one.output_shape[1];
    const [size, kernel, stride, dilation, output, extra] = [
      one.x_shape.slice(2), one.weight_shape.slice(2), one.stride, one.dilation, one.output_shape.slice(2), one.output_padding,
    ].map((numbers, i) => pair(numbers, i === 5 ? 0 : 1));
    const padding = pair(one.padding, [0, 0]);
    const axis = (a) => [size[a], kernel[a], stride[a], padding[a], dilation[a]];
    const other = [0, 1].map((a) =>
      transposed ? convolution.transposedSize(...axis(a), extra[a]) : convolution.positionCount(...axis(a)),
    );
    if (String(other) !== String(output)) wrong.push(`${one.id}: output size ${other}`);
    const groups = convolution.groupsFromSizes(
      convolution.uniformSizes(C, one.groups), convolution.uniformSizes(K, one.groups),
    );
    const problem = convolution.places({
      image: transposed ? output : size, positions: transposed ? size : output,
      kernel, stride, dilation, padding, mode: one.padding_mode,
      groups: groups.map(({ reads, writes }) =>
        transposed ? { image: writes, positions: reads } : { image: reads, positions: writes },
      ),
    });
    const given = Object.fromEntries(Object.entries(one.operands).map(([name, text]) => [name, decoded(text)]));
    const part = (array, n) => array.slice((n * array.length) / N, ((n + 1) * array.length) / N);
    const share = given.weight.length / one.groups;
    const weights = groups.map((_, g) => given.weight.slice(g * share, (g + 1) * share));
    const found = { y: [], grad_x: [], grad_weight: new Float64Array(given.weight.length) };
    const [forward, back] = transposed ? ["scatter", "correlate"] : ["correlate", "scatter"];
    for (let n = 0; n < N; n++) {
      const x = part(given.x, n);
      const y = convolution[forward](problem, x, weights);
      found.y.push(...y.map((value, i) => value + (given.bias ? given.bias[Math.floor((i * K) / y.length)] : 0)));
      if (!given.grad_output) continue;
      const g = part(given.grad_output, n);
      found.grad_x.push(...convolution[back](problem, g, weights));
      const [image, values] = transposed ? [g, x] : [x, g];
      convolution.outer(problem, image, values).forEach((gradient, i) =>
        gradient.forEach((value, j) => (found.grad_weight[i * share + j] += value)),
      );
    }
    for (const [name, text] of Object.entries(one.expected)) {
      const [expected, result] = [decoded(text), found[name]];
      const bounds = one.bounds[name] && decoded(one.bounds[name]);
      const right = (value, i) =>
        bounds ? Math.abs(value - expected[i]) <= bounds[i] : value === expected[i] || (value !== value && expected[i] !== expected[i]);
      if (result.length !== expected.length || ![...result].every(right)) wrong.push(`${one.id}: ${name}`);
    }
  }
  return wrong;
}
