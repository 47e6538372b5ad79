"""The explorer, explorer.html of the site: its arithmetic on the test vectors, and its page in a real browser."""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refconv
from refconv.testing.vectors import write_vectors
from tests.browser import CHROMIUM, Browser

jinja2 = pytest.importorskip("jinja2", reason="the extra docs is not installed")
pytest.importorskip("safetensors", reason="needs the extra refconv[vectors]")

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "docs" / "explorer"
ARITHMETIC = (SOURCE / "convolution.js").read_text("utf-8")
DRIVER = (ROOT / "tests" / "explorer_vectors.js").read_text("utf-8")
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="there is no Node")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, joined as by Sphinx."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(SOURCE))
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    path.write_text(environment.get_template("explorer.html").render(), "utf-8")
    return path


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The test vectors of one and two dimensions; the page shows at most two. Arrays are base64 of float64."""
    with pytest.MonkeyPatch.context() as patch:  # these tests do not need the mistakes that each problem catches
        patch.setattr("refconv.testing.vectors.write.caught", lambda *_: [])
        manifest = write_vectors(tmp_path_factory.mktemp("vectors"))

    def encoded(array: dict[str, Any]) -> str:
        numbers = np.load(manifest.parent / array["file"], allow_pickle=False).astype("<f8")
        return base64.b64encode(numbers.tobytes()).decode()

    every = json.loads(manifest.read_text("utf-8"))["problems"]
    shown = [problem for problem in every if problem["spatial_dims"] <= 2]
    assert {problem["spatial_dims"] for problem in every if problem not in shown} == {3}
    compared = {"y", "grad_x", "grad_weight"}
    for problem in shown:
        problem["operands"] = {name: encoded(array) for name, array in problem["operands"].items()}
        for kind in ("expected", "bounds"):
            problem[kind] = {name: encoded(array) for name, array in problem[kind].items() if name in compared}
    return shown


# --- Arithmetic --------------------------------------------------------------------------------------------------

MISTAKES = {
    "kernel flipped": ("weights[g][k * rows + r] * matrix", "weights[g][k * rows + rows - 1 - r] * matrix"),
    "padding of the wrong end": ("- padding[a][0], image[a]", "- padding[a][1], image[a]"),
    "dilation ignored": ("t * dilation[a]", "t"),
    "stride of rows for columns": ("l * stride[a]", "l * stride[0]"),
    "columns overwrite each other": ("+= matrix[(c * taps", "= matrix[(c * taps"),
    "edge reflected twice": ("2 * size - 2 - turned", "2 * size - 1 - turned"),
    "wrong end replicated": ("i < 0 ? 0 : size - 1", "i < 0 ? size - 1 : 0"),
    "one element not reflected": ("if (size === 1) return 0", "if (size === 1) return -1"),
    "output padding ignored": ("span(kernel, dilation) + outputPadding", "span(kernel, dilation)"),
    "weights' gradient not summed": ("gradient[k * rows + r] += values", "gradient[k * rows + r] = values"),
    "groups read the first channels": ("c += size;", ""),
    "element 0 not copied": ("if (reads[t][l] >= 0) matrix", "if (reads[t][l] > 0) matrix"),
    "columns not transposed back": (
        "weights[k * rows + r] * values",
        "weights[r * group.positions.length + k] * values",
    ),
}


@needs_node
def test_arithmetic_is_exact_under_node(problems, tmp_path):
    """All problems with one and two dimensions are right, and each mistake in the source is noticed."""
    sources = {"": ARITHMETIC}
    for name, (right, wrong) in MISTAKES.items():
        assert ARITHMETIC.count(right) == 1, name
        sources[name] = ARITHMETIC.replace(right, wrong)
    (tmp_path / "given.json").write_text(json.dumps({"sources": sources, "problems": problems}), "utf-8")
    script = (
        DRIVER
        + """
        const { sources, problems } = JSON.parse(require("fs").readFileSync(process.argv[2], "utf-8"));
        const found = Object.entries(sources).map(([name, source]) =>
          [name, new Function(`${source}; ${failures}; return failures;`)()(problems, name ? 1 : Infinity)]);
        console.log(JSON.stringify(Object.fromEntries(found)));"""
    )
    (tmp_path / "run.js").write_text(script, "utf-8")
    command = [str(NODE), str(tmp_path / "run.js"), str(tmp_path / "given.json")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    wrong = json.loads(result.stdout)
    assert wrong.pop("") == []
    assert len(problems) > 130
    assert [name for name, failures in wrong.items() if not failures] == []


# --- The page ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def started(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with the page open; it is started once."""
    one = Browser(tmp_path_factory.mktemp("profile"))
    one.size(1200, 1600)
    one.media(prefers_color_scheme="light")
    one.open(page.as_uri())
    yield one
    one.close()


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """The page as it opens. After each test, check that it loaded nothing else and logged no error."""
    started.run("document.activeElement.blur()")
    started.move(1, 1)
    show(started, "at=7")
    started.settle()
    yield started
    assert started.complaints == []
    assert all(address.startswith(("file:", "data:", "about:")) for address in started.requests)


