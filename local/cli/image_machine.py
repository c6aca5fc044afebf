"""What a machine without Docker needs to build the training image: tools, a base, torch for a CPU, Kohya's source.

`./dev test-image` always builds it, `./dev up` does with EMBEDDED_AWS_BUILDER=buildah, and `./dev demo` also by itself
where that takes seconds. What is made is kept below .dev/image-test/, so that only the first time is slow.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from local.cli.failure import CommandError
from local.cli.repository import ROOT

CONTAINER = ROOT / "container"
WORK = ROOT / ".dev" / "image-test"
TOOLS = ("buildah", "podman", "runc", "mmdebstrap", "conmon")
PACKAGES = (
    "buildah podman runc mmdebstrap conmon containernetworking-plugins netavark aardvark-dns uidmap iptables"
)
BASE = "localhost/image-test-base:bookworm"
KOHYA_VERSION = "v25.2.2"
# What torch for a CPU has in its version. This torchvision does without its compiled operators, so any torch will do.
CPU = "+cpu"
TORCHVISION_WITHOUT_OPERATORS = "torchvision==0.15.2"
CERTIFICATES = Path("/etc/ssl/certs")
# What the slow layers are made of, and what decides where their parts come from.
SLOW = ("Dockerfile", "build_steps", "requirements", "versions")
SOURCES = ("KOHYA_CHECKOUT", "TEST_IMAGE_TORCH", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")
BUILT = WORK / "built"

STORAGE = """[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""
# runc and cgroupfs, because neither systemd nor a pure cgroup v2 may be there; no events in a journal.
ENGINE = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


def missing_tools() -> list[str]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in TOOLS if shutil.which(name, path=path) is None]


def require_tools() -> None:
    if missing := missing_tools():
        raise CommandError(
            f"Missing: {', '.join(missing)}. On Debian 12 and later, as root:\n"
            f"  apt-get update && apt-get install --yes --no-install-recommends {PACKAGES}"
        )
    if os.geteuid() != 0:
        raise CommandError("Building with chroot isolation and overlay storage needs root: use sudo")


def chosen(environment: Mapping[str, str]) -> dict[str, str]:
    """What `prepare` gives, where a real build is asked for and nobody prepared it."""
    asked = environment.get("EMBEDDED_AWS_BUILDER") == "buildah"
    return prepare() if asked and "EMBEDDED_AWS_BUILD_ARGUMENTS" not in environment else {}


def offered(environment: Mapping[str, str], say: Callable[[str], None]) -> dict[str, str]:
    """The same for who asked for nothing: a real build where it takes seconds, and a word of it where it would not."""
    if "EMBEDDED_AWS_BUILDER" in environment or missing_tools() or os.geteuid() != 0:
        return chosen(environment)
    if not BUILT.is_file() or BUILT.read_text() != fingerprint(environment):
        say(
            "EMBEDDED_AWS_BUILDER=buildah ./dev demo would build the image for real: minutes, the first time."
        )
        return {}
    say("The image is built for real, on layers that are kept (EMBEDDED_AWS_BUILDER=none spares that).")
    return prepare()


def keep() -> None:
    """The image was built: its layers are there for the next time."""
    BUILT.write_text(fingerprint(os.environ))


def fingerprint(environment: Mapping[str, str]) -> str:
    """Of what the layers below the project's own code are made of; the next build is slow when it changes."""
    digest = hashlib.sha256()
    for path in sorted(path for name in SLOW for path in (CONTAINER / name, *(CONTAINER / name).rglob("*"))):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.read_bytes())
    digest.update(repr([environment.get(name) for name in SOURCES]).encode())
    return digest.hexdigest()


