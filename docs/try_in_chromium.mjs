// Run notebooks of a built JupyterLite site in Chromium, every cell, with its own kernel:
//
//     npm install puppeteer-core
//     python -m http.server --bind 127.0.0.1 -d build/lite 8000 &
//     node docs/try_in_chromium.mjs /usr/bin/chromium http://127.0.0.1:8000 01_sliding_window ...
//
// A cell that raises, a cell that never runs and a file from another host are errors.

import puppeteer from "puppeteer-core";

const SECONDS = 300; // for all cells of a notebook

const [executablePath, site, ...names] = process.argv.slice(2);
if (names.length === 0) throw new Error("usage: node docs/try_in_chromium.mjs CHROMIUM ADDRESS NOTEBOOK ...");
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"] });
for (const name of names) {
  const context = await browser.createBrowserContext(); // nothing is kept of the notebook before
  const page = await context.newPage();
  const elsewhere = new Set();
  await page.setRequestInterception(true);
  page.on("request", async (request) => {
    const address = new URL(request.url());
    if (address.protocol.startsWith("http") && address.origin !== site) elsewhere.add(address.href);
    if (address.href !== `${site}/jupyter-lite.json`) return request.continue();
    const config = await (await fetch(address)).json();
    config["jupyter-config-data"].exposeAppInBrowser = true; // as window.jupyterapp
    return request.respond({ contentType: "application/json", body: JSON.stringify(config) });
  });
  await page.goto(`${site}/lab/index.html?reset`);
  await page.waitForFunction(() => window.jupyterapp?.commands?.hasCommand("docmanager:open"));
  await page.evaluate(async (path) => {
    await window.jupyterapp.restored;
    await window.jupyterapp.commands.execute("docmanager:open", { path, kernelPreference: { name: "python" } });
  }, `${name}.ipynb`);
  await page.waitForFunction(() => window.jupyterapp.shell.currentWidget?.content?.model?.cells?.length > 3);
  const start = Date.now();
  const ran = page.evaluate(async () => {
    await window.jupyterapp.shell.currentWidget.sessionContext.ready;
    await window.jupyterapp.commands.execute("notebook:run-all-cells");
  });
  ran.catch(() => {}); // the page may close first
  await Promise.race([ran, new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS))]);
  const cells = await page.evaluate(() =>
    [...window.jupyterapp.shell.currentWidget.content.model.cells]
      .filter((cell) => cell.type === "code")
      .map((cell) => [cell.executionCount, cell.outputs.toJSON().find((output) => output.output_type === "error")]));
  const wrong = cells.filter(([count, error]) => count === null || error).map(([, error]) => error?.evalue ?? "did not run");
  wrong.push(...elsewhere);
  console.log(`${name}: ${cells.length} cells, ${wrong.length} errors, ${((Date.now() - start) / 1000).toFixed(0)} s`);
  for (const text of wrong) console.log(text);
  if (wrong.length) process.exitCode = 1;
  await context.close();
}
await browser.close();