def show(browser: Browser, link: str) -> None:
    browser.run(f"explorer.open({json.dumps(link)})")


def where(browser: Browser, grid: str, panel: int, row: int, column: int) -> list[float]:
    """Return where the middle of a square is on the screen."""
    browser.settle()
    return browser.run(f"explorer.where({json.dumps(grid)}, {panel}, {row}, {column})")


def caption(browser: Browser) -> str:
    return browser.run("document.getElementById('caption').textContent").replace("−", "-")


@needs_browser
def test_arithmetic_is_exact_in_the_browser(browser, problems):
    assert browser.run(f"{DRIVER}; failures({json.dumps(problems)})") == []


STATES = [
    "",
    "size=9,8&kernel=3,2&stride=2,1&padding=1,0&dilation=1,2",
    "padding=3,2&mode=reflect&kernel=2,3",
    "padding=4,4&mode=circular&size=3,5&channels=2,3",
    "padding=2,1&mode=replicate&pass=input&channels=3,2",
    "channels=8,12&size=5,5&groups=uniform:2",
    "channels=13,11&size=4,5&groups=logarithmic:4&pass=input",
    "channels=6,16&size=5,6&groups=lenet5&pass=weight",
    "channels=3,6&groups=depthwise&size=5,5&stride=2,2&pass=weight",
    "channels=7,9&size=4,4&groups=sizes:4.2.1,2.3.4",
    "size=1,9&kernel=1,3&padding=0,2",
    "size=6,6&pass=input&mode=reflect&padding=2,2",
    "transposed=1&size=3,4&stride=2,3&output_padding=1,2&padding=1,0",
    "transposed=1&size=3,3&kernel=2,3&channels=4,6&groups=uniform:2&pass=input",
    "transposed=1&size=2,3&channels=9,7&groups=logarithmic:3&dilation=2,1&pass=weight",
    "transposed=1&size=3,2&groups=lenet5",
    "transposed=1&size=4,3&channels=5,6&groups=sizes:1.4,4.2&pass=input&stride=2,2&output_padding=1,1",
]


def drawn(seed: int) -> str:
    """Return a random state, usually one that fits."""
    draw = random.Random(seed)

    def pair(low: int, high: int) -> str:
        return f"{draw.randint(low, high)},{draw.randint(low, high)}"

    kinds = ["dense", "uniform:2", "uniform:3", "logarithmic:2", "logarithmic:3", "depthwise", "lenet5", "sizes"]
    return "&".join([
        f"transposed={draw.randint(0, 1)}", f"pass={draw.choice(['forward', 'input', 'weight'])}", f"size={pair(4, 9)}",
        f"kernel={pair(1, 3)}", f"stride={pair(1, 3)}", f"padding={pair(0, 2)}", f"dilation={pair(1, 2)}",
        f"output_padding={pair(0, 2)}", f"mode={draw.choice(['zeros', 'reflect', 'replicate', 'circular'])}",
        f"channels={pair(1, 12)}", f"groups={draw.choice(kinds)}",
    ])  # fmt: skip


def given_by_call(call: str) -> Any:
    """Run a call in Python and return the printed array."""
    printed: list[Any] = []
    exec(call, {"print": printed.append})
    (result,) = printed
    return result


