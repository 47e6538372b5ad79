"""AlexNet's towers in processes of their own: the numbers of one process, counted messages, and lost workers."""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.distributed import ClusterError, RemoteTowers, TowerLostError, open_cluster, tower
from refconv.distributed.cluster import _unreachable, addresses
from refconv.distributed.report import (
    TowersSettings,
    count_crossings,
    predicted_bytes,
    received_bytes,
    run_single,
    run_towers,
    tower_costs,
)
from refconv.distributed.towers import RemoteSGD
from refconv.distributed.whole import begin_whole, largest_sum, sparse_whole, watched, whole_gradient
from refconv.nn import SGD, Parameter, Sequential, SoftmaxCrossEntropy, accuracy, alexnet
from tests.helpers import long
from tests.nn_helpers import rng

pytest.importorskip("distributed", reason="Dask distributed is not installed")

TINY: dict[str, Any] = {"side": 63, "width": 1 / 16, "classes": 10}


def tiny(towers: int | str = 2, **more: Any) -> TowersSettings:
    return TowersSettings(**({"towers": towers, "batch": 3, "steps": 3} | TINY | more))


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with open_cluster(2) as client:
        yield client


def remote(client: Any, settings: TowersSettings) -> RemoteTowers:
    weights, dropout, _ = settings.generators()
    options = settings.options | {"rng": weights, "dropout_rng": dropout}
    return RemoteTowers(client, settings.towers, **options, whole=settings.whole)


def single(settings: TowersSettings) -> tuple[Sequential, np.random.Generator]:
    weights, dropout, _ = settings.generators()
    model = alexnet(settings.towers, **settings.options, rng=weights, dropout_rng=dropout)
    if settings.whole:
        begin_whole(model)
        model = Sequential(**watched(model.children()))
    return model, dropout


def train(model: Any, optimiser: Any, settings: TowersSettings) -> list[float]:
    """Take every step, and return the losses."""
    loss, losses = SoftmaxCrossEntropy(), []
    for images, labels in settings.batches():
        losses.append(loss.forward(model.forward(images), labels))
        grad = loss.backward()
        model.backward(whole_gradient(grad) if settings.whole else grad)
        optimiser.step()
        if settings.whole and isinstance(optimiser, SGD):
            sparse_whole(model.parameters())
    return losses


def refused(kind: type[Exception], message: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=message):
        call()


# --- The numbers of one process ---


@pytest.mark.parametrize("towers", [long(1), long(2), "log:3", long(4)])
def test_whole_numbers_agree_bit_for_bit(client: Any, towers: int | str) -> None:
    settings = tiny(towers, whole=True, width=1 / 8)
    model, dropout = single(settings)
    optimiser = SGD(model.parameters(), lr=1.0, momentum=0.5)
    losses = train(model, optimiser, settings)
    with remote(client, settings) as split:
        own = RemoteSGD(split, lr=1.0, momentum=0.5)
        assert train(split, own, settings) == losses
        assert len(set(losses)) == len(losses)
        theirs, velocities = split.state(), own.state()
        images, _ = next(settings.batches())
        np.testing.assert_array_equal(split.eval().forward(images), model.eval().forward(images))
        assert split._rng.bit_generator.state == dropout.bit_generator.state
    assert list(theirs) == list(model.state())
    for path, array in model.state().items():
        np.testing.assert_array_equal(array, theirs[path], err_msg=path)
        assert set(np.unique(array)) <= {-1, 0, 1}
    assert velocities.keys() == optimiser.state().keys()
    for name, array in optimiser.state().items():
        np.testing.assert_array_equal(array, velocities[name], err_msg=name)
        assert np.any(array), name
    assert 1 < largest_sum(model) < 2**53


@pytest.mark.parametrize("towers", [2, long("log:3")])
def test_real_numbers_agree_to_rounding(client: Any, towers: int | str) -> None:
    settings = tiny(towers)
    model, _ = single(settings)
    losses = train(model, SGD(model.parameters(), lr=0.01, weight_decay=0.0005), settings)
    with remote(client, settings) as split:
        np.testing.assert_allclose(
            train(split, RemoteSGD(split, lr=0.01, weight_decay=0.0005), settings), losses, rtol=1e-5
        )
        theirs = split.state()
    for path, array in model.state().items():
        np.testing.assert_allclose(theirs[path], array, rtol=0, atol=1e-5 * np.abs(array).max(), err_msg=path)


