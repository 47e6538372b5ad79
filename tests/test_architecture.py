"""The arrows between refconv's modules, read from their source: allowed imports, and forbidden ones.

Every import statement counts as an arrow, also inside functions, and arrows are followed: a module imports everything
that its imports import.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INTEGERS = {"integers", "groups", "shapes"}  # they never see an array
TOOLS = {*INTEGERS, "arrays", "im2col", "padding", "settings"}
CORE = {*TOOLS, "textbook", "cpu", "engine", "conv", "derivatives", "cost"}
MAY_IMPORT = {  # module or package -> modules of refconv that it may reach; unlisted ones (cli, tour) may reach all
    "integers": set(),
    "groups": {"integers"},
    "shapes": {"integers", "groups"},
    "arrays": set(),
    "settings": {"integers"},
    "files": set(),
    "packages": set(),
    "tables": set(),
    "padding": {"arrays"},
    "im2col": {*INTEGERS, "arrays", "padding"},
    "textbook": TOOLS,  # no thread, no tile, no layout
    "cpu": {"cpu", "textbook", *TOOLS},
    "engine": {"cpu", "textbook", *TOOLS},
    "conv": {"engine", "cpu", "textbook", *TOOLS},
    "derivatives": {"conv", "engine", "cpu", "textbook", *TOOLS},
    "cost": CORE,
    "refconv": CORE,  # __init__.py
    "nn": {"nn", "files", "tables", *CORE},
    "testing": {"testing", "files", "arrays", "integers", "groups"},  # oracles share no code with the code under test
}
HEAVY = {
    "IPython", "PIL", "array_api_strict", "click", "cupy", "hypothesis", "ipywidgets", "jax", "jinja2", "jupytext",
    "matplotlib", "nbclient", "nbformat", "onnx", "onnxruntime", "rich", "safetensors", "scipy", "skimage", "sklearn",
    "torch",
}  # fmt: skip
PICKLES = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}

Sources = Mapping[str, str]  # "refconv/nn/layers.py" -> its text


def package_sources() -> Sources:
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in (ROOT / "refconv").rglob("*.py")}


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def short(module: str) -> str:
    """Return the row of the table for a module: refconv.nn.layers is "nn"."""
    return module.split(".")[1] if "." in module else module


def at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported: no function bodies, no ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_import_time(node)


def imported(path: str, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield the dotted names in the import statements among `nodes`, with relative names made absolute."""
    package = module_name(path).split(".")
    package = package if path.endswith("/__init__.py") else package[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def resolve(name: str, modules: set[str]) -> str:
    """Return the module that contains a dotted name: refconv.conv for refconv.conv.ConvGrads."""
    while name not in modules:
        name = name.rpartition(".")[0]
    return name


def reached(sources: Sources) -> dict[str, set[str]]:
    """Return, for each module, every refconv module that it imports, directly or through others."""
    modules = {module_name(path) for path in sources}
    arrows = {
        module_name(path): {
            resolve(name, modules)
            for name in imported(path, ast.walk(ast.parse(text)))
            if name.split(".")[0] == "refconv"
        }
        for path, text in sources.items()
    }
    while True:  # follow the arrows until nothing new is reached
        further = {module: targets.union(*(arrows[t] for t in targets)) for module, targets in arrows.items()}
        if further == arrows:
            return arrows
        arrows = further


def wrong_arrows(sources: Sources) -> list[str]:
    found = []
    for module, targets in sorted(reached(sources).items()):
        if module in targets:
            found.append(f"{module} imports itself, through others")
        allowed = MAY_IMPORT.get(short(module))
        found += [
            f"{module} reaches {target}"
            for target in sorted(targets)
            if (allowed is not None and short(target) not in allowed)
            or (short(target) == "cli" and short(module) not in {"cli", "__main__"})
        ]
    return found


def imports_of_cpu(sources: Sources) -> list[str]:
    """Return the modules outside refconv.cpu that import it directly."""
    return [
        path
        for path, text in sources.items()
        if not path.startswith("refconv/cpu/")
        and any(f"{name}.".startswith("refconv.cpu.") for name in imported(path, ast.walk(ast.parse(text))))
    ]


def dispatches(sources: Sources) -> list[str]:
    """Return where the core distinguishes array modules outside arrays.py, engine.py and cpu/.

    No array module may be imported, not even NumPy. Namespaces may not be compared (``xp is xnp``), nor tested for
    their name or for being NumPy. Exceptions are numbers and sequences: integers.py, shapes.py and groups.py accept
    NumPy's.
    """
    found = []
    for path, text in sources.items():
        if short(module_name(path)) not in CORE - {"arrays", "engine", "cpu"} - INTEGERS:
            continue
        tree = ast.parse(text)
        names = {name.split(".")[0] for name in imported(path, ast.walk(tree))}
        found += [f"{path} imports {name}" for name in sorted(names & {"numpy", *HEAVY})]
        for node in ast.walk(tree):
            code = ast.unparse(node)
            if (
                (isinstance(node, ast.Compare) and "xp" in code.split())
                or (isinstance(node, ast.Attribute) and code.endswith((".__name__", ".__class__")) and "xp" in code)
                or (isinstance(node, ast.Call) and code.startswith(("is_numpy(", "hasattr(xp")))
                or (isinstance(node, ast.Call) and code.startswith("isinstance(") and "ndarray" in code)
            ):
                found.append(f"{path}:{node.lineno} {code}")
    return found


def heavy_imports(sources: Sources) -> list[str]:
    """Return imports of optional packages: never when the core or refconv.nn is imported, nor anywhere in the core."""
    found = []
    for path, text in sources.items():
        tree, place = ast.parse(text), short(module_name(path))
        if place == "arrays":  # loads array modules by name, on request
            everywhere: Iterator[ast.AST] = at_import_time(tree)
        elif place in {*CORE, "refconv"}:
            everywhere = ast.walk(tree)
        elif place == "nn":
            everywhere = at_import_time(tree)
        else:
            continue
        names = {name.split(".")[0] for name in imported(path, everywhere)}
        found += [f"{path} imports {name}" for name in sorted(names & HEAVY)]
    return found


def pickling(sources: Sources) -> list[str]:
    found = []
    for path, text in sources.items():
        tree = ast.parse(text)
        names = {name.split(".")[0] for name in imported(path, ast.walk(tree))}
        found += [f"{path} imports {name}" for name in sorted(names & PICKLES)]
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "allow_pickle"
                and not (isinstance(node.value, ast.Constant) and node.value.value is False)
            ):
                found.append(f"{path}:{node.value.lineno} allows pickles")
    return found


