"""Settings: the engine, CPU threads and scratch memory of calls, inside a block and outside it."""

import asyncio
import contextlib
import contextvars
import os
import threading

import numpy as np
import pytest

import refconv
from refconv import engine, set_engine, set_workers, set_workspace, settings, textbook

SETTINGS = [
    (set_engine, settings.engine, "textbook", "fast"),
    (set_workers, settings.workers, 3, 5),
    (set_workspace, settings.workspace.get, 2**20, 2**21),
]


@pytest.fixture(autouse=True)
def default_engine(monkeypatch):
    monkeypatch.delenv("REFCONV_ENGINE", raising=False)


@pytest.mark.parametrize(("setting", "current", "one", "other"), SETTINGS)
def test_settings_nest_and_are_restored_after_an_exception(setting, current, one, other):
    default = current()
    with setting(one):
        with contextlib.suppress(KeyError), setting(other):
            assert current() == other
            raise KeyError
        assert current() == one
    assert current() == default


@pytest.mark.parametrize(("setting", "current", "one", "other"), SETTINGS)
def test_nothing_is_set_before_the_block(setting, current, one, other):
    default, block = current(), setting(one)
    assert current() == default
    with block:
        assert current() == one


@pytest.mark.parametrize(("setting", "current", "one", "other"), SETTINGS)
def test_a_setting_belongs_to_one_thread(setting, current, one, other):
    default, found = current(), []
    with setting(one):
        for run in (lambda work: work(), contextvars.copy_context().run):
            thread = threading.Thread(target=run, args=(lambda: found.append(current()),))
            thread.start()
            thread.join()
    assert found == [default, one]  # a thread starts with its own context, or with the copy that it receives


@pytest.mark.parametrize(("setting", "current", "one", "other"), SETTINGS)
def test_a_setting_belongs_to_one_asynchronous_task(setting, current, one, other):
    async def task(value):
        with setting(value):
            for _ in range(3):
                await asyncio.sleep(0)
                assert current() == value

    async def both():
        await asyncio.gather(task(one), task(other))

    asyncio.run(both())


def test_defaults():
    assert settings.engine() == "fast"
    assert settings.workers() == settings.cores()
    assert settings.workspace.get() == settings.DEFAULT_WORKSPACE == 64 * 2**20


def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {(pid, core) for core in range(3)}, raising=False)
    assert settings.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert settings.cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert settings.cores() == 1


# --- The engine ---


def test_the_environment_names_the_engine_where_none_is_set(monkeypatch):
    monkeypatch.setenv("REFCONV_ENGINE", "textbook")
    assert settings.engine() == "textbook"
    with set_engine("fast"):
        assert settings.engine() == "fast"
        with set_engine(None):
            assert settings.engine() == "textbook"
    monkeypatch.setenv("REFCONV_ENGINE", "")
    assert settings.engine() == "fast"


def test_an_unknown_engine_in_the_environment_is_an_error_of_the_call(monkeypatch):
    monkeypatch.setenv("REFCONV_ENGINE", "slow")
    x, weight = np.ones((1, 1, 3)), np.ones((1, 1, 2))
    with pytest.raises(ValueError, match=r"^REFCONV_ENGINE must be one of textbook, fast; got 'slow'$"):
        refconv.conv(x, weight)
    with set_engine("fast"):
        assert refconv.conv(x, weight).tolist() == [[[2, 2]]]


@pytest.mark.parametrize("name", ["", "Fast", "textbook ", "numpy"])
def test_an_unknown_engine_is_a_value_error(name):
    with pytest.raises(ValueError, match=f"^name must be one of textbook, fast; got '{name}'$"):
        set_engine(name)


@pytest.mark.parametrize("name", [1, True, b"fast", ["fast"], settings])
def test_an_engine_that_is_not_a_string_is_a_type_error(name):
    with pytest.raises(TypeError, match=r"^name must be a string, one of textbook, fast, or None; got "):
        set_engine(name)


def test_each_engine_computes_numpy_arrays_where_it_is_set():
    assert engine.passes(np).__name__ == "refconv.cpu"
    with set_engine("textbook"):
        assert engine.passes(np) is textbook


def test_other_modules_run_the_textbook():
    strict = pytest.importorskip("array_api_strict")
    with set_engine("fast"):
        assert engine.passes(strict) is textbook


@pytest.mark.parametrize("name", settings.ENGINES)
def test_tasks_and_rows_are_all_done(name):
    tasks, rows = [], []
    with set_engine(name), set_workers(3):
        engine.spread(np, tasks.append, range(9), 2**23)
        engine.spread_rows(np, lambda part: rows.extend(range(part.start, part.stop)), 9, 2**23)
    assert sorted(tasks) == sorted(rows) == list(range(9))


def test_the_textbook_does_tasks_in_order_and_rows_together():
    main, threads, tasks, rows = threading.current_thread(), set(), [], []

    def work(task):
        threads.add(threading.current_thread())
        tasks.append(task)

    with set_engine("textbook"), set_workers(3):
        engine.spread(np, work, range(9), 2**23)
        engine.spread_rows(np, rows.append, 9, 2**23)
    assert tasks == list(range(9))
    assert rows == [slice(0, 9)]
    assert threads == {main}
