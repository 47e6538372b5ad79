// Run notebooks in Pyodide, Python for the browser, under Node.js:
//
//     node docs/try_in_pyodide.mjs PYODIDE SITE NOTEBOOK.ipynb ...
//
// PYODIDE is a folder with Pyodide's distribution, NumPy and Matplotlib included; SITE what `make lite` wrote, for its
// wheels. A cell that raises is an error, and so is one that prints something else than what the notebook was saved
// with, unless that depends on the machine (tag "measured"). Notebooks from `refconv notebooks --solutions` are saved
// with nothing; of them the checks must say "passed: ".

import { readFileSync, readdirSync } from "node:fs";
import { resolve } from "node:path";

const RUN = `
import io, json, os, sys, time
from contextlib import redirect_stdout

os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
from IPython.core.interactiveshell import InteractiveShell

def run(text):
    """Run a notebook; return its cells that ran, its checks, and what went wrong."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    nothing = lambda *args, **kwargs: None  # pictures are drawn, and shown to nobody
    shell.display_pub.publish = shell.display_pub.clear_output = shell.display_trap.hook = nothing
    notebook, count, checks, wrong = json.loads(text), 0, [], []
    saved = any(cell.get("outputs") for cell in notebook["cells"])
    start = time.perf_counter()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or source.startswith("%pip"):
            continue
        count += 1
        out = io.StringIO()
        with redirect_stdout(out):
            result = shell.run_cell(source, silent=False)
        if not result.success:
            wrong.append(f"{result.error_before_exec or result.error_in_exec!r} in\\n{source}")
        printed = out.getvalue()
        kept = "".join("".join(o["text"]) for o in cell["outputs"] if o["output_type"] == "stream")
        tags = cell["metadata"].get("tags", [])
        if saved and result.success and printed != kept and "measured" not in tags:
            wrong.append(f"printed {printed!r}, was {kept!r}")
        if "check" in tags:
            checks.append(printed)
            if not saved and not printed.startswith("passed: "):
                wrong.append(printed)
    return count, checks, wrong, time.perf_counter() - start
`;

const [pyodide, site, ...files] = process.argv.slice(2);
if (files.length === 0) throw new Error("usage: node docs/try_in_pyodide.mjs PYODIDE SITE NOTEBOOK.ipynb ...");
const folder = resolve(pyodide);
const { loadPyodide } = await import(`${folder}/pyodide.mjs`);
const python = await loadPyodide({ indexURL: `${folder}/` });
const quiet = { messageCallback: () => {} };
await python.loadPackage(["numpy", "matplotlib", "pillow", "ipython", "threadpoolctl"], quiet);
for (const wheel of readdirSync(`${site}/pypi`).filter((name) => name.endsWith(".whl"))) {
  python.unpackArchive(new Uint8Array(readFileSync(`${site}/pypi/${wheel}`)), "wheel");
}
python.runPython(RUN);
console.log(python.runPython("import numpy, refconv; f'Python {sys.version.split()[0]}, NumPy {numpy.__version__}, refconv {refconv.__version__}'"));
const run = python.globals.get("run");
for (const file of files) {
  const [count, checks, wrong, seconds] = run(readFileSync(file, "utf-8")).toJs();
  console.log(`${file}: ${count} cells, ${checks.length} checks, ${wrong.length} errors, ${seconds.toFixed(1)} s`);
  for (const text of wrong) console.log(text);
  if (wrong.length) process.exitCode = 1;
}