@needs_browser
def test_calls_to_copy_give_the_numbers_of_the_page(browser):
    script = """(() => {
        const m = explorer.model();
        const [image, values, weights] = [m.image, m.values, m.weights.flatMap((one) => [...one])].map((a) => [...a]);
        return { call: explorer.pythonCall(), kind: m.kind, image, values, weights, groups: m.groups, C: m.C, K: m.K };
    })()"""
    kinds = set()
    for link in [*STATES, *map(drawn, range(25))]:
        show(browser, link)
        got = browser.run(script)
        assert max(map(len, got["call"].splitlines())) <= 88
        result = given_by_call(got["call"])
        arrays = result if isinstance(result, tuple) else [result]
        flat = np.concatenate([np.asarray(array).ravel() for array in arrays]).tolist()
        assert flat == got[{"correlate": "values", "scatter": "image", "outer": "weights"}[got["kind"]]], link
        kinds.add((got["kind"], len(got["groups"]) > 1))
    assert len(kinds) == 6


@needs_browser
def test_groups_are_the_librarys(browser):
    expected = {
        "channels=6,16&groups=lenet5": refconv.lenet5_c3_groups(),
        "channels=12,8&groups=uniform:4": refconv.uniform_groups(12, 8, 4),
        "channels=4,8&groups=depthwise": refconv.depthwise_groups(4, 2),
        "channels=7,9&groups=sizes:4.2.1,2.3.4": refconv.ChannelGroups.from_sizes([4, 2, 1], [2, 3, 4]),
    }
    for C in range(1, 17):
        for n in range(1, C.bit_length() + 1):
            K = 17 - C if 2 ** (n - 1) <= 17 - C else 16
            expected[f"channels={C},{K}&groups=logarithmic:{n}"] = refconv.logarithmic_groups(C, K, n)
    for link, groups in expected.items():
        show(browser, f"size=3,3&{link}")
        found = browser.run("explorer.model().groups")
        assert [one["reads"] for one in found] == list(map(list, groups.in_channels)), link
        assert [one["writes"] for one in found] == list(map(list, groups.out_channels)), link
        shown = browser.run("document.querySelectorAll('#counts dd b')[1].textContent")
        assert shown == f"{groups.parameter_count((3, 3)):,}"


@needs_browser
def test_hovering_marks_the_same_moment_everywhere(browser):
    show(browser, "channels=2,2&size=6,6&at=3")
    before = browser.run("document.getElementById('columns').toDataURL()")
    browser.move(*where(browser, "positions", 1, 2, 3))
    assert browser.run("explorer.moment()") == {"what": "position", "k": 1, "l": 11}
    weights, values = browser.run("(({ weights, values }) => [[...weights[0]], [...values]])(explorer.model())")
    assert caption(browser).startswith("y[1, 2, 3] = the window times the kernel")
    assert caption(browser).endswith(f"= {int(values[27])}")
    assert f"{int(weights[18])}·" in caption(browser)
    assert browser.run("document.getElementById('columns').toDataURL()") != before

    browser.move(*where(browser, "image", 1, 2, 2))  # read by all 3 x 3 windows
    assert browser.run("explorer.moment()") == {"what": "element", "c": 1, "row": 2, "column": 2}
    assert "x[1, 2, 2] is read by 9 windows" in caption(browser)
    browser.move(*where(browser, "image", 0, 0, 1))
    assert "x[0, 0, 1] is read by 2 windows" in caption(browser)

    browser.move(*where(browser, "kernel", 1, 2, 0))
    assert browser.run("explorer.moment()") == {"what": "tap", "k": 0, "c": 1, "t": 6}
    assert "multiplies row 15 of the columns" in caption(browser)
    browser.move(*where(browser, "columns", 0, 15, 6))  # tap (2, 0) of the window at (1, 2)
    assert browser.run("explorer.moment()") == {"what": "entry", "k": 0, "c": 1, "t": 6, "l": 6}
    assert "A copy of x[1, 3, 2]" in caption(browser)
    browser.move(*where(browser, "groups", 0, 1, 0))
    assert caption(browser) == "Output channels 0-1 read input channels 0-1.".replace("0-1", "0–1")
    browser.move(1, 1)
    assert browser.run("explorer.moment()") == {"what": "position", "k": 0, "l": 3}