def test_states_go_both_ways(client: Any) -> None:
    settings = tiny("log:3", whole=True)
    model, _ = single(settings)
    optimiser = SGD(model.parameters(), lr=1.0, momentum=0.5)
    with remote(client, settings) as split:
        own = RemoteSGD(split, lr=1.0, momentum=0.5)
        train(split, own, settings)
        model.load_state(split.state())
        optimiser.load_state(own.state())
        more = tiny("log:3", whole=True, seed=7)
        losses = train(model, optimiser, more)
        begin_whole(model)  # other numbers, to send back
        split.load_state(model.state())
        own.load_state(optimiser.state())
        for path, array in split.state().items():
            np.testing.assert_array_equal(array, model.state()[path], err_msg=path)
        for name, array in own.state().items():
            np.testing.assert_array_equal(array, optimiser.state()[name], err_msg=name)
        assert len(losses) == 3


def test_a_learning_rate_that_changes_scales_the_velocities(client: Any) -> None:
    settings = tiny(whole=True)
    model, _ = single(settings)
    optimiser = SGD(model.parameters(), lr=1.0, momentum=0.5)
    with remote(client, settings) as split:
        own = RemoteSGD(split, lr=1.0, momentum=0.5)
        for rule, net in ((optimiser, model), (own, split)):
            train(net, rule, settings)
            rule.change_lr(0.25)
            train(net, rule, settings)
        for name, array in own.state().items():
            np.testing.assert_array_equal(array, optimiser.state()[name], err_msg=name)


def test_accuracy_is_that_of_one_process(client: Any) -> None:
    settings = tiny(whole=True)
    model, _ = single(settings)
    images = rng(1).integers(-1, 2, (40, 3, 63, 63)).astype("float64")
    labels = model.eval().forward(images).argmax(axis=1)
    labels[::4] += 1
    labels %= 10
    with remote(client, settings) as split:
        assert accuracy(split, images, labels, batch_size=16) == accuracy(model, images, labels) == 0.75
        assert split.training
        refused(RuntimeError, "RemoteTowers.backward needs a forward", lambda: split.backward(np.zeros((8, 10))))


def test_another_array_module_on_the_workers(client: Any) -> None:
    pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    settings = tiny(whole=True, steps=2)
    weights, dropout, _ = settings.generators()
    options = settings.options | {"rng": weights, "dropout_rng": dropout}
    with RemoteTowers(client, 2, **options, whole=True, backend="array_api_strict") as split:
        model, _ = single(settings)
        own = RemoteSGD(split, lr=1.0, momentum=0.5)
        assert train(split, own, settings) == train(model, SGD(model.parameters(), lr=1.0, momentum=0.5), settings)


# --- Messages and memory ---


@pytest.mark.parametrize("towers", [long(2), "log:3", long(4)])
def test_messages_are_as_counted(client: Any, towers: int | str) -> None:
    settings = tiny(towers, width=1 / 8)
    result = run_towers(client, settings)
    costs = tower_costs(settings)
    assert sum(cost.parameters for cost in costs) == sum(p.value.size for p in single(settings)[0].parameters())
    for crossing in result.crossings:
        assert crossing.received == crossing.outputs + crossing.gradients
    counted = received_bytes(settings, costs, result.workers)
    assert result.received == [counted[worker] for worker in result.workers]
    assert len(set(result.workers)) == 2
    single_run = run_single(settings, 1)
    np.testing.assert_allclose(result.losses, single_run["losses"], rtol=1e-5)
    for t, shares in enumerate(result.shares()):
        assert shares["computing"] > 0
        assert shares["waiting_for"][t] == 0
        total = shares["computing"] + sum(shares["waiting_for"]) + shares["messages"]
        assert total == pytest.approx(result.seconds_per_step)


