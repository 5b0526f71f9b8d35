"""Renting a machine, training there, and giving it back: through a loopback RunPod whose pods are real `sshd`s.

After whatever goes wrong, the adapter is the one that training here gives, or there is a clear error; and no pod is
left. Where the training is not what may go wrong, a prepared one is in its place (`pod_training`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import fake_runpod
import pytest
import yaml
from conftest import demo_rows, socratune, write_rows
from fake_runpod import KEY, FakeRunPod
from forward_proxy import ForwardProxy
from pod_training import hold, train_like, trainings_begun
from runpod import Client, entry_of

from socratune.compute.job import take_lines
from socratune.compute.provider import Offer, Order, Pod
from socratune.compute.renting import Needed, Note, RentedMachine, affordable, paid_hours, spent_usd, unended
from socratune.compute.runpod import RunPod
from socratune.compute.shipping import make_wheel, shipped_config, shipped_results
from socratune.compute.ssh import connected, make_key
from socratune.compute.train_there import keys_for
from socratune.config import RunConfig, WhereConfig
from socratune.errors import OutsideError, UserError
from socratune.llm import UNLIMITED, BudgetSpent, Limits
from socratune.runs import RunDir
from socratune.runs.journal import Journal

needs_sshd = pytest.mark.skipif(fake_runpod.missing() is not None, reason=fake_runpod.missing() or "")
TYPES = 'where.preferred_gpus=["H100 PCIe", "H100 SXM", "A100 SXM"]'
ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that is ready to be trained on."""
    folder = tmp_path_factory.mktemp("prepared")
    train = write_rows(folder / "train.jsonl", demo_rows("train", 40))
    held_out = write_rows(folder / "held_out.jsonl", demo_rows("held_out", 20))
    done = socratune(
        "run", "--model", "demo", "--dataset", train, "--held-out", held_out, "--output", folder / "run",
        "--set", "train.num_train_epochs=4", "--until", "curate",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def here(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, trained on this machine."""
    folder = tmp_path_factory.mktemp("here") / "run"
    shutil.copytree(prepared, folder)
    done = socratune("train", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def run(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "run")


@pytest.fixture
def service() -> Iterator[FakeRunPod]:
    with FakeRunPod() as fake:
        yield fake
    assert fake.contract_faults == []


@pytest.fixture
def prepared_training(service: FakeRunPod, here: Path) -> Iterator[None]:
    """On the pods nothing is trained: what was trained here comes instead."""
    train_like(service, here)
    yield
    assert trainings_begun(service), "nothing was trained, or in earnest"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, service: FakeRunPod) -> RunPod:
    """The client in this process."""
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setattr("socratune.compute.runpod._PAUSES_S", (0.0, 0.0, 0.0))
    return RunPod(service.api_base)


def order(name: str = "socratune-1") -> Order:
    return Order(name, "NVIDIA H100 PCIe", 1, "image", 20, "secure", {"PUBLIC_KEY": "ssh-ed25519 AAAA"})


def is_as_trained_here(run: Path, here: Path) -> None:
    """The same adapter, the same figures of its stage."""
    assert (run / ADAPTER).read_bytes() == (here / ADAPTER).read_bytes()
    described = [json.loads((folder / "adapter/adapter_config.json").read_text()) for folder in (run, here)]
    for one in described:
        one["target_modules"].sort()  # PEFT writes a set
    assert described[0] == described[1]
    there, local = entry_of(run), entry_of(here)
    assert there["status"] == "done"
    for figure in ("rows_in", "rows_out", "steps", "epochs", "best_epoch", "trained_tokens", "students"):
        assert there[figure] == local[figure]
    assert not (run / "remote").exists()


@needs_sshd
@pytest.mark.slow
@pytest.mark.usefixtures("prepared_training")
def test_what_goes_there_and_what_comes_back(run: Path, here: Path, service: FakeRunPod) -> None:
    if reason := fake_runpod.schema_missing():
        print(f"Requests and answers are not compared with RunPod's schema: {reason}.")
    canaries = {"OPENAI_API_KEY": "sk-canary", "HF_TOKEN": "hf_canary", "ANTHROPIC_API_KEY": "ant-canary"}
    client = Client(run, service, **canaries)
    pod_files: set[str] = set()
    environments = b""

    def trains() -> bool:
        nonlocal environments
        pod = service.only_pod()
        home = pod.folder / "home"
        pod_files.update(str(path.relative_to(home / "socratune")) for path in home.glob("socratune/run/*"))
        environments += b"".join(Path(f"/proc/{pid}/environ").read_bytes() for pid in pod.processes())
        return (home / "socratune/jobs/train/exit_code").exists()

    client.until("the end of the training", trains)
    assert client.wait() == 0, client.said()
    assert service.pods == {} and len(service.ended) == 1
    is_as_trained_here(run, here)
    made = {"adapter", "checkpoints", "tensorboard", "trained.rejected.jsonl", "report.html", "run.log", "run.lock"}
    made |= {f"journal.sqlite{end}" for end in ("", "-journal", "-wal", "-shm")} | {"replay.jsonl"}
    sent = {"config.yaml", "pipeline_results.json", "train.jsonl", "dev.jsonl", "held_out.jsonl", "recall.jsonl"}
    seen = {name.removeprefix("run/") for name in pod_files}
    assert sent <= seen and {name for name in seen - sent - made if not name.startswith(".")} == set()
    said = json.dumps(service.seen).encode() + environments + client.said().encode()
    assert not any(canary.encode() in said for canary in canaries.values())
    assert b"RUNPOD_POD_ID" in environments  # else the line before could not fail


def at(name: str) -> Callable[[FakeRunPod, Path], bool]:
    return lambda service, run: (service.only_pod().folder / "home" / "socratune" / name).exists()


def found(pattern: str) -> Callable[[FakeRunPod, Path], bool]:
    return lambda service, run: any((service.only_pod().folder / "home" / "socratune").glob(pattern))


def held(service: FakeRunPod, run: Path) -> bool:
    return service.held.is_set()


KILLED: dict[str, tuple[tuple[str, str] | None, Callable[[FakeRunPod, Path], bool]]] = {
    "while the pod is ordered": (("POST", "/pods"), held),
    "before the pod can be reached": (("GET", "/pods/"), held),
    "when our helper arrives": (None, at("onpod.py")),
    "when the timer is set": (None, at("deadline")),
    "while Socratune is installed": (None, at("jobs/setup/pid")),
    "when the run has arrived": (None, at("run/.shipped")),
    "when the training begins": (None, at("jobs/train/pid")),
    "at the first checkpoint": (None, found("run/checkpoints/step-*")),
    "when a checkpoint is here": (None, lambda service, run: any(run.glob("checkpoints/step-*"))),
    "when the training has ended": (None, at("jobs/train/exit_code")),
    "while the pod is given back": (("DELETE", "/pods/"), held),
}
OFTEN = ("while the pod is given back",)
"""The others belong to the storm: `tests/compute/test_remote_run.py` kills in every phase of a whole run."""


@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.storm) for name in KILLED]
)
@pytest.mark.usefixtures("prepared_training")
def test_a_client_that_is_killed_and_started_again(moment: str, run: Path, here: Path, service: FakeRunPod) -> None:
    service.hold, happens = KILLED[moment]
    first = Client(run, service)
    first.until(moment, lambda: happens(service, run))
    first.process.kill()
    first.process.wait()
    service.go_on.set()
    again = Client(run, service)
    assert again.wait() == 0, again.said()
    assert service.pods == {}
    assert len(service.ended) == 1 or moment == "while the pod is given back"
    assert trainings_begun(service) == len(service.ended) or moment == "while the pod is given back"
    is_as_trained_here(run, here)


@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.storm)])
def test_a_client_that_is_interrupted_gives_the_pod_back(kind: int, run: Path, service: FakeRunPod) -> None:
    client = Client(run, service)
    client.until("the installation", lambda: at("jobs/setup/pid")(service, run))
    client.process.send_signal(kind)
    assert client.wait() == 130, client.said()
    assert service.pods == {} and len(service.ended) == 1


@pytest.mark.storm
@needs_sshd
@pytest.mark.slow
def test_no_capacity_anywhere(run: Path, service: FakeRunPod) -> None:
    service.sold_out = set(fake_runpod.TYPES)
    client = Client(run, service)
    assert client.wait() == 3 and "There are no longer any instances" in client.said()
    assert service.pods == {} and service.ended == []


@pytest.mark.storm
@needs_sshd
@pytest.mark.slow
@pytest.mark.usefixtures("prepared_training")
def test_a_pod_that_never_becomes_ready(run: Path, here: Path, service: FakeRunPod) -> None:
    service.never_ready = {"NVIDIA H100 PCIe"}
    client = Client(run, service, READY_LIMIT_S="10")
    assert client.wait() == 0, client.said()
    assert [pod.body["gpu"]["id"] for pod in service.ended] == ["NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3"]
    assert service.pods == {}
    is_as_trained_here(run, here)


@needs_sshd
@pytest.mark.slow
def test_a_pod_that_dies_and_another_goes_on(run: Path, here: Path, service: FakeRunPod) -> None:
    """Both train in earnest, the second from a checkpoint of the first."""
    client = Client(run, service)
    client.until("a checkpoint here", lambda: any(run.glob("checkpoints/step-*")))
    service.die(service.only_pod())
    assert client.wait() == 0, client.said()
    assert len(service.ended) == 2 and service.pods == {}
    is_as_trained_here(run, here)


@pytest.mark.storm
@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("when the training begins", marks=pytest.mark.storm),
        "at the first checkpoint",
        pytest.param("when the training has ended", marks=pytest.mark.storm),
    ],
)
@pytest.mark.usefixtures("prepared_training")
def test_a_connection_that_is_cut(moment: str, run: Path, here: Path, service: FakeRunPod) -> None:
    client = Client(run, service)
    client.until(moment, lambda: KILLED[moment][1](service, run))
    cuts = 0
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline and service.pods:
        for pid in service.only_pod().sessions():
            cuts += 1
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    assert client.wait() == 0, client.said()
    assert cuts and len(service.ended) == 1 and service.pods == {}
    is_as_trained_here(run, here)


@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize(
    ("size_mb", "said"),
    [
        (1, "could not be set up"),
        pytest.param(2, "the installation of Socratune there failed", marks=pytest.mark.storm),
        pytest.param(10, "train job on the rented machine did", marks=pytest.mark.storm),
    ],
)
def test_a_pod_whose_disk_is_full(size_mb: int, said: str, run: Path, service: FakeRunPod) -> None:
    service.limit_disk_mb = size_mb
    if not fake_runpod.can_mount():
        pytest.skip("no file system of a given size can be mounted here")
    client = Client(run, service)
    assert client.wait() == 3, client.said()
    assert "no space left" in client.said().lower() and "Raise where.disk_gb" in client.said() and said in client.said()
    assert not (run / "adapter").exists() and service.pods == {} and len(service.ended) == 1


@needs_sshd
@pytest.mark.slow
@pytest.mark.usefixtures("prepared_training")
def test_a_service_with_a_bad_day(run: Path, here: Path, service: FakeRunPod) -> None:
    """Refusals, an answer that is lost, and no capacity for the first two types: each type is ordered once."""
    service.fail_next, service.lose_next = [429, 500, 503], 1
    service.sold_out = {"NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3"}
    client = Client(run, service, TYPES)
    assert client.wait() == 0, client.said()
    ordered = [body["gpu"]["id"] for method, _, body in service.seen if method == "POST"]
    assert ordered == ["NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"]
    assert [pod.body["gpu"]["id"] for pod in service.ended] == ordered[2:] and service.pods == {}
    is_as_trained_here(run, here)


@needs_sshd
@pytest.mark.slow
@pytest.mark.usefixtures("prepared_training")
def test_an_adapter_that_is_altered_on_the_way(run: Path, here: Path, service: FakeRunPod) -> None:
    service.alter_next(1)
    client = Client(run, service, SYNC_S="600")  # no look at the checkpoints takes the altered transfer
    assert client.wait() == 0, client.said()
    assert "fetched again" in client.said() and service.pods == {}
    is_as_trained_here(run, here)


@pytest.mark.storm
@needs_sshd
@pytest.mark.slow
@pytest.mark.usefixtures("prepared_training")
def test_an_adapter_that_is_altered_every_time(run: Path, service: FakeRunPod) -> None:
    service.alter_next(99)
    client = Client(run, service)
    assert client.wait() == 3 and "twice different from the rented machine" in client.said()
    assert not (run / "adapter").exists() and service.pods == {} and len(service.ended) == 1


@needs_sshd
@pytest.mark.slow
def test_a_pod_ends_itself_when_nobody_comes_back(run: Path, service: FakeRunPod) -> None:
    client = Client(run, service, f"where.max_hours={6 / 3600}")
    client.until("the timer", lambda: at("deadline")(service, run))
    client.process.kill()
    client.process.wait()
    deadline = time.monotonic() + 90
    while service.pods:
        assert time.monotonic() < deadline, "the pod still bills"
        time.sleep(0.02)
    assert 0 < service.billed_usd() < 0.1


@needs_sshd
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="not installed here: ssh-keygen")
def test_what_is_refused_by_the_catalogue_is_refused_before_anything_is_rented(
    run: Path, service: FakeRunPod, tmp_path: Path
) -> None:
    for name in ("ssh", "rsync"):  # only looked for, and only where the real ones are missing
        (tmp_path / name).touch(0o755)
    client = Client(run, service, "where.preferred_gpus=[H200]", PATH=f"{os.environ['PATH']}:{tmp_path}")
    assert client.wait() == 2
    assert "got H200. Available types:" in client.said()
    assert all(method == "GET" for method, _, _ in service.seen)


@needs_sshd
@pytest.mark.slow
def test_a_small_budget_rents_for_as_long_as_it_pays(run: Path, service: FakeRunPod) -> None:
    client = Client(run, service, "where.max_usd=1.195")  # half an hour at 2.39 USD
    client.until("the timer", lambda: at("deadline")(service, run))
    deadline = float((service.only_pod().folder / "home" / "socratune" / "deadline").read_text())
    assert 1500 < deadline - time.time() < 1800
    client.process.send_signal(signal.SIGINT)
    client.wait()
    assert service.pods == {} and "it ends itself after 0.5 hours" in client.said()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="not installed here: ssh-keygen")
@pytest.mark.parametrize(("paid_for_h", "kind"), [(2, BudgetSpent), (12, OutsideError)])
def test_a_machine_that_has_ended_itself_for_money_says_what_goes_on(
    paid_for_h: int, kind: type[OutsideError], tmp_path: Path, client: RunPod
) -> None:
    run, now = RunDir(tmp_path / "run"), time.time()
    run.create()
    with closing(Journal(run.journal)) as journal:
        journal.put_pod("n", "gone", "rented", 2.0, at=now - 1 - paid_for_h * 3600)
        journal.put_pod("n", "gone", "until", 2.0, at=now - 1)
        limits = Limits(4.0, None, "where", "--max-usd USD")
        machine = RentedMachine(run, WhereConfig(), journal, client, Needed(0, 0), limits)
        machine.pod = Pod("gone", "n", "running", 2.0)
        with pytest.raises(OutsideError) as raised:
            machine.renew(OutsideError("the connection is lost"))
    assert type(raised.value) is kind
    assert ("Raise the limit to continue: --max-usd USD." in str(raised.value)) == (kind is BudgetSpent)


def test_a_lost_answer_rents_once(client: RunPod, service: FakeRunPod) -> None:
    service.never_ready = set(fake_runpod.TYPES)
    service.lose_next = 1
    pod = client.create(order())
    assert service.pods.keys() == {pod.id} and pod.status == "starting"
    assert [method for method, path, _ in service.seen] == ["POST", "GET"]
    client.terminate(pod.id)
    client.terminate(pod.id)  # gone already: nothing happens
    assert client.get(pod.id) is None and client.list() == []


def test_a_body_that_is_not_the_contracts(client: RunPod, service: FakeRunPod) -> None:
    if reason := fake_runpod.schema_missing():
        pytest.skip(reason)
    with pytest.raises(OutsideError, match=r"422.*imageName"):
        client._settled("POST", "/pods", {"name": "x", "imageName": "y", "image": "z"})
    assert service.contract_faults
    service.contract_faults.clear()


def test_the_wait_the_server_asks_for(client: RunPod, service: FakeRunPod) -> None:
    service.fail_next = [429]
    began = time.monotonic()
    assert client.list() == []
    assert time.monotonic() - began >= 1  # Retry-After, where our own pauses are none


def test_a_service_that_stays_ill(client: RunPod, service: FakeRunPod) -> None:
    service.fail_next = [500] * 4
    with pytest.raises(OutsideError, match="RunPod answered 500: Try again"):
        client.list()


def test_the_service_is_asked_through_the_proxy_and_its_answers_have_an_end(
    client: RunPod, service: FakeRunPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy({}, refuses=403) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client.list()  # on this machine: not through the proxy
        assert proxy.seen == []
        with pytest.raises(OutsideError, match="403"):
            RunPod("https://api.example.com/v2").list()
        assert proxy.seen[0].startswith("CONNECT api.example.com:443")
    monkeypatch.setattr("socratune.compute.runpod._LONGEST_ANSWER", 10)
    with pytest.raises(OutsideError, match="more than 10 characters"):
        client.list()


def test_keys(client: RunPod, service: FakeRunPod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "another")
    with pytest.raises(UserError, match="RUNPOD_API_KEY: expected a key that RunPod accepts, got 401"):
        RunPod(service.api_base).list()
    with pytest.raises(UserError, match="the key would be sent in clear"):
        RunPod("http://api.example.com/v2")
    monkeypatch.delenv("RUNPOD_API_KEY")
    with pytest.raises(UserError, match="export RUNPOD_API_KEY"):
        RunPod(service.api_base)


def offers() -> list[Offer]:
    return [
        Offer("NVIDIA H100 PCIe", "H100 PCIe", 80, "HIGH", 2.0),
        Offer("NVIDIA H100 80GB HBM3", "H100 SXM", 80, "NONE", 3.0),
        Offer("NVIDIA GeForce RTX 4090", "RTX 4090", 24, "LOW", 0.5),
    ]


def test_what_is_tried_and_in_which_order() -> None:
    where = WhereConfig(preferred_gpus=["RTX 4090", "H100 SXM", "nvidia h100 pcie"], max_hours=10)
    paid = Limits(usd=25.0, part="where", raised_by="--max-usd USD")
    assert [offer.name for offer in affordable(offers(), where, 20, 10, 0, paid)] == ["RTX 4090", "H100 PCIe"]
    assert [offer.name for offer in affordable(offers(), where, 70, 10, 0, paid)] == ["H100 PCIe"]
    with pytest.raises(UserError, match="GPUs with 200 GB together") as raised:
        affordable(offers(), where, 200, 10, 0, UNLIMITED)
    assert "80 GB" in str(raised.value)
    pcie = where.model_copy(update={"preferred_gpus": ["H100 PCIe"]})
    assert affordable(offers(), pcie, 70, 8, 9, paid)  # 16 USD are left, for 8 hours of the 10
    with pytest.raises(UserError, match=r"at most 25 USD for the 9 hours .* H100 PCIe 18.00 USD beside 9.00 spent"):
        affordable(offers(), pcie, 70, 9, 9, paid)
    with pytest.raises(OutsideError, match=r"No machine is free with 1 x H100 SXM\."):
        affordable(offers(), where.model_copy(update={"preferred_gpus": ["H100 SXM"]}), 70, 1, 0, UNLIMITED)
    with pytest.raises(UserError, match=r"got H200\. Available types: H100 PCIe, H100 SXM, RTX 4090"):
        affordable(offers(), where.model_copy(update={"preferred_gpus": ["H200"]}), 70, 1, 0, paid)


@pytest.mark.parametrize(
    ("usd_per_hour", "spent", "limit", "hours"),
    [(2.5, 0, 5, 2), (2.5, 4, 5, 0.4), (2.5, 6, 5, 0), (2.5, 0, 100, 12), (2.5, 99, None, 12), (0, 0, 5, 12)],
)
def test_a_machine_is_rented_for_as_long_as_it_can_be_paid(
    usd_per_hour: float, spent: float, limit: float | None, hours: float
) -> None:
    assert paid_hours(usd_per_hour, WhereConfig(), spent, limit) == pytest.approx(hours)


def test_the_journal_knows_what_was_spent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    for note in [
        ("n", None, "wanted", 2.0),
        ("n", "a", "rented", 2.0),
        ("n", "b", "rented", 9.0),
        ("n", "b", "ended", 9.0),
    ]:
        journal.put_pod(*note)
    journal.close()
    notes = Journal(tmp_path / "journal.sqlite").pods()
    assert [note[1:4] for note in notes[:2]] == [("n", None, "wanted"), ("n", "a", "rented")]
    assert unended(notes) == {"a"}
    hour_ago = [(at - 3600, *rest) for at, *rest in notes]
    assert spent_usd(hour_ago, 12) == pytest.approx(2.0, abs=0.01)  # type: ignore[arg-type]
    now = notes[0][0]
    adopted = [
        (now - 7200, "n", None, "wanted", 2.0),
        (now - 3600, "n", "c", "adopted", 2.0),
        (now, "n", "c", "adopted", 2.0),
    ]
    assert spent_usd(adopted, 12) == pytest.approx(2.0, abs=0.01)  # killed before it could note what it had rented
    ended_itself: list[Note] = [
        (now - 36000, "n", "d", "rented", 2.0),
        (now - 32400, "n", "d", "until", 2.0),
        (now, "n", "d", "ended", 0.0),
    ]
    assert spent_usd(ended_itself, 12) == pytest.approx(2.0, abs=0.01)  # nobody was there when it ended


def test_lines_of_a_progress_bar() -> None:
    heard = bytearray()
    text = "a\n10%\r20%\r30%\r\nhalf é".encode()
    lines: list[str] = []
    for at_byte in range(len(text)):  # cut anywhere, in a character too
        heard += text[at_byte : at_byte + 1]
        lines += take_lines(heard)
    assert lines == ["a", "30%"] and heard.decode() == "half é"
    heard = bytearray(b"10%\r" * 50_000)
    assert take_lines(heard) == [] and len(heard) < 100


def test_what_of_the_configuration_travels() -> None:
    config = RunConfig.model_validate(
        {
            "model": "/models/mine", "dataset": "/home/me/client.jsonl", "output": "out", "hub_id": "me/x",
            "enhance": {"teacher_model": "openai/m", "teacher_api_base": ["https://user:secret@host/v1"]},
            "train": {"r": 32, "model_name": "/models/mine"}, "generate": {"source": None}, "where": {"gpu_count": 2},
        }
    )  # fmt: skip
    sent = shipped_config(config, "/root/socratune/model")
    text = yaml.safe_dump(sent)
    assert "secret" not in text and "client" not in text and "/models" not in text and "hub_id" not in sent
    back = RunConfig.model_validate(sent)
    assert back.train.r == 32 and back.model == "/root/socratune/model" and back.where.gpus == 2
    assert back.where.place == "local"  # it does not rent a machine itself
    told = shipped_results({"stages": {"curate": {"students": ["x"], "dropped": {}}, "split": {"rows": 1}}})
    assert told["stages"] == {"enhance": {}, "curate": {"students": ["x"]}}


def test_the_keys_that_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "RUNPOD_API_KEY"):
        monkeypatch.setenv(name, "canary")
    assert keys_for(WhereConfig()) == {}
    assert keys_for(WhereConfig(send_hf_token=True)) == {"HF_TOKEN": "canary"}


@pytest.mark.slow
def test_the_wheel_is_this_package(tmp_path: Path) -> None:
    first, second = make_wheel(tmp_path), make_wheel(tmp_path / ".." / tmp_path.name)
    assert first.read_bytes() == second.read_bytes()
    target = tmp_path / "site"
    pip = [os.sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target, first]  # type: ignore[attr-defined]
    subprocess.run(pip, check=True)
    source = Path(make_wheel.__code__.co_filename).parent.parent
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (target / "socratune" / path.relative_to(source)).read_bytes() == path.read_bytes()
    assert (target / "bin" / "socratune").exists()
    assert "Requires-Dist: torch" in zipfile.ZipFile(first).read("socratune-0.1.0.dist-info/METADATA").decode()


@needs_sshd
@pytest.mark.slow
def test_words_reach_the_other_shell_as_they_are(tmp_path: Path, client: RunPod, service: FakeRunPod) -> None:
    folder = tmp_path / 'a folder; $(touch pwned) "%h"'
    public = make_key(folder / "id", "test")
    pod = client.create(Order("n", "NVIDIA H100 PCIe", 1, "i", 20, "secure", {"PUBLIC_KEY": public}))
    while (ready := client.get(pod.id)) is None or ready.host is None:
        time.sleep(0.05)
    awkward = ["a b", "$(touch /tmp/pwned)", "`id`", "'", '"', "\\", "é\n;x", "*", "~", ""]
    with connected(ready.host, ready.port, ready.user, folder / "id", folder / "known_hosts") as ssh:
        asking = "import json, sys; print(json.dumps(sys.argv[1:]))"
        assert json.loads(ssh.run(["python3", "-c", asking, *awkward])) == awkward
        home = ssh.run(["printenv", "HOME"]).strip()
        (tmp_path / "$(x) ;y").mkdir()
        (tmp_path / "$(x) ;y" / "z 'q'").write_text("content")
        ssh.push([tmp_path / "$(x) ;y"], f"{home}/to there")
        ssh.fetch([f"{home}/to there/$(x) ;y"], tmp_path / "back")
        assert (tmp_path / "back" / "$(x) ;y" / "z 'q'").read_text() == "content"
    assert folder.stat().st_mode & 0o777 == 0o700 and (folder / "known_hosts").read_text().startswith("[127.0.0.1]")


@pytest.mark.storm
@needs_sshd
@pytest.mark.slow
def test_a_tunnel_that_is_made_again(tmp_path: Path, client: RunPod, service: FakeRunPod) -> None:
    public = make_key(tmp_path / "id", "test")
    pod = client.create(Order("n", "NVIDIA H100 PCIe", 1, "i", 20, "secure", {"PUBLIC_KEY": public}))
    while (ready := client.get(pod.id)) is None or ready.host is None:
        time.sleep(0.05)
    remote_port = int(service.api_base.rsplit(":", 1)[1].split("/")[0])  # pod and service are one machine here

    def asked() -> int:
        with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/v2/pods")
            with connection.getresponse() as answer:
                answer.read()
                return answer.status

    def answers() -> int:
        deadline = time.monotonic() + 20
        while True:
            try:
                return asked()
            except (OSError, HTTPException):
                assert time.monotonic() < deadline
                time.sleep(0.05)

    with (
        connected(ready.host, ready.port, ready.user, tmp_path / "id", tmp_path / "known_hosts") as ssh,
        ssh.tunnel(remote_port) as port,
    ):
        assert answers() == 401
        for pid in service.only_pod().sessions():
            os.kill(pid, signal.SIGKILL)
        assert answers() == 401
    with pytest.raises(OSError):
        asked()


@needs_sshd
@pytest.mark.slow
@pytest.mark.usefixtures("prepared_training")
def test_pods_are_listed_reaped_and_taken_over(run: Path, here: Path, service: FakeRunPod) -> None:
    flags = ("--api-base", service.api_base)
    key = {"RUNPOD_API_KEY": KEY}
    hold(service).touch()
    client = Client(run, service)
    client.until("the training", lambda: at("run/checkpoints/made_for.json")(service, run))
    pod = service.only_pod()
    shown = socratune("pods", "list", *flags, env=key)
    assert shown.returncode == 0 and pod.id in shown.stdout and "in use" in shown.stdout
    assert "0 given back" in socratune("pods", "reap", "--yes", *flags, env=key).stdout and service.pods
    client.process.kill()
    client.process.wait()
    assert "unused" in socratune("pods", "list", *flags, env=key).stdout
    asked = socratune("pods", "reap", *flags, env=key)
    assert asked.returncode == 2 and "--yes" in asked.stderr and service.pods  # nobody answers
    for journal in run.glob("journal.sqlite*"):
        journal.unlink()
    taken = socratune("pods", "adopt", pod.id, run, *flags, env=key)
    assert taken.returncode == 0, taken.stderr
    hold(service).unlink()
    again = Client(run, service)
    assert again.wait() == 0, again.said()
    assert len(service.ended) == 1 and service.pods == {} and trainings_begun(service) == 1
    is_as_trained_here(run, here)
    pod_elsewhere = service.make({**pod.body, "name": "socratune-x", "env": {"SOCRATUNE_HOST": "another"}})
    idle = {"SOCRATUNE_HOST": socket.gethostname(), "SOCRATUNE_FOLDER": "/no/such/run"}
    service.make({**pod.body, "name": "socratune-y", "env": idle})
    service.make({**pod.body, "name": "socratune-by-hand", "env": {}})
    service.make({**pod.body, "name": "someone-else", "env": {}})
    assert "1 given back" in socratune("pods", "reap", "--yes", *flags, env=key).stdout
    left = {one.body["name"] for one in service.pods.values()}
    assert left == {"socratune-x", "socratune-by-hand", "someone-else"}
    assert "2 given back" in socratune("pods", "reap", "--yes", "--all", *flags, env=key).stdout
    assert pod_elsewhere.id not in service.pods
