"""Loggers beside the record: several at once, live, offline, continued; what fails or hangs stops nothing."""

import json
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import LITTLE, rows, summary, train

from dltrain import loggers
from dltrain.cli import main
from dltrain.engine import Engine
from dltrain.loggers import several
from dltrain.loggers.several import Loggers
from dltrain.verbs.completion import candidates

SHORT = ("model=mlp", "data.image_size=28", "trainer.epochs=2", "trainer.limit_train_batches=3", "trainer.log_every=1")
CHECKOUT = Path(__file__).parents[1]
LIVE = (CHECKOUT / "docs/live.md").read_text()
OFFLINE = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "NETRC": "/nowhere"}
OWN = '''
seen = []


class Own:
    """A logger that may fail in one of its calls."""

    def __init__(self, *, fails: str = ""):
        self.fails = fails
        self._reach("make")

    def _reach(self, call, *arguments):
        if call == self.fails:
            raise OSError(f"no\\nway to {call}")
        seen.append((call, *arguments))

    def start(self, folder, *, name, config):
        self._reach("start", folder, name, config)
        return "in memory"

    def add(self, row):
        self._reach("add", row)

    def close(self, status):
        self._reach("close", status)
'''


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Nobody looks at the pictures, nothing asks for a key or calls home."""
    monkeypatch.setattr("dltrain.report.run_pictures.draw_run", lambda folder: None)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(monkeypatch):
    """Where everything that wants the network would go; nothing may come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
        yield
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.fixture
def own(monkeypatch, tmp_path):
    """A package that offers a logger, as if `pip install` had been run on it; yields its calls."""
    metadata = tmp_path / "site/own_logger-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Name: own-logger\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[dltrain.loggers]\nown = own_logger:Own\n")
    (tmp_path / "site/own_logger.py").write_text(OWN)
    Path("conf/logger").mkdir(parents=True)
    for option in ("own", "other"):
        text = f"# @package logger.{option}\n# a logger of one's own\nname: own\nfails: ''\n"
        Path(f"conf/logger/{option}.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    import own_logger

    yield own_logger.seen
    del sys.modules["own_logger"]


def wait_until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_installed_logger_gets_the_beginning_every_row_and_the_end(own, capsys):
    folder = train(*SHORT, "--config-dir", "conf", "logger=own")
    (_, (start, where, name, config), *adds, close) = own
    assert (start, where.resolve(), name, close) == ("start", folder, "run", ("close", "completed"))
    assert config["logger"] == {"own": {"name": "own", "fails": ""}}
    assert [row for _, row in adds] == rows(folder)
    assert "logger  own: in memory" in capsys.readouterr().out


@pytest.mark.parametrize("call", ["make", "start", "add", "close"])
def test_a_logger_that_fails_is_said_once_and_the_others_go_on(own, call, capsys):
    words = ("logger=[own,other]", f"logger.own.fails={call}")
    folder = train(*SHORT, "--config-dir", "conf", *words)
    told = [line for line in capsys.readouterr().out.splitlines() if "own" in line and "failed" in line]
    line = f"note: logger=own failed and is left out from here on; training goes on: OSError: no way to {call}"
    assert told == [line]
    assert line.split(": ")[1] in " ".join((folder / "train.log").read_text().split())
    assert summary(folder)["status"] == "completed"
    others = [row for call, *row in own if call == "add"]
    assert len(others) == len(rows(folder)) * (2 if call == "close" else 1)
    assert own[-1] == ("close", "completed")


def test_a_logger_that_hangs_holds_nothing_up():
    class Hanging:
        def start(self, folder, *, name, config):
            threading.Event().wait()

    told, slow = [], Loggers()
    slow.include("slow", Hanging)
    slow.start(told.append, Path(), name="run", config={})
    begun = time.monotonic()
    slow.add({"split": "train", "step": 1})
    slow.close("completed", patience=0.2)
    assert time.monotonic() - begun < 2
    assert told == ["note: logger=slow has not finished after 0.2 s and is left behind"]


def test_a_library_that_hangs_does_not_keep_the_process(own, tmp_path):
    hanging = "import threading\nclass Own:\n    def __init__(self, *, fails=''): ...\n    def start(self, *_, **__):\n"
    hanging += "        threading.Thread(target=threading.Event().wait).start()\n        threading.Event().wait()\n"
    (tmp_path / "site/own_logger.py").write_text(hanging)
    words = [*LITTLE, *SHORT, "--config-dir", "conf", "logger=own", "trainer.grace_seconds=1", "name=run"]
    paths = {"PYTHONPATH": f"{CHECKOUT}:{tmp_path / 'site'}"}
    command = [sys.executable, "-m", "dltrain", *words]
    done = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("note: logger=own has not finished after 0.5 s and is left behind\n")
    assert summary(Path("outputs/runs/run"))["status"] == "completed"


@pytest.mark.parametrize("where", ["/dev/null/store", "/dev/full"])
def test_a_place_that_takes_nothing_costs_the_logger_alone(where, capsys):
    pytest.importorskip("mlflow")
    folder = train(*SHORT, "logger=mlflow", f"logger.mlflow.tracking_uri={where}")
    assert capsys.readouterr().out.count("note: logger=mlflow failed") == 1
    assert len(rows(folder, "val")) == 2


@pytest.mark.parametrize(
    ("option", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow-skinny")]
)
def test_a_missing_package_is_refused_with_what_to_install(option, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, option, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    train(*SHORT, f"logger={option}", expected=78)
    *_, line = capsys.readouterr().err.splitlines()  # below the traceback that --debug shows
    assert line == f"dltrain: logger={option}: the package {option} is not installed: pip install {package}"
    assert not Path("outputs").exists()


def test_record_and_events_can_be_read_while_it_trains(monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    step, seen = Engine.step, []

    def scalars():
        return [event.step for event in EventAccumulator("outputs/runs/run/tensorboard").Reload().Scalars("train/loss")]

    def step_and_look(*arguments, **more):
        seen.append(0)
        if len(seen) == 5:
            command = ["cat", "outputs/runs/run/metrics.jsonl"]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 3, 4]
            wait_until(lambda: Path("outputs/runs/run/tensorboard").is_dir() and scalars() == [1, 2, 3, 4])
        return step(*arguments, **more)

    monkeypatch.setattr(Engine, "step", step_and_look)
    folder = train(*SHORT, "logger=tensorboard")
    assert len(seen) == 6
    assert scalars() == [row["step"] for row in rows(folder, "train")]


def test_steps_taken_anew_take_the_place_of_those_before(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from dltrain.loggers import tensorboard

    for steps in ([1, 2, 3, 2], [3, 4]):
        logger = tensorboard()
        logger.start(tmp_path, name="run", config={})
        for place, step in enumerate(steps):
            logger.add({"split": "train", "step": step, "loss": place + 0.5, "accuracy": None})
        logger.close("completed")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (1, 0.5), (2, 3.5), (3, 0.5), (4, 1.5)
    ]  # fmt: skip


def wandb_records(path):
    """The records of a W&B file: 7 bytes of header, then blocks of 32 KiB in LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole, place = whole + data[place + 7 : place + 7 + length], place + 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def in_wandb(path):
    """The id, the configuration and the rows of a W&B file."""
    wait_until(lambda: any(record.HasField("exit") for record in wandb_records(path)))  # its own process writes it
    records = list(wandb_records(path))
    begun = next(record.run for record in records if record.HasField("run"))
    config = {each.key: json.loads(each.value_json) for record in records for each in record.config.update}
    histories = [record.history.item for record in records if record.HasField("history")]
    found = [{"/".join(each.nested_key) or each.key: json.loads(each.value_json) for each in one} for one in histories]
    return begun.run_id, begun.display_name, config, found


@pytest.mark.usefixtures("proxy")
def test_wandb_and_mlflow_offline_have_every_row_and_go_on(capsys):
    pytest.importorskip("wandb")
    mlflow = pytest.importorskip("mlflow")
    words = (*SHORT, "logger=[wandb,mlflow]")
    folder = train(*words)
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    run_id, name, config, found = in_wandb(file)
    assert (run_id, name) == ((folder / "wandb/id").read_text(), "run")
    assert config["model"]["name"] == "mlp"
    assert [each["val/loss"] for each in found if "val/loss" in each] == [row["loss"] for row in rows(folder, "val")]
    assert [each["step"] for each in found] == [row["step"] for row in rows(folder)]

    train(*words, "trainer.epochs=3")
    (more,) = set(folder.glob("wandb/offline-run-*/*.wandb")) - {file}
    assert in_wandb(more)[0] == run_id
    client = mlflow.MlflowClient(tracking_uri=str(Path("outputs/mlflow").resolve()))
    (known,) = client.search_runs([client.get_experiment_by_name("dltrain").experiment_id])
    assert (known.info.run_name, known.info.status) == ("run", "FINISHED")
    assert known.data.params["model.name"] == "mlp"
    history = client.get_metric_history(known.info.run_id, "val/accuracy")
    assert [(each.step, each.value) for each in history] == [
        (row["step"], row["accuracy"]) for row in rows(folder, "val")
    ]
    assert "failed" not in capsys.readouterr().out


def test_wandb_asks_for_no_key(capsys):
    pytest.importorskip("wandb")
    train(*SHORT, "logger=wandb", "logger.wandb.mode=online", expected=78)
    assert "logger=wandb: mode=online needs a key: run wandb login once" in capsys.readouterr().err
    train(*SHORT, "logger=wandb", "logger.wandb.mode=of", expected=78)
    assert "mode=of: choose online, offline, shared or disabled" in capsys.readouterr().err


def test_a_run_from_when_there_was_one_logger_at_a_time_goes_on():
    pytest.importorskip("tensorboard")
    folder = train(*SHORT, "logger=tensorboard")
    path = folder / "config.yaml"
    text = path.read_text()
    assert "\nlogger:\n  tensorboard:\n    name: tensorboard\n" in text
    path.write_text(text.replace("\nlogger:\n  tensorboard:\n    name: ", "\nlogger:\n  name: "))
    assert main(["resume", "run", "trainer.epochs=3"]) == 0
    assert len(list((folder / "tensorboard").iterdir())) == 2
    assert summary(folder)["epochs"] == 3


def test_what_the_page_on_loggers_says_is_so(capsys):
    for line in re.findall(r"^dltrain ((?!watch).+?)(?:  #.*)?$", LIVE, re.MULTILINE):
        assert main([*shlex.split(line), "--cfg", "job"]) == 0
    (program,) = re.findall(r"^```python\n(.*?)^```", LIVE, re.MULTILINE | re.DOTALL)
    (settings,) = re.findall(r"^```yaml\n(.*?)^```", LIVE, re.MULTILINE | re.DOTALL)
    Path("conf/logger").mkdir(parents=True)
    Path("conf/logger/csv.yaml").write_text(settings)
    made = {}
    exec(program, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loggers, "csv", made["CSV"], raising=False)
        patch.setattr(loggers, "__all__", [*loggers.__all__, "csv"])
        folder = train(*SHORT, "--config-dir", "conf", "logger=[csv,tensorboard]")
    assert len((folder / "rows.csv").read_text().splitlines()) == len(rows(folder))


def test_an_option_without_its_place_is_told_what_it_lacks(capsys):
    Path("conf/logger").mkdir(parents=True)
    Path("conf/logger/mine.yaml").write_text("# a logger\nname: mine\n")
    assert main(["--config-dir", "conf", "logger=mine"]) == 78
    assert "begins with the line '# @package logger.NAME'" in capsys.readouterr().err


def test_tab_knows_lists_of_loggers():
    assert candidates("dltrain logger=[ten") == ["logger=[tensorboard"]
    assert candidates("dltrain logger=[tensorboard,w") == ["logger=[tensorboard,wandb"]
    assert "logger.wandb.project=" in candidates("dltrain logger=[tensorboard,wandb] logger.")


def test_no_logger_costs_no_thread(monkeypatch):
    monkeypatch.setattr(several, "Worker", None)
    train(*SHORT)