def test_the_paper_s_crossing_is_counted_by_hand() -> None:
    settings = TowersSettings()
    costs = tower_costs(settings)
    assert sum(cost.parameters for cost in costs) == 60_965_224
    first, *others = count_crossings(settings, costs, ["a", "b"])
    assert first == ("pool2", "conv3", 2 * 16 * 128 * 13 * 13 * 4, 2 * 16 * 128 * 13 * 13 * 4, 0)
    assert [crossing.outputs for crossing in others] == [16 * 4 * n for n in (256 * 6 * 6, 4096, 4096)]
    assert count_crossings(settings, costs, ["a", "a"])[0].outputs == 0
    # Two of three towers on one worker: it receives the outputs of tower 1 once, and hands over its own two.
    log = TowersSettings(towers="log:3")
    (first, *_) = count_crossings(log, tower_costs(log), ["a", "b", "a"])
    assert (first.outputs, first.gradients) == (16 * 4 * 169 * 256, 16 * 4 * 169 * (2 * 64 + 128 + 64))
    # The other worker receives the outputs of both, and from each of them a gradient of its own.
    large, small = 205 * 128 + 2 * 2048, 205 * 64 + 2 * 1024
    assert received_bytes(log, tower_costs(log), ["a", "b", "a"])["b"] == 16 * 4 * (large + small + 2 * small)


def test_prediction_is_the_cost_of_one_of_equal_towers() -> None:
    from refconv.cost import alexnet as alexnet_cost

    (mine, _), theirs = predicted_bytes(TowersSettings(batch=128)), alexnet_cost().memory(128, towers=2).predicted
    assert theirs - mine == 128 * 4 * 3 * (227**2 - 224**2)  # images of 224×224, padded by conv1, here


# --- Lost workers and wrong clusters ---


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
@pytest.mark.parametrize("moment", [long("between steps"), "in a step"])
def test_a_killed_worker_is_one_clear_error(moment: str) -> None:
    settings = tiny()
    with open_cluster(2) as client, remote(client, settings) as split:
        pids = client.run(os.getpid)
        optimiser = RemoteSGD(split, lr=0.01)
        train(split, optimiser, settings)

        def kill() -> None:
            os.kill(pids[split.workers[1]], signal.SIGKILL)

        if moment == "between steps":
            kill()
        else:
            threading.Timer(0.05, kill).start()
        many = tiny(steps=300)
        with pytest.raises(TowerLostError, match=r"^the worker of tower 1, tcp://127\.0\.0\.1:\d+, ended$") as caught:
            train(split, optimiser, many)
        assert (caught.value.towers, caught.value.worker) == ((1,), split.workers[1])
        for call in (split.received, lambda: split.run(os.getpid)):  # not tasks
            refused(TowerLostError, "^the worker of tower 1, ", call)


@pytest.mark.skipif(os.name != "posix", reason="a worker is ended by a signal")
def test_a_worker_beyond_its_memory_limit_is_one_clear_error() -> None:
    settings = TowersSettings(batch=1, steps=200, side=63, classes=10)
    with open_cluster(1, memory_limit="250MiB") as client:
        with pytest.raises(TowerLostError) as caught:
            run_towers(client, settings)
        expected = r"the worker of towers 0, 1, tcp://\S+, ended; its memory limit is 0\.24 GiB, and 0\.\d\d GiB are"
        assert re.match(expected, str(caught.value))


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="a worker is ended by a signal")
def test_a_memory_limit_too_small_to_start() -> None:
    """The limit is checked ten times per second, so a worker may start before it is ended."""
    with pytest.raises((ClusterError, TowerLostError)) as caught, open_cluster(1, memory_limit="20MiB") as client:
        run_towers(client, tiny(steps=1000))
    expected = (
        r"a worker ended while the cluster started: a memory limit of 20 MiB may be too small$|worker \S+ has just"
    )
    assert re.match(f"{expected}|the worker of towers 0, 1, ", str(caught.value))


