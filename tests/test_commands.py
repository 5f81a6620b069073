"""The real command, in fresh processes: from other directories, from a wheel, from a copied checkout, from scripts/."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import FASHION_MNIST
from helpers import LITTLE, RUN_FOLDER, rows, summary

CHECKOUT = Path(__file__).parents[1]
DLTRAIN = [sys.executable, "-m", "dltrain"]
SHORT = ("model=mlp", "trainer.epochs=1", "trainer.limit_train_batches=2", "outputs_dir=outputs", "name=run")
needs_data = pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")


def command(*words: str, cwd: Path, code: int = 0, **environment: str) -> str:
    """Run a command to its end; returns what it printed."""
    done = subprocess.run(
        list(words), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@needs_data
def test_lenet_learns_real_fashion_mnist_in_300_steps(tmp_path):
    settings = ["data.image_size=28", "optim.lr=0.005", "trainer.epochs=1", "trainer.limit_train_batches=300"]
    command(*DLTRAIN, *settings, "device=cpu", "outputs_dir=outputs", "name=run", cwd=tmp_path)
    folder = tmp_path / "outputs/runs/run"
    assert summary(folder)["steps"] == 300
    assert rows(folder, "val")[-1]["accuracy"] > 0.80
    assert rows(folder, "test")[-1]["accuracy"] > 0.78
    assert {path.name for path in folder.iterdir()} == RUN_FOLDER
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["outputs"], "nothing left about"


@needs_data
def test_the_first_step_waits_for_torch_and_little_else(tmp_path):
    program = (
        "import sys; from dltrain.cli import main\n"
        "assert main(['trainer=smoke', 'device=cpu', 'name=run', 'outputs_dir=outputs']) == 0\n"
        "print([name for name in ('torch._dynamo', 'sympy', 'torchvision', 'tensorboard') if name in sys.modules])"
    )
    printed = command(sys.executable, "-c", program, cwd=tmp_path)
    assert printed.splitlines()[-1] == "[]", "imports that a run does not need"
    assert summary(tmp_path / "outputs/runs/run")["seconds_to_first_step"] < 15


def test_a_wheel_run_from_the_root_has_its_configs_inside(tmp_path):
    pytest.importorskip("hatchling")
    command(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist"), cwd=CHECKOUT)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        names = archive.namelist()
    assert "dltrain/conf/config.yaml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("conf/", "tests/"))]
    inside = {"PYTHONPATH": str(tmp_path / "site")}
    where = command(sys.executable, "-c", "import dltrain; print(dltrain.__file__)", cwd=Path("/"), **inside)
    assert where.startswith(str(tmp_path))
    command(*DLTRAIN, *LITTLE, *SHORT[:3], f"outputs_dir={tmp_path}/outputs", "name=run", cwd=Path("/"), **inside)
    assert summary(tmp_path / "outputs/runs/run")["status"] == "completed"
    assert (tmp_path / "outputs/runs/run/report.html").is_file(), "its templates are in the wheel"


def test_the_example_package_trains_once_it_is_installed(tmp_path):
    pytest.importorskip("pip")
    package = shutil.copytree(CHECKOUT / "tests/example_package", tmp_path / "package")
    install = [
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--target",
        str(tmp_path / "site"),
    ]
    command(sys.executable, *install, str(package), cwd=tmp_path)
    chosen = ["--config-dir", str(package / "conf"), "model=tiny", "model.width=32"]
    command(*DLTRAIN, *chosen, *LITTLE, *SHORT[1:], cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert summary(tmp_path / "outputs/runs/run")["model"] == "tiny"


def test_an_edited_yaml_of_a_checkout_counts(tmp_path):
    for name in ("dltrain", "conf"):
        shutil.copytree(CHECKOUT / name, tmp_path / name)
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    path = tmp_path / "conf/optim/sgd.yaml"
    path.write_text(path.read_text().replace("lr: 0.01", "lr: 0.0625"))
    shown = command(*DLTRAIN, "optim=sgd", "--cfg", "job", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "lr: 0.0625" in shown


@pytest.mark.skipif(not (CHECKOUT / ".venv/.installed-tensorboard").is_file(), reason="scripts/ have not set up yet")
def test_the_train_script_passes_everything_on_and_ends_with_a_hint(tmp_path):
    script = str(CHECKOUT / "scripts/train")
    printed = command(script, *LITTLE, *SHORT, cwd=tmp_path)
    assert "Result: completed" in printed
    assert printed.splitlines()[-1].startswith("to type plain dltrain: export PATH=")
    assert "dltrain" in command(script, "help", cwd=tmp_path)
    command(script, "model=nonesuch", cwd=tmp_path, code=78)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_outputs_directory_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    command(*DLTRAIN, *LITTLE, *SHORT, cwd=tmp_path, code=74)


def test_an_interrupted_run_is_whole(tmp_path):
    endless = [*LITTLE, "model=mlp", "trainer.epochs=100000", "outputs_dir=outputs", "name=run"]
    process = subprocess.Popen([*DLTRAIN, *endless], cwd=tmp_path, stdout=subprocess.DEVNULL)
    record = tmp_path / "outputs/runs/run/metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (record.is_file() and record.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    result = summary(tmp_path / "outputs/runs/run")
    assert result["status"] == "interrupted"
    assert all(json.loads(line) for line in record.read_text().splitlines())