@needs_browser
def test_columns_flow_back_and_overlaps_add_up(browser):
    show(browser, "size=5,5&pass=input&at=0")
    image = "[...explorer.model().image]"
    seen = [browser.run(image)]
    for _ in range(8):
        browser.click(*browser.run(MIDDLE % "next"))
        seen.append(browser.run(image))
    names: dict[str, Any] = {"print": lambda _: None}
    exec(browser.run("explorer.pythonCall()"), names)
    for last, image in enumerate(seen):
        g = np.where(np.arange(9).reshape(1, 1, 3, 3) <= last, names["g"], 0)
        assert image == refconv.conv_input_grad(g, names["weight"], (1, 1, 5, 5)).ravel().tolist()
    final = names["grads"].x
    browser.move(*where(browser, "image", 0, 2, 2))
    assert caption(browser).startswith("∂x[0, 2, 2] is in 9 windows. So far: ")
    assert caption(browser).endswith(f"= {final[0, 0, 2, 2]}")


MIDDLE = """(() => {
    const element = document.getElementById("%s");
    element.scrollIntoView({ block: "nearest" });
    const box = element.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
})()"""


@needs_browser
def test_playing_steps_to_the_end_and_pauses(browser):
    show(browser, "size=4,4&at=3")  # at the last of four positions: it begins again
    play = browser.run(MIDDLE % "play")
    browser.click(*play)
    label = "document.getElementById('play').textContent"
    assert browser.run(label) == "❚❚ Pause"
    browser.run(
        """new Promise((done) => {
            const look = () => (explorer.model().at === 1 ? done(0) : setTimeout(look, 20));
            look();
        })"""
    )
    browser.click(*play)
    assert browser.run(label) == "▶ Play"
    browser.click(*browser.run(MIDDLE % "back"))
    assert browser.run("explorer.model().at") == 0


@needs_browser
def test_reduced_motion_plays_slowly(browser):
    every = []
    browser.run("window.plain = setInterval; window.setInterval = (step, every) => (window.every = every)")
    try:
        for wish in ("no-preference", "reduce"):
            browser.media(prefers_color_scheme="light", prefers_reduced_motion=wish)
            browser.click(*browser.run(MIDDLE % "play"))
            every.append(browser.run("window.every"))
            browser.click(*browser.run(MIDDLE % "play"))
    finally:
        browser.run("window.setInterval = window.plain")
        browser.media(prefers_color_scheme="light")
    assert every == [480, 1500]


@needs_browser
def test_keyboard_reaches_everything(browser):
    browser.run("document.getElementById('positions').focus()")
    browser.key("ArrowDown", "ArrowRight")
    assert browser.run("explorer.model().at") == 13
    assert "Position 14 of 25. y[0, 2, 3] =" in browser.run("document.getElementById('spoken').textContent")
    browser.run("document.getElementById('image').focus()")
    browser.key("ArrowRight", "ArrowDown")
    assert browser.run("explorer.moment()") == {"what": "element", "c": 0, "row": 1, "column": 1}
    browser.key("Escape")
    assert browser.run("explorer.moment().what") == "position"

    browser.run("document.getElementById('presets').firstChild.focus()")
    reached = {"A window slides"}
    for _ in range(80):
        browser.key("Tab")
        reached.add(browser.run("(({ id, textContent }) => id || textContent)(document.activeElement)"))
    grids = "image kernel positions columns weights product groups"
    wanted = f"both mode kind back play next at numbers {grids} copy-code copy-link"
    assert {"A window slides", "Convolution", "Forward", *wanted.split()} <= reached