def test_the_reason_is_one_line_and_the_first_cause_that_has_words() -> None:
    refusal = ConnectionRefusedError(111, "Connection refused")
    for cause, reason in (
        (TimeoutError(), "no answer"),
        (OSError("port 9\nclosed"), "port 9"),
        (refusal, refusal.strerror),
    ):
        error = OSError("no answer")
        error.__cause__ = cause
        assert str(_unreachable("tcp://x:1", error)) == f"no Dask scheduler can be reached at tcp://x:1: {reason}"


def test_waiting_that_ends_with_the_client_is_not_shown(client: Any) -> None:
    from distributed.client import AllExit

    logger = logging.getLogger("asyncio")
    for error, shown in ((AllExit(), False), (ValueError("x"), True)):
        record = logger.makeRecord("asyncio", logging.ERROR, "", 1, "", (), (type(error), error, None))
        assert bool(logger.filter(record)) is shown


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal masks")
def test_ctrl_c_ends_this_process_only(client: Any) -> None:
    for blocked in client.run(signal.pthread_sigmask, signal.SIG_BLOCK, []).values():
        assert signal.SIGINT in blocked
    assert set(client.run(signal.getsignal, signal.SIGINT).values()) == {signal.SIG_IGN}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_scheduler_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refconv.distributed.cluster.SECONDS_TO_CONNECT", 0.3)
    for address in ("tcp://127.0.0.1:9", "nonsense://x:1", "127.0.0.1:port"):
        with (
            pytest.raises(
                ClusterError, match=f"^no Dask scheduler can be reached at {re.escape(address)}: ."
            ) as caught,
            open_cluster(scheduler=address),
        ):
            pytest.fail("connected")
        assert "\n" not in str(caught.value)


def test_other_servers_are_not_taken_for_a_scheduler(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's client would wait for a server that says nothing."""
    monkeypatch.setattr("refconv.distributed.cluster.SECONDS_TO_CONNECT", 1)
    worker = addresses(client)[0]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for address, message in (
            (worker, f"no Dask scheduler is at {worker}, but a worker"),
            (f"tcp://127.0.0.1:{port}", f"no Dask scheduler answers at tcp://127.0.0.1:{port}"),
        ):
            started = time.monotonic()
            with pytest.raises(ClusterError, match=f"^{re.escape(message)}$"), open_cluster(scheduler=address):
                pytest.fail("connected")
            assert time.monotonic() - started < 10


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
def test_a_worker_that_is_killed_while_the_cluster_starts_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    class Killing(distributed.Client):  # type: ignore[misc]
        def __init__(self, cluster: Any, **options: Any) -> None:
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
            while len(cluster.scheduler.workers) == 2:
                time.sleep(0.01)
            super().__init__(cluster, **options)

    monkeypatch.setattr("distributed.Client", Killing)
    with open_cluster(2) as client:
        assert len(addresses(client)) == 2


def test_a_new_process_with_the_address_of_a_lost_one_has_no_towers(client: Any) -> None:
    settings = tiny()
    with remote(client, settings) as split:
        train(split, RemoteSGD(split, lr=0.01), settings)
        client.run(tower.drop, split._network)
        for call in (split.state, split.worked, lambda: train(split, RemoteSGD(split, lr=0.01), settings)):
            refused(TowerLostError, r"^the worker of tower [01], tcp://127\.0\.0\.1:\d+, ended$", call)


def test_a_scheduler_that_ends_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr("refconv.distributed.cluster.SECONDS_TO_CONNECT", 3)
    settings, options = tiny(), {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "protocol": "tcp://"}
    cluster = LocalCluster(n_workers=1, processes=False, **options)
    with open_cluster(scheduler=cluster.scheduler_address) as client, remote(client, settings) as split:
        cluster.close()
        refused(
            TowerLostError, r"^(the Dask scheduler of towers 0, 1 does not answer|the worker of towers)", split.state
        )


def test_images_are_drawn_step_by_step() -> None:
    images, labels = next(TowersSettings(steps=10**12, batch=2, side=63).batches())
    assert (images.shape, labels.shape) == ((2, 3, 63, 63), (2,))


def test_absurd_measurements_are_refused_before_any_work() -> None:
    for given, message in (
        ({"batch": 10**11}, "batch=100000000000, side=224: the array of a step's images would need"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"towers": "log:20"}, "towers=log:20 must fit every layer: n=20 logarithmic groups need"),
    ):
        refused(ValueError, f"^{re.escape(message)}", lambda given=given: tower_costs(TowersSettings(**given)))


