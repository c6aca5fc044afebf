"""Every class of failure, by log lines as the programs really write them."""

import pytest

from kohya_trainer.failure import (
    CLASSES,
    classify,
    own_failure,
)

LOGS = {
    "out-of-gpu-memory": [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 320.00 MiB.",
        "torch.cuda.OutOfMemoryError: CUDA out of memory.",
    ],
    "out-of-host-memory": [
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory",
        "MemoryError",
        "subprocess.CalledProcessError: Command '[...]' died with <Signals.SIGKILL: 9>.",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 12.0 GiB",
        "RuntimeError: DataLoader worker (pid(s) 30375) exited unexpectedly",
        "RuntimeError: DataLoader worker (pid 81) is killed by signal: Killed. ",
        "RuntimeError: unable to write to file </torch_81_2817_3>: No space left on device (28)",
    ],
    "disk-full": [
        "OSError: [Errno 28] No space left on device: '/opt/ml/work/output'",
        "RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598",
        "RuntimeError: PytorchStreamWriter failed writing file data/0: file write failed",
    ],
    "corrupt-image": [
        "PIL.UnidentifiedImageError: cannot identify image file '/opt/ml/work/dataset/train/10_cat/a b.jpg'",
        "OSError: image file is truncated (12 bytes not processed)",
        "2026-11-23 14:15:25 ERROR  Error loading file: /work/train/10_sks cat/003.jpg  train_util.py:2946",
    ],
    "base-model": [
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1)",
        "OSError: a/b is not a local folder and is not a valid model identifier",
    ],
    "corrupt-base-model": [
        "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge"
    ],
    "no-network": [
        "requests.exceptions.ConnectionError: HTTPSConnectionPool: Max retries exceeded",
        "socket.gaierror: [Errno -2] Name or service not known",
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the files on the Hub",
    ],
    "no-data": ["ERROR No data found. Please verify arguments"],
    "not-finite": ["RuntimeError: NaN detected in latents: /opt/ml/work/dataset/train/10_cat/a.jpg"],
    "gpu-fault": [
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU",
    ],
    "bad-config": [
        "sdxl_train_network.py: error: argument --seed: invalid int value: 'x'",
        "AssertionError: network for Text Encoder cannot be trained with caching Text Encoder outputs",
        "ValueError: invalid literal for int() with base 10: '1e3'",
        "TypeError: AdamW.__init__() got an unexpected keyword argument 'weight_decy'",
        "TypeError: get_cosine_schedule_with_warmup() got multiple values for keyword argument 'num_warmup_steps'",
    ],
}


def test_every_class_has_a_log_that_provokes_it() -> None:
    assert set(LOGS) == {known.kind for known in CLASSES}


@pytest.mark.parametrize(("kind", "line"), [(kind, line) for kind, lines in LOGS.items() for line in lines])
def test_a_log_is_classified(kind: str, line: str) -> None:
    error = classify(1, ["loading the model", line, "Traceback ends"])

    assert error.kind == kind
    assert error.cause.endswith(".")
    assert "{" not in error.cause
    assert error.remedy.endswith(".")


def test_the_image_and_the_assertion_are_named() -> None:
    assert "10_cat/a b.jpg)" in classify(1, LOGS["corrupt-image"][:1]).cause
    assert "10_sks cat/003.jpg)" in classify(1, LOGS["corrupt-image"][2:]).cause
    assert "cannot be trained with caching" in classify(1, LOGS["bad-config"][1:2]).cause


@pytest.mark.parametrize(
    ("code", "lines", "kind"),
    [
        (-9, ["steps 12"], "out-of-host-memory"),
        (137, [], "out-of-host-memory"),
        (1, ["KeyError: 'x'"], "trainer-crash"),
        (-11, [], "trainer-crash"),
        (0, ["all is well"], "unknown"),
    ],
)
def test_without_a_known_line_the_exit_code_decides(code: int, lines: list[str], kind: str) -> None:
    assert classify(code, lines).kind == kind


def test_the_reason_wins_over_what_follows_from_it() -> None:
    lines = [*LOGS["out-of-gpu-memory"], *LOGS["out-of-host-memory"], "AssertionError: later"]

    assert classify(1, lines).kind == "out-of-gpu-memory"


def test_a_broken_image_wins_over_the_process_that_ended_with_it() -> None:
    lines = [*LOGS["corrupt-image"][:1], "RuntimeError: DataLoader worker (pid(s) 7) exited unexpectedly"]

    assert classify(1, lines).kind == "corrupt-image"


def test_a_full_disk_outside_the_trainer_is_classified_too() -> None:
    assert own_failure(OSError(28, "No space left on device")).kind == "disk-full"


def test_a_fault_of_this_package_is_not_told_as_the_trainers() -> None:
    told = own_failure(FileNotFoundError(2, "No such file or directory", "cats-step00000004.safetensors"))

    assert told.kind == "unknown"
    assert told.cause == (
        "The training container itself failed (FileNotFoundError: [Errno 2] No such file or directory: "
        "'cats-step00000004.safetensors')."
    )
    assert "option" not in told.remedy
