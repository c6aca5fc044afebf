"""The last step of the image's build: `python -m kohya_trainer.self_check`. Whatever it finds fails the build.

It imports what training imports, compares the trainer's own argument parser with the option table that datasets are
validated against, loads both tokenizers without a network, and starts `train`.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kohya_trainer.keyword_arguments import OPTIMIZERS, describe_arguments
from kohya_trainer.make_option_table import argument_differences, describe, differences, trainer_parser
from kohya_trainer.options import TABLES, load_table

REQUIREMENTS = TABLES.parent / "requirements"
NETWORKS = ("networks.lora", "networks.lora_fa", "networks.dylora")
# Packages whose module has another name.
MODULES = {
    "opencv-python-headless": "cv2",
    "prodigy-plus-schedule-free": "prodigyplus",
    "tensorboard": "torch.utils.tensorboard",
    "xformers": "xformers.ops",
}
CUDA_ONLY = frozenset({"xformers"})
SENTENCE = "a photo of a cat"
# Of the published tokenizers; the trainer itself pads the second one's with 0.
SENTENCE_IDS = [49406, 320, 1125, 539, 320, 2368, 49407]
TOKENIZERS = ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k")


def required_modules(requirements: str) -> list[str]:
    """The module of each package that a requirements file names."""
    names = re.findall(r"^[A-Za-z][A-Za-z0-9._-]*", requirements, re.MULTILINE)
    return [MODULES.get(name, name.replace("-", "_")) for name in names]


def check_imports(variables: Mapping[str, str]) -> Iterator[str]:
    """Without CUDA, which only an image for tests is, what is of no use there is left out."""
    cuda = importlib.import_module("torch").version.cuda
    if cuda is None and variables.get("TORCH_REQUIREMENTS") == "":
        yield "torch knows no CUDA: nothing can be trained with it"
    text = (REQUIREMENTS / f"kohya_ss-{variables['KOHYA_VERSION']}.in").read_text(encoding="utf-8")
    for module in required_modules(text):
        if cuda is None and module.partition(".")[0] in CUDA_ONLY:
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever it is, training would end with it
            yield f"import {module}: {type(error).__name__}: {error}"


def check_options(variables: Mapping[str, str]) -> Iterator[str]:
    parser = trainer_parser(Path(variables["KOHYA_HOME"]))
    # Through JSON, as the table went.
    found = json.loads(json.dumps(describe(parser)))
    table = load_table(variables["KOHYA_VERSION"])
    yield from differences(found, table.options)
    arguments = describe_arguments(importlib.import_module("library.train_util"))
    if variables.get("TORCH_REQUIREMENTS"):  # another torch than the locked one, in an image for tests
        for name in (name for name, place in OPTIMIZERS.items() if place.startswith("torch.")):
            arguments["optimizer_args"][name] = table.arguments["optimizer_args"][name]
    yield from argument_differences(arguments, table.arguments)
    for module in NETWORKS:
        importlib.import_module(module)


def check_tokenizers(variables: Mapping[str, str]) -> Iterator[str]:
    tokenizer = importlib.import_module("transformers").CLIPTokenizer
    for name in TOKENIZERS:
        folder = Path(variables["TOKENIZER_CACHE_DIR"]) / name
        found = tokenizer.from_pretrained(str(folder), local_files_only=True)
        if found(SENTENCE)["input_ids"] != SENTENCE_IDS or found.model_max_length != 77:
            yield f"{name} is not CLIP's tokenizer"


def check_train(variables: Mapping[str, str]) -> Iterator[str]:
    done = subprocess.run(["train", "--version"], capture_output=True, text=True, env=dict(variables))
    if done.returncode or variables["KOHYA_VERSION"] not in done.stdout:
        yield f"train --version ended with {done.returncode}: {done.stdout}{done.stderr}"


CHECKS: Mapping[str, Callable[[Mapping[str, str]], Iterator[str]]] = {
    "every import that training needs": check_imports,
    "the trainer's options are those of the option table": check_options,
    "both tokenizers": check_tokenizers,
    "train --version": check_train,
}


def main(variables: Mapping[str, str]) -> int:
    """Exit code 1 if any check finds something; all of them are run."""
    failed = False
    for name, check in CHECKS.items():
        try:
            problems = list(check(variables))
        except Exception as error:  # told like every other problem, so that the checks after it run too
            problems = [f"{type(error).__name__}: {error}"]
        print(f"self-check: {name}: {'FAILED' if problems else 'ok'}", flush=True)
        for problem in problems:
            print(f"  {problem}", flush=True)
        failed = failed or bool(problems)
    if failed:
        version = variables.get("KOHYA_VERSION")
        print(
            f"A new option table is made by: python -m kohya_trainer.make_option_table {version}", flush=True
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(os.environ))