@needs_browser
def test_settings_change_the_state(browser):
    def slider(name: str, *keys: str) -> None:
        browser.run(f"""[...document.querySelectorAll(".slider")].filter((one) => one.checkVisibility())
            .find((one) => one.textContent.startsWith("{name}")).querySelector("input").focus()""")
        browser.key(*keys)

    def state() -> dict[str, str]:
        return dict(part.split("=") for part in browser.run("explorer.link()").split("&"))

    slider("input size", "ArrowRight", "ArrowRight")
    slider("stride", "ArrowRight")
    assert state() == {"size": "9,9", "stride": "2,2", "at": "7"}
    browser.click(*browser.run(MIDDLE % "both"))
    slider("kernel, cols", "ArrowLeft")
    slider("padding, rows", "ArrowRight")
    assert (state()["kernel"], state()["padding"]) == ("3,2", "1,0")
    browser.run("""(() => {
        for (const [id, value] of [["mode", "reflect"], ["kind", "logarithmic"]]) {
            document.getElementById(id).value = value;
            document.getElementById(id).dispatchEvent(new Event("change"));
        }
    })()""")
    assert (state()["mode"], state()["groups"], state()["channels"]) == ("reflect", "logarithmic:2", "4,4")
    slider("groups", "ArrowRight")
    slider("outputs", "End", "ArrowLeft")
    assert (state()["groups"], state()["channels"]) == ("logarithmic:3", "4,15")
    browser.run("document.querySelector('#pass [aria-checked=true]').focus()")
    browser.key("ArrowRight")
    assert state()["pass"] == "input"
    browser.click(*browser.run(MIDDLE % "copy-code"))
    browser.run("new Promise((done) => setTimeout(done, 50))")
    assert browser.run("document.getElementById('copied').textContent") in ("Copied.", "Selected: press Ctrl+C.")


@needs_browser
def test_everything_has_a_name_and_room_for_a_finger(browser):
    show(browser, "channels=8,8&size=5,5&groups=uniform:4")
    found = browser.run("""[...document.querySelectorAll("button, input, select, canvas, summary")]
        .filter((one) => one.checkVisibility()).map((one) => {
            const target = one.type === "checkbox" ? one.closest("label") : one;
            const { width, height } = target.getBoundingClientRect();
            const name = one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent;
            return [one.tagName, name.trim(), Math.min(width, height)];
        })""")
    assert len(found) > 30
    assert [one for one in found if not one[1]] == []
    assert [one for one in found if one[0] != "CANVAS" and one[2] < 43.9] == []


@needs_browser
def test_boundaries_of_groups_are_dragged(browser):
    show(browser, "channels=8,8&size=3,3&groups=uniform:2")
    browser.settle()
    weights = "document.querySelector('#counts dd b').textContent"
    assert browser.run(weights) == "288"
    x, y = browser.run("(({ x, y, width, height }) => [x + width / 2, y + height / 2])"
                       "(document.querySelector('#handles button').getBoundingClientRect())")  # fmt: skip
    cell = where(browser, "groups", 0, 0, 1)[0] - where(browser, "groups", 0, 0, 0)[0]
    browser.mouse("mousePressed", x, y, 1)
    browser.mouse("mouseMoved", x + 2 * cell, y - cell, 1)
    browser.settle()
    assert browser.run(weights) == f"{(6 * 3 + 2 * 5) * 9}"  # while the button is still down
    browser.mouse("mouseReleased", x + 2 * cell, y - cell)
    assert "groups=sizes:6.2,3.5" in browser.run("explorer.link()")
    browser.run("document.querySelector('#handles button').focus()")
    browser.key("ArrowLeft", "ArrowDown")
    assert "groups=sizes:5.3,4.4" in browser.run("explorer.link()")


@needs_browser
@pytest.mark.parametrize("link", [STATES[1], STATES[9], STATES[12]])
def test_link_restores_the_state(browser, page, link):
    show(browser, link + "&at=2&numbers=0")
    call, link = browser.run("[explorer.pythonCall(), location.hash]")
    browser.open(page.as_uri() + link)
    assert browser.run("[explorer.pythonCall(), location.hash]") == [call, link]
    assert browser.run("explorer.model().at") == 2


@needs_browser
@pytest.mark.parametrize("link", ["size=a,b&kernel=3", "size=99,4&channels=0,99&groups=uniform:5", "groups=sizes:1.x,2",
                                  "mode=<b>&pass=&groups=:", "at=999&channel=77&numbers=9", "__proto__=1&constructor=2",
                                  "transposed=7&output_padding=9,9"])  # fmt: skip
def test_wrong_links_give_a_state_that_works(browser, link):
    show(browser, link)
    assert browser.run("explorer.model() !== null")
    given_by_call(browser.run("explorer.pythonCall()"))


@needs_browser
def test_kernel_that_does_not_fit_is_explained(browser):
    show(browser, "size=2,5")
    assert "The kernel spans 3 rows, but the padded image has only 2." in browser.run("document.body.innerText")
    browser.click(*browser.run(MIDDLE % "next"))
    show(browser, "size=3,5")
    assert "The kernel spans" not in browser.run("document.body.innerText")