def test_arrows_point_up():
    assert wrong_arrows(package_sources()) == []


def test_every_module_of_the_core_is_there():
    present = {short(module_name(path)) for path in package_sources()}
    assert present >= {*CORE, "nn", "testing", "cli"}


def test_one_file_imports_the_cpu_engine():
    assert imports_of_cpu(package_sources()) == ["refconv/engine.py"]


def test_one_file_tells_array_modules_apart():
    assert dispatches(package_sources()) == []


@pytest.mark.parametrize(
    "code", ["xp is np", "np is not xp", "xp == np", "xp.__name__", "is_numpy(xp)", "isinstance(x, np.ndarray)"]
)
def test_a_dispatch_on_the_array_module_is_caught(code):
    assert len(dispatches({"refconv/textbook.py": f"if {code}:\n    pass"})) == 1
    assert dispatches({"refconv/arrays.py": f"if {code}:\n    pass"}) == []


@pytest.mark.parametrize("text", ["import numpy as np", "def f():\n    from numpy import ndarray", "import torch"])
def test_an_import_of_an_array_module_is_caught(text):
    assert len(dispatches({"refconv/im2col.py": text})) == 1
    assert dispatches({"refconv/cpu/plan.py": text, "refconv/shapes.py": text}) == []


@pytest.mark.parametrize(
    "text", ["import refconv.cpu", "from refconv import cpu", "def f():\n    from .cpu import plan"]
)
def test_another_import_of_the_cpu_engine_is_caught(text):
    assert imports_of_cpu({"refconv/conv.py": text, "refconv/cpu/plan.py": text}) == ["refconv/conv.py"]


def test_core_imports_nothing_heavy():
    assert heavy_imports(package_sources()) == []


def test_only_arrays_knows_the_compatibility_package():
    knowing = [path for path, text in package_sources().items() if "array_api_compat" in text]
    assert knowing == ["refconv/arrays.py"]