def prepare() -> dict[str, str]:
    """The environment in which the embedded AWS builds the image and runs it. Raises CommandError."""
    require_tools()
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "storage.conf").write_text(STORAGE.format(folder=WORK))
    (WORK / "containers.conf").write_text(ENGINE)
    environment = {
        "CONTAINERS_STORAGE_CONF": str(WORK / "storage.conf"),
        "CONTAINERS_CONF": str(WORK / "containers.conf"),
        "EMBEDDED_AWS_BUILDER": "buildah",
    }
    make_base(environment)
    arguments = ["--build-arg", f"BASE_IMAGE={BASE}", "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
    arguments += [*cpu_torch(), *kohya_source()]
    return {**environment, "EMBEDDED_AWS_BUILD_ARGUMENTS": " ".join(arguments)}


def make_base(environment: Mapping[str, str]) -> None:
    """Debian 12 with its Python 3.11, in place of the image that the Dockerfile names."""
    variables = {**os.environ, **environment}
    if not subprocess.run(["podman", "image", "exists", BASE], env=variables).returncode:
        return
    tar = WORK / "base.tar"
    include = "--include=python3,python3-venv,ca-certificates"
    run("mmdebstrap", "--quiet", "--variant=apt", include, "bookworm", str(tar), environment=variables)
    run("podman", "import", "--quiet", str(tar), BASE, environment=variables)
    tar.unlink()


def cpu_torch() -> list[str]:
    """Arguments that replace CUDA's torch, 3 GB of wheels; none with TEST_IMAGE_TORCH=cuda."""
    if os.environ.get("TEST_IMAGE_TORCH") == "cuda":
        return []
    folder = WORK / "wheels"
    locks = list(folder.glob("requirements-*.txt"))
    if not locks:
        shutil.rmtree(folder, ignore_errors=True)
        torch = os.environ.get("TEST_IMAGE_TORCH") or f"torch=={newest_cpu_torch()}"
        download = [*pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        download += ["--python-version", "3.11", "--dest", str(folder)]
        run(*download, torch, TORCHVISION_WITHOUT_OPERATORS, triton_of_the_image())
        lines = []
        for wheel in sorted(folder.glob("*.whl")):
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            address = f"file:///torch/{wheel.name}".replace("+", "%2B")
            lines.append(f"{wheel.name.split('-')[0]} @ {address} --hash=sha256:{digest}\n")
        text = "".join(lines)
        # A layer is kept under its arguments: other wheels must have another name.
        locks = [folder / f"requirements-{hashlib.sha256(text.encode()).hexdigest()[:12]}.txt"]
        locks[0].write_text(text)
    return [
        *("--volume", f"{folder}:/torch:ro"),
        *("--build-arg", f"TORCH_REQUIREMENTS=/torch/{locks[0].name}"),
    ]


def triton_of_the_image() -> str:
    """torch for a CPU brings none; its interpreter runs the fast U-Net's kernels in the tests."""
    lock = CONTAINER / "requirements" / f"torch-{KOHYA_VERSION}.txt"
    return next(line.split()[0] for line in lock.read_text().splitlines() if line.startswith("triton=="))


def pip() -> list[str]:
    """A pip of its own: the environment that the tests run in has none."""
    python = WORK / "pip" / "bin" / "python"
    if not python.is_file():
        run(sys.executable, "-m", "venv", str(WORK / "pip"))
    return [str(python), "-m", "pip"]


def newest_cpu_torch() -> str:
    """As pip of this machine finds it."""
    index = [*pip(), "index", "versions", "torch"]
    index += ["--python-version", "3.11", "--only-binary=:all:"]
    listed = subprocess.run(index, capture_output=True, text=True).stdout
    found = [word.strip(",") for word in listed.split() if word.strip(",").endswith(CPU)]
    if not found:
        raise CommandError(
            "pip finds no torch for a CPU. Let it find PyTorch's CPU wheels (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS), "
            "name one in TEST_IMAGE_TORCH, or set TEST_IMAGE_TORCH=cuda for the image as it is deployed (3 GB)."
        )
    return found[0]


def kohya_source() -> list[str]:
    """Arguments that replace the clone of kohya_ss by KOHYA_CHECKOUT; none without it.

    KOHYA_CHECKOUT is a git repository of sd-scripts, bare or not, that holds the expected commit.
    """
    repository = os.environ.get("KOHYA_CHECKOUT")
    if not repository:
        return []
    lines = (CONTAINER / "versions" / f"{KOHYA_VERSION}.env").read_text().splitlines()
    commits = dict(line.split("=") for line in lines if "=" in line)
    folder = WORK / "kohya"
    if not (folder / "TRAINER_COMMIT").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        scripts = folder / commits["TRAINER_FOLDER"]
        scripts.mkdir(parents=True)
        git = ["git", "-C", repository]
        where = subprocess.run([*git, "rev-parse", "--absolute-git-dir"], capture_output=True, text=True)
        if where.returncode:
            raise CommandError(f"KOHYA_CHECKOUT={repository} is no git repository")
        # Without the libraries for another system, which a partial mirror may lack.
        words = [
            f"--git-dir={where.stdout.strip()}",
            f"--work-tree={scripts}",
            "checkout",
            commits["TRAINER_COMMIT"],
        ]
        index = {**os.environ, "GIT_INDEX_FILE": str(WORK / "kohya.index")}
        run("git", *words, "--", ".", ":!bitsandbytes_windows", environment=index)
        for name in ("KOHYA_SS_COMMIT", "TRAINER_COMMIT"):
            (folder / name).write_text(commits[name] + "\n")
    return ["--build-context", f"kohya={folder}"]


def run(*words: str, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise CommandError(f"{' '.join(words)} failed:\n{done.stderr[-2000:] or done.stdout[-2000:]}")
