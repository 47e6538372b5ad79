/* The explorer's page: state, pictures, words. One state gives everything that is drawn; `change` is the only way to
another state. A *moment* is the square that the pictures are marked for: the current position, or what is hovered. */

(() => {
  const { range, sum } = convolution;
  const byId = (id) => document.getElementById(id);
  const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
  const minus = (number) => String(number).replace("-", "−");
  const same = ([a, b]) => a === b;

  // --- State ------------------------------------------------------------------------------------------------------

  const START = {
    transposed: 0, pass: "forward", size: [7, 7], kernel: [3, 3], stride: [1, 1], padding: [0, 0], dilation: [1, 1],
    output_padding: [0, 0], mode: "zeros", channels: [1, 1], groups: "dense", at: -1, channel: 0, numbers: 1,
  };
  const LIMITS = {
    size: ["input size", 1, 12], kernel: ["kernel size", 1, 5], stride: ["stride", 1, 4], padding: ["padding", 0, 4],
    dilation: ["dilation", 1, 4], output_padding: ["output padding", 0, 3], channels: ["channels", 1, 16],
  };
  const MODES = ["zeros", "reflect", "replicate", "circular"];
  const PASSES = { forward: "Forward", input: "Gradient of input", weight: "Gradient of weights" };
  const KINDS = {
    dense: "one (dense)", uniform: "equal", logarithmic: "logarithmic", depthwise: "depthwise",
    lenet5: "LeNet-5's table", sizes: "your own",
  };
  const EXAMPLES = {
    "A window slides": "at=7",
    "Stride 2": "size=9,9&stride=2,2&at=5",
    "Padding": "padding=1,1&at=8",
    "Dilation": "size=9,9&dilation=2,2&at=7",
    "Colour image": "channels=3,2&size=6,6&at=5",
    "AlexNet's two groups": "channels=8,8&size=5,5&groups=uniform:2&at=4",
    "Logarithmic groups": "channels=16,16&size=5,5&groups=logarithmic:4&at=4",
    "LeNet-5's table": "channels=6,16&size=6,6&groups=lenet5&at=4",
    "Depthwise": "channels=4,4&size=6,6&groups=depthwise&at=5",
    "Gradient flows back": "size=6,6&pass=input&at=6",
    "Transposed": "transposed=1&size=3,3&stride=2,2&at=4",
  };

  /** Read a state from a link; anything that it does not say, or says wrongly, is as at the start. */
  function read(text) {
    const state = structuredClone(START);
    for (const [name, value] of new URLSearchParams(text)) {
      if (!(name in START)) continue;
      if (typeof START[name] === "string") state[name] = value;
      else {
        const numbers = value.split(",").map(Number);
        if (!numbers.every(Number.isInteger)) continue;
        if (!Array.isArray(START[name])) state[name] = numbers[0];
        else if (numbers.length === 2) state[name] = numbers;
      }
    }
    return state;
  }

  const written = (state) =>
    Object.keys(START)
      .filter((name) => String(state[name]) !== String(START[name]))
      .map((name) => `${name}=${state[name]}`)
      .join("&");

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /** Numbers of groups that a kind allows. */
  function allowed(kind, [C, K]) {
    const counts = range(Math.min(C, K), 1);
    return counts.filter((n) => (kind === "uniform" ? C % n === 0 && K % n === 0 : 2 ** (n - 1) <= Math.min(C, K)));
  }

  /** The state with every value in its limits. */
  function settled(state) {
    const next = structuredClone(state);
    next.transposed = next.transposed ? 1 : 0;
    next.numbers = next.numbers ? 1 : 0;
    if (!(next.pass in PASSES)) next.pass = "forward";
    if (!MODES.includes(next.mode) || next.transposed) next.mode = "zeros";
    for (const [name, [, low, high]] of Object.entries(LIMITS))
      next[name] = next[name].map((value) => clamp(value, low, name === "size" && next.transposed ? 6 : high));
    next.output_padding = next.output_padding.map((value, a) =>
      next.transposed ? Math.min(value, Math.max(next.stride[a], next.dilation[a]) - 1) : 0,
    );
    let [kind, detail = ""] = next.groups.split(":");
    if (!(kind in KINDS)) kind = "dense";
    const [C, K] = next.channels;
    if (kind === "lenet5") next.channels = [6, 16];
    if (kind === "depthwise") next.channels = [C, C * clamp(Math.floor(K / C), 1, Math.floor(16 / C))];
    if (kind === "uniform" || kind === "logarithmic") {
      const counts = allowed(kind, next.channels);
      detail = counts.filter((n) => n <= Number(detail)).pop() ?? counts.at(1) ?? 1;
    }
    if (kind === "sizes") {
      const sides = detail.split(",").map((side) => side.split(".").map(Number));
      const fits = (sizes, channels) => sizes.every((size) => size >= 1 && Number.isInteger(size)) && sum(sizes) === channels;
      const right = sides.length === 2 && sides[0].length === sides[1].length && fits(sides[0], C) && fits(sides[1], K);
      if (!right) {
        if (Math.min(C, K) > 1) detail = [C, K].map((c) => `${Math.ceil(c / 2)}.${Math.floor(c / 2)}`).join(",");
        else kind = "dense";
      }
    }
    next.groups = ["uniform", "logarithmic", "sizes"].includes(kind) ? `${kind}:${detail}` : kind;
    return next;
  }

  function groupsOf(state) {
    const [kind, detail] = state.groups.split(":");
    const sides = (sizes) => convolution.groupsFromSizes(...state.channels.map(sizes));
    if (kind === "lenet5") return convolution.lenet5Groups();
    if (kind === "logarithmic") return sides((c) => convolution.logarithmicSizes(c, Number(detail)));
    if (kind === "sizes") return convolution.groupsFromSizes(...detail.split(",").map((s) => s.split(".").map(Number)));
    return sides((c) => convolution.uniformSizes(c, { dense: 1, depthwise: state.channels[0] }[kind] ?? Number(detail)));
  }

  // --- What a state means: the problem and its numbers ------------------------------------------------------------

  const remainder = (a, b) => ((a % b) + b) % b;
  const fill = (channels, [rows, columns], value) =>
    Float64Array.from(
      range(channels).flatMap((c) => range(rows).flatMap((i) => range(columns).map((j) => value(c, i, j)))),
    );
  const middle = ([rows, columns]) => [Math.floor(rows / 2), Math.floor(columns / 2)];
  const radius = ([rows, columns]) => Math.max(2, Math.floor((rows + columns) / 4));

  // The same formulas are in `pythonCall`.
  const inputNumbers = (channels, size) => {
    const [a, b] = middle(size);
    const inside = (i, j) => Math.abs(i - a) + Math.abs(j - b) < radius(size);
    return fill(channels, size, (c, i, j) => (8 - (c % 4)) * inside(i, j) + ((i + 2 * j + c) % 2));
  };
  const gradientNumbers = (channels, size) => fill(channels, size, (k, i, j) => ((i + 2 * j + 3 * k) % 5) - 2);
  const weightNumber = (k, c, s, t) => ((s + 2 * t + 3 * k + c) % 5) - 2;

  function model(state) {
    const { size, kernel, stride, dilation, mode, transposed } = state;
    const padding = state.padding.map((p) => [p, p]);
    const axis = (a) => [size[a], kernel[a], stride[a], padding[a], dilation[a]];
    const other = [0, 1].map((a) =>
      transposed
        ? convolution.transposedSize(...axis(a), state.output_padding[a])
        : convolution.positionCount(...axis(a)),
    );
    const short = other.findIndex((n) => n < 1);
    if (short >= 0) {
      const where = ["rows", "columns"][short];
      const spans = convolution.span(kernel[short], dilation[short]);
      const has = size[short] + 2 * padding[short][0];
      throw new RangeError(
        transposed
          ? `The padding crops all ${where} of the output. Choose less padding, or a larger input.`
          : `The kernel spans ${spans} ${where}, but the padded image has only ${has}. ` +
            "Choose a larger input or more padding, or a smaller kernel or dilation.",
      );
    }
    const groups = groupsOf(state);
    const problem = convolution.places({
      image: transposed ? other : size,
      positions: transposed ? size : other,
      kernel, stride, dilation, padding, mode,
      groups: groups.map(({ reads, writes }) =>
        transposed ? { image: writes, positions: reads } : { image: reads, positions: writes },
      ),
    });
    const [C, K] = state.channels;
    const x = inputNumbers(C, size);
    const g = gradientNumbers(K, other);
    const kind = { weight: "outer", forward: transposed ? "scatter" : "correlate" }[state.pass] ??
      (transposed ? "correlate" : "scatter");
    const given = problem.groups.map((group) =>
      Float64Array.from(
        group.positions.flatMap((p) =>
          group.image.flatMap((q) =>
            range(kernel[0]).flatMap((s) =>
              range(kernel[1]).map((t) => (transposed ? weightNumber(q, p, s, t) : weightNumber(p, q, s, t))),
            ),
          ),
        ),
      ),
    );
    const at = state.at < 0 ? problem.length - 1 : Math.min(state.at, problem.length - 1);
    const result = {
      state, problem, groups, kind, at, C, K,
      image: transposed ? g : x,
      values: transposed ? x : g,
      weights: given,
      imageChannels: transposed ? K : C,
      valueChannels: transposed ? C : K,
    };
    const until = at + 1;
    if (kind === "correlate") result.values = convolution.correlate(problem, result.image, given);
    if (kind === "scatter") result.image = convolution.scatter(problem, result.values, given, until);
    if (kind === "outer") result.weights = convolution.outer(problem, result.image, result.values, until);
    result.channel = clamp(state.channel, 0, result.valueChannels - 1);
    result.matrices = problem.groups.map((group, g) =>
      kind === "scatter"
        ? convolution.spread(problem, group, given[g], result.values)
        : convolution.columns(problem, result.image, group.image),
    );
    const names = {
      forward: { image: "Input x", values: "Output y", weights: "Kernel w", letters: ["x", "y", "w"] },
      input: { image: "Gradient of the input, ∂x", values: "Gradient of the output, g", weights: "Kernel w", letters: ["∂x", "g", "w"] },
      weight: { image: "Input x", values: "Gradient of the output, g", weights: "Gradient ∂w", letters: ["x", "g", "∂w"] },
    }[state.pass];
    const [first, second, w] = names.letters;
    result.names = transposed ? { ...names, image: names.values, values: names.image } : names;
    result.letters = transposed ? { image: second, values: first, weights: w } : { image: first, values: second, weights: w };
    return result;
  }

  const padded = ({ image, padding }) => image.map((size, a) => size + sum(padding[a]));
  const placeOf = ({ positions }, l) => [Math.floor(l / positions[1]), l % positions[1]];
  const tapOf = ({ kernel }, t) => [Math.floor(t / kernel[1]), t % kernel[1]];

  /** Row and column in the padded image that tap t reads at position l. */
  function reached({ positions, kernel, stride, dilation }, t, l) {
    const [place, tap] = [placeOf({ positions }, l), tapOf({ kernel }, t)];
    return [0, 1].map((a) => place[a] * stride[a] + tap[a] * dilation[a]);
  }

  /** The element of the image at a place of the padded image, or -1 in zeros. */
  function elementAt({ image, padding, mode }, row, column) {
    const [i, j] = [row, column].map((place, a) => convolution.source(place - padding[a][0], image[a], mode));
    return i < 0 || j < 0 ? -1 : i * image[1] + j;
  }

  // --- Python -----------------------------------------------------------------------------------------------------

  function pythonCall(state) {
    const { transposed, pass, size, kernel, channels: [C, K] } = state;
    const [kind, detail] = state.groups.split(":");
    const pair = (value) => (same(value) ? value[0] : `(${value.join(", ")})`);
    const plain = { stride: 1, padding: 0, dilation: 1, output_padding: 0 };
    const options = Object.keys(plain)
      .filter((name) => pair(state[name]) !== plain[name])
      .map((name) => `${name}=${pair(state[name])}`);
    if (state.mode !== "zeros") options.push(`padding_mode="${state.mode}"`);
    if (kind !== "dense") options.push("groups=groups");
    const [a, b] = middle(size);
    const lines = [
      "import numpy as np", "import refconv", "",
      `c, i, j = np.indices((${C}, ${size.join(", ")}))`,
      `inside = abs(i - ${a}) + abs(j - ${b}) < ${radius(size)}`,
      "x = ((8 - c % 4) * inside + (i + 2 * j + c) % 2)[None]",
      transposed
        ? `c, k, s, t = np.indices((${C}, ${K}, ${kernel.join(", ")}))`
        : `k, c, s, t = np.indices((${K}, ${C}, ${kernel.join(", ")}))`,
      `${kind === "dense" ? "weight" : "dense"} = (s + 2 * t + 3 * k + c) % 5 - 2`,
    ];
    if (kind !== "dense") {
      const made = {
        uniform: `uniform_groups(${C}, ${K}, ${detail})`,
        logarithmic: `logarithmic_groups(${C}, ${K}, ${detail})`,
        depthwise: `depthwise_groups(${C}, ${K / C})`,
        lenet5: "lenet5_c3_groups()",
        sizes: `ChannelGroups.from_sizes(\n    ${(detail ?? "").split(",").map((s) => `[${s.replaceAll(".", ", ")}]`).join(",\n    ")},\n)`,
      }[kind];
      lines.push(
        "", `groups = refconv.${made}`,
        "weight = [",
        `    dense[np.ix_(${transposed ? "reads, writes" : "writes, reads"})]`,
        "    for reads, writes in zip(groups.in_channels, groups.out_channels)",
        "]",
      );
    }
    const call = (name, operands) => {
      const whole = `${name}(${[...operands, ...options].join(", ")})`;
      if (whole.length < 78) return whole;
      const rows = [operands, options.filter((o) => !/^(padding_mode|groups)/.test(o)), options.filter((o) => /^(padding_mode|groups)/.test(o))];
      return `${name}(\n${rows.filter((row) => row.length).map((row) => `    ${row.join(", ")},\n`).join("")})`;
    };
    const name = transposed ? "conv_transpose" : "conv";
    lines.push("", `y = ${call(`refconv.${name}2d`, ["x", "weight"])}`);
    if (pass !== "forward") {
      lines.push(
        "", "k, i, j = np.indices(y.shape[1:])",
        "g = ((i + 2 * j + 3 * k) % 5 - 2)[None]",
        `grads = ${call(`refconv.${name}_backward`, ["g", "x", "weight"])}`,
        `print(grads.${pass === "input" ? "x" : "weight"})`,
      );
    } else lines.push("print(y)");
    return lines.join("\n");
  }

  // --- Grids: pictures of numbers in squares ----------------------------------------------------------------------

  const ink = {};
  function readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["paper", "panel", "ink", "muted", "line", "cell", "negative", "accent", "soft"])
      ink[name] = style.getPropertyValue(`--${name}`).trim();
  }

  const GAP = 10;
  const LABEL = 16;

  /** One canvas with panels of rows × columns squares. */
  class Grid {
    constructor(id, words) {
      this.canvas = byId(id);
      this.id = id;
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "application");
      this.canvas.setAttribute("aria-roledescription", words);
      this.canvas.setAttribute("aria-describedby", "caption");
      this.cursor = { panel: 0, row: 0, column: 0 };
    }

    /** Choose sizes: squares where `height` is a limit for all panels; else as given. */
    place(shape, width, height, largest = 30) {
      Object.assign(this, shape);
      this.label = this.panels > 1 ? LABEL : 0;
      const fits = (cell) => {
        this.perLine = clamp(Math.floor((width + GAP) / (this.columns * cell + GAP)), 1, this.panels);
        this.lines = Math.ceil(this.panels / this.perLine);
        return this.perLine * (this.columns * cell + GAP) - GAP <= width &&
          this.lines * (this.rows * cell + this.label + GAP) - GAP <= height;
      };
      let cell = largest;
      while (cell > 2 && !fits(cell)) cell -= 0.5;
      fits(cell);
      this.size(cell, cell);
    }

    /** One panel with cells of this width and height. */
    stretch(shape, width, height) {
      Object.assign(this, shape, { panels: 1, label: 0, perLine: 1, lines: 1 });
      this.size(width, height);
    }

    size(width, height) {
      Object.assign(this, { cellWidth: width, cellHeight: height });
      this.stepX = this.columns * width + GAP;
      this.stepY = this.rows * height + this.label + GAP;
      this.width = this.perLine * this.stepX - GAP + 4;
      this.height = this.lines * this.stepY - GAP + 4;
    }

    corner(panel, row, column) {
      return [
        2 + (panel % this.perLine) * this.stepX + column * this.cellWidth,
        2 + Math.floor(panel / this.perLine) * this.stepY + this.label + row * this.cellHeight,
      ];
    }

    hit(event) {
      const box = this.canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left - 2, event.clientY - box.top - 2];
      const [across, down] = [Math.floor(x / this.stepX), Math.floor(y / this.stepY)];
      const panel = down * this.perLine + across;
      const column = Math.floor((x - across * this.stepX) / this.cellWidth);
      const row = Math.floor((y - down * this.stepY - this.label) / this.cellHeight);
      const inside = across >= 0 && across < this.perLine && panel >= 0 && panel < this.panels &&
        row >= 0 && row < this.rows && column >= 0 && column < this.columns;
      return inside ? { panel, row, column } : null;
    }

    /** Draw cells, `paint(panel, row, column)` of each: {value, text, share, outside, blank, progress}, and the marks. */
    draw(paint, marks, numbers, names = [], faded = () => false) {
      const ratio = window.devicePixelRatio || 1;
      const { canvas, cellWidth: w, cellHeight: h } = this;
      canvas.width = Math.ceil(this.width * ratio);
      canvas.height = Math.ceil(this.height * ratio);
      canvas.style.width = `${this.width}px`;
      canvas.style.height = `${this.height}px`;
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      const gap = Math.min(w, h) >= 6 ? 1 : 0;
      const tints = new Set(
        marks.filter((m) => m.tint).flatMap((m) =>
          range(m.rows).flatMap((i) => range(m.columns).map((j) => `${m.panel} ${m.row + i} ${m.column + j}`)),
        ),
      );
      pen.textBaseline = "middle";
      const font = numbers ? this.font(pen, paint) : 0;
      for (let panel = 0; panel < this.panels; panel++) {
        if (this.label) {
          const [x, y] = this.corner(panel, 0, 0);
          pen.font = "12px system-ui, sans-serif";
          pen.fillStyle = ink.muted;
          pen.textAlign = "left";
          pen.fillText(names[panel] ?? panel, x, y - 8);
        }
        pen.textAlign = "center";
        const strength = faded(panel) ? 0.35 : 1;
        pen.globalAlpha = strength;
        for (let row = 0; row < this.rows; row++)
          for (let column = 0; column < this.columns; column++) {
            const [x, y] = this.corner(panel, row, column);
            const { value = 0, text = minus(value), share = 0, outside, blank, progress } = paint(panel, row, column);
            pen.fillStyle = ink.panel;
            pen.fillRect(x, y, w - gap, h - gap);
            const tinted = tints.has(`${panel} ${row} ${column}`);
            if (tinted) {
              pen.fillStyle = ink.soft;
              pen.fillRect(x, y, w - gap, h - gap);
            }
            if (!blank && share) {
              pen.globalAlpha = (0.08 + 0.72 * share) * strength;
              pen.fillStyle = value < 0 ? ink.negative : ink.cell;
              pen.fillRect(x, y, w - gap, h - gap);
              pen.globalAlpha = strength;
            }
            if (progress < 1 && h >= 16) {
              pen.fillStyle = share > 0.6 ? ink.panel : ink.muted;
              pen.fillRect(x + 2, y + h - gap - 4, (w - gap - 4) * progress, 2);
            }
            if (outside) this.hatch(pen, x, y, w - gap, h - gap);
            if (gap) {
              pen.strokeStyle = ink.line;
              pen.lineWidth = 1;
              pen.strokeRect(x + 0.5, y + 0.5, w - 2, h - 2);
            }
            if (blank) continue;
            if (font) {
              pen.font = `${font}px system-ui, sans-serif`;
              pen.fillStyle = share > 0.6 ? ink.panel : ink.ink;
              pen.fillText(text, x + w / 2 - gap / 2, y + h / 2);
            } else if (value < 0 && Math.min(w, h) >= 6) {
              pen.fillStyle = share > 0.6 ? ink.panel : ink.ink;
              pen.fillRect(x + w * 0.25, y + h / 2 - 1, w * 0.5 - gap, 1.5);
            }
          }
      }
      pen.globalAlpha = 1;
      for (const dashed of [true, false])
        for (const mark of marks) if (!mark.quiet && dashed === Boolean(mark.dashed)) this.frame(pen, mark);
    }

    /** The size of letters in which every number fits its square, or 0 if they would be too small to read. */
    font(pen, paint) {
      if (this.cellWidth < 11 || this.cellHeight < 11) return 0;
      pen.font = "10px system-ui, sans-serif";
      const widest = Math.max(
        ...range(this.panels).flatMap((panel) =>
          range(this.rows).flatMap((row) =>
            range(this.columns).map((column) => {
              const { value = 0, text = minus(value), blank } = paint(panel, row, column);
              return blank ? 0 : pen.measureText(text).width;
            }),
          ),
        ),
      );
      const size = Math.min(14, this.cellHeight * 0.6, (10 * (this.cellWidth - 4)) / Math.max(widest, 6));
      return size < 8.5 ? 0 : size;
    }

    hatch(pen, x, y, w, h) {
      pen.save();
      pen.beginPath();
      pen.rect(x, y, w, h);
      pen.clip();
      pen.strokeStyle = ink.muted;
      pen.globalAlpha = 0.45;
      pen.lineWidth = 1;
      pen.beginPath();
      for (let offset = -h; offset < w; offset += 6) {
        pen.moveTo(x + offset, y + h);
        pen.lineTo(x + offset + h, y);
      }
      pen.stroke();
      pen.restore();
    }

    frame(pen, { panel, row, column, rows, columns, dashed, strong }) {
      const [x, y] = this.corner(panel, row, column);
      const gap = Math.min(this.cellWidth, this.cellHeight) >= 6 ? 1 : 0;
      const [w, h] = [columns * this.cellWidth - gap, rows * this.cellHeight - gap];
      const thin = Math.min(w, h) < 6;
      pen.setLineDash(dashed ? [3, 2] : []);
      if (!dashed && !thin) {
        pen.strokeStyle = ink.panel;
        pen.lineWidth = strong ? 6 : 4;
        pen.strokeRect(x, y, w, h);
      }
      pen.strokeStyle = ink.accent;
      pen.lineWidth = thin ? 1 : strong ? 3.5 : dashed ? 1.5 : 2;
      pen.strokeRect(x, y, w, h);
      pen.setLineDash([]);
    }
  }

  const grids = Object.fromEntries(
    Object.entries({
      image: "grid of the image", kernel: "grid of the kernel", positions: "grid of the positions",
      columns: "matrix of columns", weights: "matrix of weights", product: "matrix of outputs", groups: "connection matrix",
    }).map(([id, words]) => [id, new Grid(id, words)]),
  );

  // --- Moments: what is looked at, and what belongs to it in every picture ------------------------------------------

  /** The group that a moment is in; for an image channel, the current one if it contains that channel. */
  function groupOf(m, moment) {
    const { groups } = m.problem;
    const current = groups.findIndex((group) => group.positions.includes(moment.k ?? m.channel));
    if (moment.c === undefined || moment.k !== undefined || groups[current].image.includes(moment.c)) return current;
    return Math.max(0, groups.findIndex((group) => group.image.includes(moment.c)));
  }

  /** The moment of a square. */
  function momentAt(m, id, { panel, row, column }) {
    const { problem } = m;
    const { length, taps, positions, kernel } = problem;
    const g = groupOf(m, shown());
    const group = problem.groups[g];
    const from = (r) => ({ c: group.image[Math.floor(r / taps)], t: r % taps });
    if (id === "image") return { what: "element", c: panel, row, column };
    if (id === "positions") return { what: "position", k: panel, l: row * positions[1] + column };
    if (id === "kernel") return { what: "tap", k: kernelChannel(m, g), c: group.image[panel], t: row * kernel[1] + column };
    if (id === "columns") return { what: "entry", ...from(row), l: column, k: kernelChannel(m, g) };
    if (id === "weights") return { what: "tap", k: group.positions[row], ...from(column) };
    if (id === "product") return { what: "position", k: group.positions[row], l: Math.min(column, length - 1) };
    return m.state.transposed ? { what: "channel", k: column, c: row } : { what: "channel", k: row, c: column };
  }

  /** The channel whose kernel is drawn: the current one, or the first of another group. */
  function kernelChannel(m, g, moment = shown()) {
    const { positions } = m.problem.groups[g];
    const k = moment.k ?? m.channel;
    return positions.includes(k) ? k : positions[0];
  }

  /** Pairs of tap and position that read the square of the image which a moment names. */
  function readers(m, { row, column }) {
    const { problem } = m;
    const element = elementAt(problem, row, column);
    const found = [];
    for (let t = 0; t < problem.taps; t++)
      for (let l = 0; l < problem.length; l++) {
        const [i, j] = element < 0 ? reached(problem, t, l) : [];
        if (element < 0 ? i === row && j === column : problem.reads[t][l] === element) found.push({ t, l });
      }
    return found;
  }

  /** How many windows up to a position read each element of a channel. */
  function windowsOf({ problem }, last) {
    const counts = new Int32Array(problem.elements);
    for (const row of problem.reads) row.slice(0, last + 1).forEach((element) => element >= 0 && counts[element]++);
    return counts;
  }

  function marksOf(m, moment) {
    const marks = Object.fromEntries(Object.keys(grids).map((id) => [id, []]));
    const { problem, kind } = m;
    const { taps, length, kernel, positions, dilation } = problem;
    const g = groupOf(m, moment);
    const group = problem.groups[g];
    const [height, width] = padded(problem);
    const put = (id, panel, row, column, more = {}) =>
      marks[id].push({ panel, row, column, rows: 1, columns: 1, ...more });
    const rowOf = (c, t) => group.image.indexOf(c) * taps + t;
    const R = group.image.length * taps;
    const indexOf = (k) => group.positions.indexOf(k);
    const atPosition = (k, l, more) => put("positions", k, ...placeOf(problem, l), more);
    const connection = (k, c, more) => put("groups", 0, ...(m.state.transposed ? [c, k] : [k, c]), more);

    const window = (l) => {
      const [top, left] = reached(problem, 0, l);
      for (const c of group.image) {
        for (let t = 0; t < taps; t++)
          put("image", c, ...reached(problem, t, l), { tint: true, quiet: taps > 1 && dilation.every((d) => d === 1) });
        if (dilation.every((d) => d === 1)) put("image", c, top, left, { rows: kernel[0], columns: kernel[1] });
      }
    };

    if (moment.what === "position" || moment.what === "entry") {
      const k = kernelChannel(m, g, moment);
      window(moment.l);
      const writers = kind === "scatter" ? group.positions : [k];
      writers.forEach((channel) => atPosition(channel, moment.l, { tint: true, strong: channel === k }));
      put("columns", 0, 0, moment.l, { rows: R, tint: true });
      if (kind === "scatter") put("product", 0, 0, moment.l, { rows: group.positions.length, tint: true });
      else put("product", 0, indexOf(k), moment.l, { strong: true, tint: true });
      if (kind === "correlate") put("weights", 0, indexOf(k), 0, { columns: R, tint: true });
      group.image.forEach((c) => connection(k, c));
      if (moment.what === "entry") {
        put("image", moment.c, ...reached(problem, moment.t, moment.l), { strong: true });
        put("columns", 0, rowOf(moment.c, moment.t), moment.l, { strong: true });
        put("kernel", group.image.indexOf(moment.c), ...tapOf(problem, moment.t), { strong: true });
        put("weights", 0, indexOf(k), rowOf(moment.c, moment.t), { strong: true });
      }
    } else if (moment.what === "element") {
      put("image", moment.c, moment.row, moment.column, { strong: true, tint: true });
      const own = elementAt(problem, moment.row, moment.column);
      if (own >= 0)
        range(height).forEach((i) => range(width).forEach((j) => {
          const copy = elementAt(problem, i, j) === own && (i !== moment.row || j !== moment.column);
          if (copy) put("image", moment.c, i, j, { dashed: true });
        }));
      const found = readers(m, moment);
      const known = group.image.includes(moment.c);
      const writers = problem.groups.filter((one) => one.image.includes(moment.c)).flatMap((one) => one.positions);
      const once = [...new Set(found.map(({ l }) => l))];
      for (const k of writers) once.forEach((l) => atPosition(k, l, { tint: true, dashed: true }));
      if (known) {
        for (const { t, l } of found) put("columns", 0, rowOf(moment.c, t), l, { strong: found.length < 30, tint: true });
        for (const l of once) put("product", 0, 0, l, { rows: group.positions.length, dashed: true });
        for (const t of new Set(found.map((one) => one.t)))
          put("kernel", group.image.indexOf(moment.c), ...tapOf(problem, t), { dashed: true });
      }
      writers.forEach((k) => connection(k, moment.c));
    } else if (moment.what === "tap") {
      const row = rowOf(moment.c, moment.t);
      put("kernel", group.image.indexOf(moment.c), ...tapOf(problem, moment.t), { strong: true });
      put("weights", 0, indexOf(moment.k), row, { strong: true, tint: true });
      put("columns", 0, row, 0, { columns: length, tint: true });
      put("product", 0, indexOf(moment.k), 0, { columns: length, dashed: true });
      range(length).forEach((l) => put("image", moment.c, ...reached(problem, moment.t, l), { dashed: true, tint: true }));
      put("positions", moment.k, 0, 0, { rows: positions[0], columns: positions[1], dashed: true });
      connection(moment.k, moment.c, { strong: true });
    } else {
      group.image.forEach((c) => put("image", c, 0, 0, { rows: height, columns: width }));
      group.positions.forEach((k) =>
        put("positions", k, 0, 0, { rows: positions[0], columns: positions[1], dashed: k !== moment.k, strong: k === moment.k }),
      );
      group.positions.forEach((k) => group.image.forEach((c) => connection(k, c)));
      connection(moment.k, moment.c, { strong: true });
    }
    return marks;
  }

  // --- Words --------------------------------------------------------------------------------------------------------

  /** 1·2 + 3·4 = 14, shortened in the middle. */
  function sumOf(terms, total) {
    const most = 10;
    const shown = terms.slice(0, most).map((factors) => factors.map(minus).join("·"));
    if (terms.length > most) shown.push(`… (${plural(terms.length, "term")})`);
    return `${shown.join(" + ") || "0"} = <b>${minus(total)}</b>`;
  }

  /** Channel numbers, neighbours as a range. */
  function listed(channels) {
    const runs = [];
    for (const c of channels) {
      const last = runs.at(-1);
      if (last && last[1] === c - 1) last[1] = c;
      else runs.push([c, c]);
    }
    const words = runs.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`));
    return `${channels.length === 1 ? "channel" : "channels"} ${words.join(", ")}`;
  }

  function captionOf(m, moment) {
    const { problem, kind, letters } = m;
    const { taps, length } = problem;
    const g = groupOf(m, moment);
    const group = problem.groups[g];
    const R = group.image.length * taps;
    const at = (letter, channel, pair) => `${letter}[${channel}, ${pair.join(", ")}]`;
    const value = (k, l) => at(letters.values, k, placeOf(problem, l));
    const weight = (k, c, t) => {
      const order = m.state.transposed ? [k, c] : [k, c];
      return `${letters.weights}[${[...order, ...tapOf(problem, t)].join(", ")}]`;
    };
    const weightAt = (k, r) => m.weights[g][group.positions.indexOf(k) * R + r];
    const entry = (r, l) => m.matrices[g][r * length + l];
    const elementName = (c, row, column) =>
      at(letters.image, c, [row - problem.padding[0][0], column - problem.padding[1][0]].map(minus));

    if (moment.what === "position") {
      const { k, l } = moment;
      if (kind === "correlate")
        return `${value(k, l)} = the window times the kernel, summed = ` +
          sumOf(range(R).map((r) => [weightAt(k, r), entry(r, l)]), m.values[k * length + l]);
      const number = minus(m.values[k * length + l]);
      if (kind === "scatter")
        return `${value(k, l)} = <b>${number}</b> times the kernel is added to the window` +
          (group.positions.length > 1 ? `, and so are the group's other ${plural(group.positions.length - 1, "channel")}` : "") +
          ". Where windows overlap, the sums add up.";
      return `${value(k, l)} = <b>${number}</b> times the window is added to the kernel's gradient.`;
    }
    if (moment.what === "entry") {
      const { c, t, l, k } = moment;
      const r = group.image.indexOf(c) * taps + t;
      const [row, column] = reached(problem, t, l);
      const where = `tap [${tapOf(problem, t).join(", ")}] of the window at [${placeOf(problem, l).join(", ")}]`;
      if (kind === "scatter") {
        const terms = group.positions.map((p) => [m.weights[g][group.positions.indexOf(p) * R + r], m.values[p * length + l]]);
        return `${sumOf(terms, entry(r, l))} is added to ${elementName(c, row, column)}: ${where}.`;
      }
      const what = problem.reads[t][l] < 0 ? "Padding" : `A copy of ${elementName(c, row, column)}`;
      const then = kind === "correlate" ? ` Times ${weight(k, c, t)} = ${minus(weightAt(k, r))} it is part of ${value(k, l)}.` : "";
      return `<b>${minus(entry(r, l))}</b>: ${what}, at ${where}.${then}`;
    }
    if (moment.what === "element") {
      const { c, row, column } = moment;
      const found = readers(m, moment);
      const inside = elementAt(problem, row, column) >= 0;
      const name = inside ? elementName(c, row, column) : "This place in the padding";
      const windows = plural(new Set(found.map(({ l }) => l)).size, "window");
      if (kind === "scatter") {
        if (!inside) return `${name} receives sums from ${windows}; they are dropped.`;
        const terms = problem.groups.flatMap((one, i) =>
          one.image.includes(c)
            ? found.filter(({ l }) => l <= m.at).map(({ t, l }) => [m.matrices[i][(one.image.indexOf(c) * taps + t) * length + l]])
            : [],
        );
        return `${name} is in ${windows}. So far: ${sumOf(terms, m.image[c * problem.elements + elementAt(problem, row, column)])}`;
      }
      const reading = problem.groups.filter((one) => one.image.includes(c)).length;
      return `${name} is read by <b>${windows}</b>` + (found.length ? `: one copy of it per window is in the columns` : "") +
        (reading > 1 ? `, in each of ${reading} groups.` : ".");
    }
    if (moment.what === "tap") {
      const { k, c, t } = moment;
      const r = group.image.indexOf(c) * taps + t;
      if (kind === "outer") {
        const terms = range(m.at + 1).map((l) => [m.values[k * length + l], entry(r, l)]);
        return `${weight(k, c, t)}, so far = ${sumOf(terms, weightAt(k, r))}`;
      }
      const number = `${weight(k, c, t)} = <b>${minus(weightAt(k, r))}</b>`;
      return kind === "correlate"
        ? `${number} multiplies row ${r} of the columns: the dashed squares, one per window.`
        : `${number} times each ${letters.values}[${k}] is added to the dashed squares, one per window.`;
    }
    const [reads, writes] = m.state.transposed ? [group.positions, group.image] : [group.image, group.positions];
    const [input, output] = m.state.transposed ? [moment.k, moment.c] : [moment.c, moment.k];
    const home = m.groups.findIndex((one) => one.writes.includes(output));
    const joined = m.groups[home].reads.includes(input);
    const of = m.groups.length > 1 ? `Group ${home + 1} of ${m.groups.length}: output` : "Output";
    return `${of} ${listed(m.groups[home].writes)} ${m.groups[home].writes.length === 1 ? "reads" : "read"} input ` +
      `${listed(m.groups[home].reads)}.` + (joined ? "" : ` Output ${output} does <b>not</b> read input ${input}.`);
  }

  // --- Drawing ------------------------------------------------------------------------------------------------------

  let state;
  let current; // the model of the state, or null if its kernel does not fit
  let hovered = null;
  let fixed = null;
  let waiting = false;

  function shown() {
    return hovered ?? fixed ?? { what: "position", k: current.channel, l: current.at };
  }

  const TITLES = {
    correlate: ["Each output is a window times the kernel, summed", "im2col: every window becomes a column", "One matrix product gives all outputs"],
    scatter: ["Each number is spread over a window; overlaps add up", "col2im: every column is added back to its window", "One matrix product gives all columns"],
    outer: ["Each position adds its window to the kernel's gradient", "im2col: every window becomes a column", "One matrix product sums over positions"],
  };

  function drawAll() {
    waiting = false;
    if (!current) return;
    const m = current;
    const { problem, kind, state: { numbers } } = m;
    const { taps, length, elements, kernel, positions } = problem;
    const moment = shown();
    const g = groupOf(m, moment);
    const group = problem.groups[g];
    const k = kernelChannel(m, g, moment);
    const marks = marksOf(m, moment);
    const R = group.image.length * taps;
    const [height, width] = padded(problem);
    const narrow = window.innerWidth <= 640;

    const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    const share = (value, most) => Math.abs(value) / most;
    const done = (l) => kind !== "correlate" || l <= m.at;

    // 1: image, kernel, positions
    const flow = byId("view-image").clientWidth - 34;
    const middle = Math.max(170, flow * 0.17); // of the kernel
    const room = (part) => (narrow ? flow : (flow - middle - 110) * part);
    const tall = narrow ? 280 : 350;
    grids.image.place({ panels: m.imageChannels, rows: height, columns: width }, room(0.54), tall, 38);
    grids.kernel.place({ panels: group.image.length, rows: kernel[0], columns: kernel[1] }, narrow ? flow : middle, narrow ? 130 : tall, Math.max(16, grids.image.cellWidth));
    grids.positions.place({ panels: m.valueChannels, rows: positions[0], columns: positions[1] }, room(0.46), tall, 38);
    const most = { image: largest(m.image), values: largest(m.values), weights: Math.max(...m.weights.map(largest)), matrix: largest(m.matrices[g]) };
    const added = kind === "scatter" && [m.at, length - 1].map((last) => windowsOf(m, last));
    grids.image.draw((c, row, column) => {
      const element = elementAt(problem, row, column);
      const [i, j] = [row - problem.padding[0][0], column - problem.padding[1][0]];
      const outside = i < 0 || j < 0 || i >= problem.image[0] || j >= problem.image[1];
      const value = element < 0 ? 0 : m.image[c * elements + element];
      return { value, outside, share: share(value, most.image), blank: added && !added[0][element], progress: added && added[0][element] / added[1][element] };
    }, marks.image, numbers, [], (c) => !group.image.includes(c));
    const weightOf = (row, column) => {
      const value = m.weights[g][row * R + column];
      return { value, share: share(value, most.weights) };
    };
    grids.kernel.draw(
      (panel, row, column) => weightOf(group.positions.indexOf(k), panel * taps + row * kernel[1] + column),
      marks.kernel, numbers, group.image,
    );
    const valueOf = (channel, l) => {
      const value = m.values[channel * length + l];
      return { value, share: share(value, most.values), blank: !done(l) };
    };
    grids.positions.draw(
      (p, row, column) => valueOf(p, row * positions[1] + column),
      marks.positions, numbers, [], (p) => !group.positions.includes(p),
    );

    // 2 and 3: columns above the product, weights left of it
    const space = byId("view-product").clientWidth - 34;
    const left = narrow ? space - 8 : Math.round(space * 0.34);
    byId("matrices").style.gridTemplateColumns = narrow ? "" : `${left}px minmax(0, 1fr)`;
    const across = clamp((narrow ? space - 8 : space - left - 24) / length, 0.5, 26);
    const tallRow = clamp((narrow ? 220 : 300) / R, 0.75, 22);
    const lowRow = clamp(190 / group.positions.length, 6, 22);
    grids.columns.stretch({ rows: R, columns: length }, across, tallRow);
    grids.weights.stretch({ rows: group.positions.length, columns: R }, Math.min(26, (left - 4) / R), lowRow);
    grids.product.stretch({ rows: group.positions.length, columns: length }, across, lowRow);
    grids.columns.draw((_, row, column) => {
      const value = m.matrices[g][row * length + column];
      const outside = problem.reads[row % taps][column] < 0 && kind !== "scatter";
      return { value, outside: outside && across > 5, share: share(value, most.matrix), blank: kind === "scatter" && column > m.at };
    }, marks.columns, numbers);
    grids.weights.draw((_, row, column) => weightOf(row, column), marks.weights, numbers);
    grids.product.draw((_, row, column) => valueOf(group.positions[row], column), marks.product, numbers);

    // 4: which output reads which input
    const side = byId("view-groups").clientWidth - 34;
    grids.groups.place({ panels: 1, rows: m.K, columns: m.C }, side, 300, 26);
    const table = m.groups.map(({ reads }) => new Set(reads));
    const home = range(m.K).map((output) => m.groups.findIndex(({ writes }) => writes.includes(output)));
    grids.groups.draw((_, output, input) => {
      const one = home[output];
      const joined = table[one].has(input);
      const first = output === m.groups[one].writes[0] && input === m.groups[one].reads.at(-1);
      return { value: 1, text: first ? `${one + 1}` : "", blank: !joined, share: joined ? (one === g ? 1 : 0.3) : 0 };
    }, marks.groups, m.groups.length > 1);
    placeHandles();

    const names = m.names;
    const shape = (channels, [rows, columns]) => `${plural(channels, "channel")} of ${rows} × ${columns}`;
    const ofGroup = m.groups.length > 1 ? `, group ${g + 1} of ${m.groups.length}` : "";
    const title = TITLES[kind];
    const words = {
      "title-image": title[0], "title-columns": title[1] + ofGroup, "title-product": title[2],
      "name-image": `${names.image}: ${shape(m.imageChannels, problem.image)}`,
      "name-kernel": m.valueChannels > 1 ? `${names.weights} of ${m.state.transposed ? "input" : "output"} ${k}` : names.weights,
      "name-positions": `${names.values}: ${shape(m.valueChannels, positions)}`,
      "name-columns": `Columns: ${R} × ${length}, one per window`,
      "name-weights": `${names.weights}: ${group.positions.length} × ${R}`,
      "name-product": `${names.values}: ${group.positions.length} × ${length}`,
      "explain-columns": {
        correlate: `A column is one window: its ${plural(R, "number")}, written one below the other. A row is one tap of one channel.`,
        scatter: `A column is the ${plural(R, "number")} that one position adds to its window. A row is one tap of one channel.`,
        outer: `A column is one window: its ${plural(R, "number")}, written one below the other. A row is one tap of one channel.`,
      }[kind],
      "formula": { correlate: `${m.letters.values} = w · columns`, scatter: `columns = wᵀ · ${m.letters.values}`, outer: `∂w = ${m.letters.values} · columnsᵀ` }[kind],
      "place": placeText(m),
    };
    for (const [id, text] of Object.entries(words)) byId(id).textContent = text;
    const arrows = { correlate: ["→", "→"], scatter: ["←", "←"], outer: ["→", "←"] }[kind];
    const turned = m.state.transposed;
    byId("flow").style.flexDirection = turned ? (narrow ? "column-reverse" : "row-reverse") : "";
    byId("flow").style.justifyContent = turned ? "flex-end" : "";
    ["arrow-a", "arrow-b"].forEach((id, i) => (byId(id).textContent = turned ? { "→": "←", "←": "→" }[arrows[i]] : arrows[i]));
    byId("caption").innerHTML = captionOf(m, moment);
    for (const [id, part] of Object.entries({ image: "name-image", kernel: "name-kernel", positions: "name-positions", columns: "name-columns", weights: "name-weights", product: "name-product" }))
      grids[id].canvas.setAttribute("aria-label", byId(part).textContent);
    grids.groups.canvas.setAttribute("aria-label", `Connections of ${m.C} input and ${m.K} output channels in ${plural(m.groups.length, "group")}`);
  }

  function draw() {
    if (!waiting) requestAnimationFrame(drawAll);
    waiting = true;
  }

  const placeText = (m) => `Position ${m.at + 1} of ${m.problem.length}`;

  /** Say the caption to a screen reader. */
  function speak() {
    if (current) byId("spoken").textContent = `${placeText(current)}. ${captionOf(current, shown()).replaceAll(/<\/?b>/g, "")}`;
  }

  // --- Controls -----------------------------------------------------------------------------------------------------

  function change(changes) {
    state = settled({ ...state, ...changes });
    hovered = null;
    fixed = null;
    let trouble = "";
    try {
      current = model(state);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      current = null;
      trouble = error.message;
    }
    byId("problem").textContent = trouble;
    byId("problem").hidden = !trouble;
    byId("stage").classList.toggle("dimmed", Boolean(trouble));
    if (trouble) byId("caption").textContent = "";
    for (const update of updates) update();
    if (!embedded()) history.replaceState(null, "", `#${written(state)}`);
    draw();
  }

  const updates = [];
  const embedded = () => document.body.classList.contains("embed");

  function choice(id, name, options) {
    for (const [value, text] of Object.entries(options)) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
      button.setAttribute("role", "radio");
      button.dataset.value = value;
      button.onclick = () => change({ [name]: name === "transposed" ? Number(value) : value, at: name === "pass" ? state.at : -1 });
      byId(id).append(button);
    }
    const buttons = [...byId(id).children];
    byId(id).onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = buttons[remainder(buttons.indexOf(event.target) + step, buttons.length)];
      next.focus();
      next.click();
    };
    updates.push(() =>
      buttons.forEach((button) => {
        const chosen = button.dataset.value === String(state[name]);
        button.setAttribute("aria-checked", chosen);
        button.tabIndex = chosen ? 0 : -1;
      }),
    );
  }

  /** A labelled slider; `values()` are what it can be set to. */
  function slider(parent, text, values, get, set, isShown = () => true) {
    const label = document.createElement("label");
    label.className = "slider";
    const input = Object.assign(document.createElement("input"), { type: "range", min: 0 });
    const output = document.createElement("output");
    const name = document.createElement("span");
    label.append(name, input, output);
    byId(parent).append(label);
    input.oninput = () => set(values()[Number(input.value)]);
    updates.push(() => {
      const options = values();
      label.style.display = isShown() ? "" : "none";
      name.textContent = typeof text === "function" ? text() : text;
      input.max = options.length - 1;
      input.value = options.indexOf(get());
      input.setAttribute("aria-valuetext", get());
      output.textContent = get();
    });
    return label;
  }

  function select(id, name, options, set) {
    for (const [value, text] of Object.entries(options)) byId(id).append(new Option(text, value));
    byId(id).onchange = (event) => set(event.target.value);
    updates.push(() => (byId(id).value = name()));
  }

  let linked = true;

  function build() {
    for (const [text, link] of Object.entries(EXAMPLES)) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
      button.onclick = () => open(link);
      byId("presets").append(button);
      updates.push(() => button.setAttribute("aria-pressed", written({ ...settled(read(link)), at: state.at, channel: 0 }) === written({ ...state, channel: 0 })));
    }
    choice("transposed", "transposed", { 0: "Convolution", 1: "Transposed" });
    choice("pass", "pass", PASSES);
    for (const name of ["size", "kernel", "stride", "padding", "dilation", "output_padding"])
      [0, 1].forEach((axis) => {
        const [text, low, high] = LIMITS[name];
        slider(
          "sizes",
          () => (linked ? text : `${text.replace(" size", "").replace("output padding", "out. pad.")}, ${["rows", "cols"][axis]}`),
          () => range((name === "size" && state.transposed ? 6 : high) - low + 1, low),
          () => state[name][axis],
          (value) => change({ [name]: linked ? [value, value] : state[name].map((old, a) => (a === axis ? value : old)) }),
          () => (axis === 0 || !linked) && (name !== "output_padding" || state.transposed === 1),
        );
      });
    byId("both").onchange = (event) => {
      linked = event.target.checked;
      const pairs = ["size", "kernel", "stride", "padding", "dilation", "output_padding"];
      change(linked ? Object.fromEntries(pairs.map((name) => [name, [state[name][0], state[name][0]]])) : {});
    };
    updates.push(() => (byId("both").checked = linked));
    select("mode", () => state.mode, Object.fromEntries(MODES.map((mode) => [mode, mode])), (mode) => change({ mode }));
    updates.push(() => (byId("mode").disabled = Boolean(state.transposed)));
    const kind = () => state.groups.split(":")[0];
    ["input", "output"].forEach((side, i) =>
      slider(
        "channels", `${side}s`, () => range(16, 1), () => state.channels[i],
        (value) => change({ channels: state.channels.map((old, a) => (a === i ? value : old)) }),
        () => kind() !== "lenet5",
      ),
    );
    select("kind", kind, KINDS, (value) => {
      const n = groupsOf(state).length;
      const small = Math.max(...state.channels) < 4 && value !== "dense" && value !== "lenet5";
      const own = value === "sizes" && n > 1 && kind() !== "lenet5"
        ? ["reads", "writes"].map((side) => groupsOf(state).map((one) => one[side].length).join(".")).join(",")
        : Math.max(2, n);
      change({ groups: `${value}:${own}`, ...(small ? { channels: [4, 4] } : {}) });
    });
    slider(
      "channels", "groups", () => allowed(kind(), state.channels), () => Number(state.groups.split(":")[1]),
      (n) => change({ groups: `${kind()}:${n}` }), () => ["uniform", "logarithmic"].includes(kind()),
    );
    updates.push(counts);
    updates.push(() => (byId("whole").href = `${location.href.replace(/[?#].*/, "")}#${written(state)}`));
    updates.push(() => (byId("code").textContent = current ? pythonCall(state) : ""));
    transport();
    Object.values(grids).forEach(listen);
    byId("copy-code").onclick = () => copy(byId("code").textContent, byId("code"));
    byId("copy-link").onclick = () => copy(location.href);
  }

  function counts() {
    if (!current) return;
    const { groups, problem, C, K } = current;
    const weights = sum(groups.map(({ reads, writes }) => reads.length * writes.length)) * problem.taps;
    const dense = C * K * problem.taps;
    const part = weights === dense ? "" : ` = ${Math.round((1000 * weights) / dense) / 10} % of ${dense.toLocaleString("en")}`;
    const rows = {
      Weights: `<b>${weights.toLocaleString("en")}</b>${part}`,
      "Parameters, with a bias per output": `<b>${(weights + K).toLocaleString("en")}</b>`,
      "Multiply-adds": `<b>${(weights * problem.length).toLocaleString("en")}</b>`,
    };
    byId("counts").innerHTML = Object.entries(rows).map(([name, value]) => `<dt>${name}</dt><dd>${value}</dd>`).join("");
  }

  async function copy(text, element) {
    let said = "Copied.";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      if (element) getSelection().selectAllChildren(element);
      said = element ? "Selected: press Ctrl+C." : text;
    }
    byId("copied").textContent = said;
  }

  let timer = null;

  function stop() {
    clearInterval(timer);
    timer = null;
    byId("play").textContent = "▶ Play";
  }

  function go(at) {
    change({ at: clamp(at, 0, current.problem.length - 1) });
  }

  function transport() {
    byId("back").onclick = () => { stop(); if (current) go(current.at - 1); draw(); speak(); };
    byId("next").onclick = () => { stop(); if (current) go(current.at + 1); draw(); speak(); };
    byId("play").onclick = () => {
      if (timer) return stop();
      if (!current) return undefined;
      byId("play").textContent = "❚❚ Pause";
      if (current.at === current.problem.length - 1) go(0);
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      timer = setInterval(() => {
        if (!current || current.at === current.problem.length - 1) return stop();
        return go(current.at + 1);
      }, calm ? 1500 : clamp(12000 / current.problem.length, 120, 600));
      return undefined;
    };
    byId("at").oninput = () => { stop(); go(Number(byId("at").value)); };
    byId("numbers").onchange = (event) => change({ numbers: Number(event.target.checked) });
    updates.push(() => {
      byId("numbers").checked = Boolean(state.numbers);
      if (!current) return;
      byId("at").max = current.problem.length - 1;
      byId("at").value = current.at;
      byId("at").setAttribute("aria-valuetext", `position ${current.at + 1} of ${current.problem.length}`);
    });
  }

  /** Make a square the current one: a position is gone to, anything else is fixed. */
  function choose(moment) {
    stop();
    if (moment.what === "position") {
      change({ at: moment.l, channel: moment.k });
    } else {
      fixed = JSON.stringify(fixed) === JSON.stringify(moment) ? null : moment;
      hovered = null;
      draw();
    }
  }

  function listen(grid) {
    const { canvas, id } = grid;
    const over = (event) => {
      const cell = current && !timer && grid.hit(event);
      const next = cell ? momentAt(current, id, cell) : null;
      if (JSON.stringify(next) === JSON.stringify(hovered)) return;
      hovered = next;
      draw();
    };
    canvas.onpointermove = over;
    canvas.onpointerleave = () => { hovered = null; draw(); };
    canvas.onclick = (event) => {
      const cell = current && grid.hit(event);
      if (!cell) return;
      grid.cursor = cell;
      choose(momentAt(current, id, cell));
    };
    canvas.onkeydown = (event) => {
      if (!current) return;
      if (event.key === "Escape") { fixed = null; draw(); return; }
      const { panels, rows, columns } = grid;
      const old = { ...grid.cursor };
      if (id === "positions" && !fixed) [old.row, old.column] = placeOf(current.problem, current.at);
      const next = { ArrowUp: { row: old.row - 1 }, ArrowDown: { row: old.row + 1 }, ArrowLeft: { column: old.column - 1 },
        ArrowRight: { column: old.column + 1 }, Home: { column: 0 }, End: { column: columns - 1 },
        PageUp: { panel: old.panel - 1 }, PageDown: { panel: old.panel + 1 }, Enter: {}, " ": {} }[event.key];
      if (!next) return;
      event.preventDefault();
      const { panel, row, column } = { ...old, ...next };
      grid.cursor = { panel: clamp(panel, 0, panels - 1), row: clamp(row, 0, rows - 1), column: clamp(column, 0, columns - 1) };
      fixed = null;
      choose(momentAt(current, id, grid.cursor));
      speak();
    };
  }

  // Handles between groups: dragged, or moved by the arrow keys.
  function placeHandles() {
    const [kind] = state.groups.split(":");
    const free = ["uniform", "logarithmic", "sizes", "depthwise"].includes(kind);
    const holder = byId("handles");
    const wanted = free ? current.groups.length - 1 : 0;
    while (holder.children.length > wanted) holder.lastChild.remove();
    while (holder.children.length < wanted) holder.append(handle(holder.children.length));
    byId("drag-hint").hidden = wanted === 0;
    const ends = (side) => current.groups.map((_, g) => sum(current.groups.slice(0, g + 1).map((one) => one[side].length)));
    const [ins, outs] = [ends("reads"), ends("writes")];
    [...holder.children].forEach((button, g) => {
      const [x, y] = grids.groups.corner(0, outs[g], ins[g]);
      Object.assign(button.style, { left: `${x}px`, top: `${y}px` });
      button.setAttribute("aria-label", `Boundary after group ${g + 1}: ${plural(ins[g], "input")}, ${plural(outs[g], "output")}`);
    });
  }

  function handle(g) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const sizes = () => ["reads", "writes"].map((side) => current.groups.map((one) => one[side].length));
    const move = (input, output) => {
      const all = sizes();
      [input, output].forEach((end, side) => {
        const list = all[side];
        const before = sum(list.slice(0, g));
        const both = list[g] + list[g + 1];
        list[g] = clamp(end - before, 1, both - 1);
        list[g + 1] = both - list[g];
      });
      change({ groups: `sizes:${all.map((list) => list.join(".")).join(",")}` });
    };
    button.onpointerdown = (event) => { button.setPointerCapture(event.pointerId); };
    button.onpointermove = (event) => {
      if (!button.hasPointerCapture(event.pointerId)) return;
      const box = grids.groups.canvas.getBoundingClientRect();
      const { cellWidth, cellHeight } = grids.groups;
      move(Math.round((event.clientX - box.left - 2) / cellWidth), Math.round((event.clientY - box.top - 2) / cellHeight));
    };
    button.onkeydown = (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const [ins, outs] = sizes().map((list) => sum(list.slice(0, g + 1)));
      move(ins + step[0], outs + step[1]);
    };
    return button;
  }

  // --- Start --------------------------------------------------------------------------------------------------------

  function open(link) {
    stop();
    state = settled(read(link));
    linked = ["size", "kernel", "stride", "padding", "dilation", "output_padding"].every((name) => same(state[name]));
    change({});
  }

  function start() {
    const asked = location.hash.slice(1) || location.search.slice(1);
    const views = new URLSearchParams(asked).get("views");
    if (views) {
      document.body.classList.add("embed");
      for (const name of ["image", "product", "groups"]) byId(`view-${name}`).hidden = !views.split(",").includes(name);
    }
    readColours();
    byId("controls").open = !matchMedia("(max-width: 62rem)").matches;
    build();
    open(asked || EXAMPLES["A window slides"]);
    window.addEventListener("hashchange", () => open(location.hash.slice(1)));
    new ResizeObserver(draw).observe(byId("stage"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); draw(); });
  }

  /** For the tests: the state, its numbers, and where a square is on the screen. */
  window.explorer = {
    open, pythonCall: () => pythonCall(state), link: () => written(state), model: () => current, moment: shown,
    where: (id, panel, row, column) => {
      const box = grids[id].canvas.getBoundingClientRect();
      const [x, y] = grids[id].corner(panel, row, column);
      return [box.left + x + grids[id].cellWidth / 2, box.top + y + grids[id].cellHeight / 2];
    },
  };
  start();
})();