def test_no_pickles():
    folders = ("refconv", "benchmarks", "notebooks", "docs")  # a test may pickle its own objects
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert pickling({path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in files}) == []


HOUSE = {
    "refconv/__init__.py": "from refconv.conv import conv",
    "refconv/arrays.py": "import numpy as np",
    "refconv/shapes.py": "import math",
    "refconv/settings.py": "from refconv.integers import as_int",
    "refconv/integers.py": "import math",
    "refconv/im2col.py": "from refconv.arrays import windows",
    "refconv/textbook.py": "from refconv.im2col import gather_columns",
    "refconv/cpu/__init__.py": "from refconv.cpu.plan import plan",
    "refconv/cpu/plan.py": "from refconv.textbook import read",
    "refconv/engine.py": "from refconv import cpu, settings, textbook",
    "refconv/conv.py": "from refconv import arrays, engine, shapes",
    "refconv/nn/__init__.py": "from refconv.nn.layers import Conv",
    "refconv/nn/layers.py": "from refconv.conv import conv\nfrom .loss import mean",
    "refconv/nn/loss.py": "from refconv.arrays import to_numpy",
    "refconv/testing/__init__.py": "from refconv.arrays import to_numpy",
    "refconv/tour.py": "import refconv, refconv.nn, refconv.testing",
    "refconv/cli/__init__.py": "def main():\n    import refconv.tour, scipy",
}


def test_a_sound_house_passes():
    assert wrong_arrows(HOUSE) == []
    assert heavy_imports(HOUSE) == []
    assert pickling(HOUSE) == []


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("shapes", "from refconv import arrays", "refconv.shapes reaches refconv.arrays"),
        ("shapes", "def f():\n    from . import arrays", "refconv.shapes reaches refconv.arrays"),
        ("shapes", "import refconv", "refconv.shapes reaches refconv.arrays"),
        ("arrays", "from refconv.conv import conv", "refconv.arrays imports itself, through others"),
        ("arrays", "from refconv.cli import main", "refconv.conv reaches refconv.cli"),
        ("textbook", "from refconv.cpu import plan", "refconv.textbook reaches refconv.cpu.plan"),
        ("textbook", "from refconv import engine", "refconv.textbook reaches refconv.engine"),
        ("cpu/plan", "from refconv import engine", "refconv.cpu.plan reaches refconv.engine"),
        ("im2col", "from refconv import settings", "refconv.im2col reaches refconv.settings"),
        ("testing/oracle", "from refconv import textbook", "refconv.testing.oracle reaches refconv.textbook"),
        ("conv", "import refconv.nn.layers as n", "refconv.conv reaches refconv.nn.layers"),
        ("conv", "from .nn import loss", "refconv.conv reaches refconv.nn.loss"),
        ("conv", "def f():\n    from refconv.tour import f", "refconv.conv reaches refconv.tour"),
        ("tour", "from refconv.cli import main", "refconv.tour reaches refconv.cli"),
        ("nn/loss", "from ..testing import check_conv", "refconv.nn.loss reaches refconv.testing"),
        ("testing/oracle", "from refconv import conv", "refconv.testing.oracle reaches refconv.conv"),
        ("testing/oracle", "from refconv import ChannelGroups", "refconv.testing.oracle reaches refconv"),
        ("testing/oracle", "def f():\n    from ..shapes import f", "refconv.testing.oracle reaches refconv.shapes"),
    ],
)
def test_a_wrong_arrow_is_caught(path, text, message):
    assert message in wrong_arrows({**HOUSE, f"refconv/{path}.py": text})


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("conv", "from scipy.signal import correlate"),
        ("conv", "def f():\n    import cupy"),
        ("arrays", "try:\n    import cupy\nexcept ImportError:\n    cupy = None"),
        ("nn/loss", "class A:\n    import sklearn.datasets"),
    ],
)
def test_a_heavy_import_is_caught(path, text):
    assert len(heavy_imports({**HOUSE, f"refconv/{path}.py": text})) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    import pickle",
        "from joblib import load",
        "np.load('a.npy', allow_pickle=True)",
        "np.load('a.npy', allow_pickle=wanted)",
    ],
)
def test_a_pickle_is_caught(text):
    assert len(pickling({"benchmarks/a.py": text})) == 1