@needs_browser
def test_narrow_windows_and_dark_mode(browser):
    try:
        for link in (
            "at=7",
            "channels=3,2&size=6,6&pass=weight&padding=1,1&dilation=2,2",
            "channels=16,16&size=5,5&groups=logarithmic:4",
            "size=12,12&kernel=1,1&padding=4,4&channels=3,2",
        ):
            for width in (360, 640, 1000, 1400):
                browser.size(width, 900)
                show(browser, link)
                assert browser.run("document.documentElement.scrollWidth") <= width, (link, width)
                clipped = browser.run("""[...document.querySelectorAll("canvas")].filter((one) => {
                    const box = one.closest("section").getBoundingClientRect();
                    return one.getBoundingClientRect().right > box.right;
                }).map((one) => one.id)""")
                assert clipped == [], (link, width)
                ends = browser.run("""[...document.querySelectorAll("#flow canvas, #flow #name-kernel")].map((one) => {
                    const { left, right, top, bottom } = one.getBoundingClientRect();
                    return [left, right, top, bottom];
                })""")
                for a, b in combinations(ends, 2):
                    assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2], (link, width)
        background = "getComputedStyle(document.body).backgroundColor"
        light = browser.run(background)
        picture = browser.run("document.getElementById('image').toDataURL()")
        browser.media(prefers_color_scheme="dark")
        assert browser.run(background) != light
        assert browser.run("document.getElementById('image').toDataURL()") != picture
    finally:
        browser.media(prefers_color_scheme="light")
        browser.size(1200, 1600)


@needs_browser
def test_embedded_views(browser, page):
    browser.open(page.as_uri() + "?views=image&size=1,7&kernel=1,3")
    visible = browser.run(
        "[...document.querySelectorAll('.views > section')].filter((s) => s.checkVisibility()).map((s) => s.id)"
    )
    assert visible == ["view-image"]
    assert browser.run("document.getElementById('whole').href").endswith("explorer.html#size=1,7&kernel=1,3")
    browser.open(page.as_uri())


EMBEDDED = re.compile(r'<iframe src="\.\./explorer\.html\?([^"]*)" title="[^"]+" width="100%" height="(\d+)"')


@needs_browser
def test_embedded_views_of_pages_and_notebooks_fit(browser, page):
    sources = [*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.md")]
    found = [(source.name, *match) for source in sources for match in EMBEDDED.findall(source.read_text("utf-8"))]
    assert len(found) == sum(source.read_text("utf-8").count("<iframe src=") for source in sources) == 7
    try:
        for name, link, height in found:
            browser.size(700, int(height))
            browser.open(f"{page.as_uri()}?{link}")
            assert browser.run("document.documentElement.scrollHeight") <= int(height), name
            state = dict(part.split("=") for part in link.split("&"))
            views = state.pop("views").split(",")
            assert state == dict(part.split("=") for part in browser.run("explorer.link()").split("&")), name
            assert all(browser.run(f"document.getElementById('view-{view}').checkVisibility()") for view in views), name
    finally:
        browser.size(1200, 1600)
        browser.open(page.as_uri())


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.md")), ids=lambda path: path.stem)
def test_notebooks_say_where_the_view_is_that_jupyter_leaves_out(path):
    """Jupyter removes the frame and keeps its content, which a browser shows only without frames."""
    frames = re.findall(r"<iframe .*?</iframe>", path.read_text("utf-8"))
    assert len(frames) == path.stem.startswith(("01", "02", "03", "04", "05"))
    for frame in frames:
        (link,) = re.findall(r'src="\.\./explorer\.html\?views=[a-z,]*&([^"]*)"', frame)
        content = re.sub("<.*?>", "", frame)
        assert content.startswith("Jupyter leaves out the picture. ")
        assert f" build/site/explorer.html#{link} " in content


def test_page_is_small_and_complete(page):
    text = page.read_text("utf-8")
    assert len(text.encode()) < 150_000
    assert re.findall(r"""(?:src|href)=["'](?!data:|#|docs/index\.html)[^"']*|https?://|@import|url\(""", text) == []
    assert "{%" not in text