def test_a_running_scheduler_and_one_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr("refconv.distributed.cluster.SECONDS_TO_CONNECT", 5)
    options: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "protocol": "tcp://"}
    with LocalCluster(n_workers=1, processes=False, **options) as cluster:
        settings = tiny(whole=True)
        with open_cluster(scheduler=cluster.scheduler_address) as client:
            result = run_towers(client, settings)
            assert result.workers == tuple(2 * addresses(client))
            assert result.losses == run_single(settings, 1)["losses"]
            assert sum(result.received) == 0
    monkeypatch.setattr("refconv.distributed.cluster.SECONDS_TO_CONNECT", 0.5)
    with (
        LocalCluster(n_workers=0, **options) as cluster,
        pytest.raises(ClusterError, match=r"has no workers: start dask worker tcp://127"),
        open_cluster(scheduler=cluster.scheduler_address),
    ):
        pytest.fail("opened")


def test_wrong_arguments() -> None:
    """The call refuses them: nothing is entered."""
    refused(ValueError, r"^workers or scheduler must be given", open_cluster)
    refused(ValueError, r"^workers or scheduler must be given", lambda: open_cluster(1, "tcp://x:1"))
    refused(ValueError, r"^memory_limit needs workers", lambda: open_cluster(scheduler="tcp://x:1", memory_limit=1))
    refused(
        ValueError, r"^memory_limit must be a number of bytes .*'lots'", lambda: open_cluster(1, memory_limit="lots")
    )
    refused(ValueError, r"^memory_limit must be at least 1048576", lambda: open_cluster(1, memory_limit=1))
    refused(ValueError, r"^workers must be at least 1", lambda: open_cluster(0))
    for address in ("", 8786):
        refused(
            ValueError, rf"^scheduler must be an address .*{address!r}$", functools.partial(open_cluster, None, address)
        )


# --- Whole numbers ---


def test_weights_stay_sparse_and_whole() -> None:
    w = Parameter("weight", np.array([-1.0, 0.0, 1.0, 0.5, -0.5, 32.0, 33.5, 96.2, -31.0, 7.0, 1e300]))
    sparse_whole([w])
    np.testing.assert_array_equal(w.value, [-1, 0, 1, 0, 0, 1, -1, 1, -1, 0, 0])
    np.testing.assert_array_equal(whole_gradient(np.array([[0.2, -0.3], [0.01, 0.5]])), [[3, -5], [0, 8]])


def test_sums_that_may_round_are_refused() -> None:
    model, _ = single(tiny(whole=True))
    model.layers[0].parameters()[0].value *= 2.0**50
    model.forward(next(tiny(whole=True).batches())[0])
    assert largest_sum(model) > 2**53


def test_dropped_elements_are_those_of_the_whole_layer() -> None:
    from refconv.nn import Dropout
    from refconv.nn.dropout import DropoutShare, draw_key

    x = rng(3).normal(size=(5, 12))
    whole = Dropout(0.3, rng=rng(1)).forward(x)
    key = draw_key(rng(1))
    for start, stop in ((0, 5), (5, 12)):
        share = DropoutShare(0.3, start=start, features=12)
        share.key = key
        np.testing.assert_array_equal(share.forward(x[:, start:stop]), whole[:, start:stop])
    assert np.any(whole == 0)


def test_nothing_listens_beyond_this_machine(client: Any) -> None:
    import psutil

    this = psutil.Process()
    found = [c.laddr.ip for p in (this, *this.children(recursive=True)) for c in p.net_connections() if not c.raddr]
    assert set(found) == {"127.0.0.1"}


def test_every_process_ends() -> None:
    with open_cluster(2) as client:
        pids = list(client.run(os.getpid).values())
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
