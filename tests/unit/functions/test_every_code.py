"""Every code of the catalogue is provoked by a dataset made for it, and a clean dataset provokes none."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
from PIL import Image

from fine_tuning.catalogue import CATALOGUE
from tests.functions_data import BUCKET, EVENTS
from tests.judging import judged

REPORT = jsonschema_rs.validator_for(json.loads((EVENTS / "report.schema.json").read_bytes()))


def saved(image: Image.Image, format_name: str = "JPEG", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, format_name, **options)
    return content.getvalue()


def profile(description: str, encoding: str = "ascii") -> bytes:
    """As much of a colour profile as is looked at: 128 bytes of header, then its description."""
    return bytes(128) + description.encode(encoding)


@cache
def grey(width: int = 1024, height: int = 1024, seed: int = 0) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).point(lambda value: (value + seed) % 256)


@cache
def picture(width: int = 1024, height: int = 1024, format_name: str = "JPEG", seed: int = 0) -> bytes:
    return saved(grey(width, height, seed).convert("RGB"), format_name)


CLEAN: Mapping[str, bytes] = {
    "10_sks cat/a.jpg": picture(),
    "10_sks cat/a.txt": b"sks cat on a mat",
    "10_sks cat/b.png": picture(1152, 896, "PNG"),
    "10_sks cat/b.txt": b"sks cat in a hat",
}
MANIFEST: Mapping[str, Any] = {"trigger_word": "sks", "config": {"max_train_epochs": 1}}


@dataclass(frozen=True)
class Case:
    """What is other than in the clean dataset. A file of None is taken out; `manifest` may be its bytes."""

    files: Mapping[str, bytes | None] = field(default_factory=dict)
    manifest: Mapping[str, Any] | bytes = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    severity: str | None = None
    unfinished: tuple[str, ...] = ()

    def report(self) -> dict[str, Any]:
        files = {path: content for path, content in {**CLEAN, **self.files}.items() if content is not None}
        document = self.manifest if isinstance(self.manifest, bytes) else {**MANIFEST, **self.manifest}
        return judged(files, document, self.sizes, self.settings, unfinished=self.unfinished)


def image(content: bytes, path: str = "10_sks cat/c.jpg", **more: Any) -> Case:
    """The clean dataset and one image more, with its caption."""
    return Case({path: content, f"{path.rpartition('.')[0]}.txt": b"sks cat"}, **more)


def caption(content: bytes | None, **more: Any) -> Case:
    return Case({"10_sks cat/a.txt": content}, **more)


def toml(text: str, **more: Any) -> Case:
    return Case({"kohya-sdxl-config.toml": text.encode()}, **more)


def option(**config: Any) -> Case:
    return Case(manifest={"config": {"max_train_epochs": 1, **config}})


def without(*paths: str) -> dict[str, bytes | None]:
    return dict.fromkeys(paths)


def declared(*paths: str, **more: Any) -> Case:
    return Case(manifest={"files": [{"path": path, **more} for path in paths]})


EXIF = Image.Exif()
EXIF[0x0112] = 6
CLEAR = Image.merge("RGBA", (grey(), grey(), grey(), Image.new("L", (1024, 1024), 0)))
BOMB = saved(Image.new("1", (8200, 8200)), "PNG")  # a few hundred bytes

TO_SIZE: Mapping[str, Any] = {"manifest": {"config": {"bucket_no_upscale": True, "max_train_epochs": 1}}}

CASES: Mapping[str, list[Case]] = {
    "manifest-too-large": [Case(manifest=b'{"version": 1}' + b" " * 1024 * 1024)],
    "manifest-json-byte-order-mark": [Case(manifest=b'\xef\xbb\xbf{"version": 1}')],
    "manifest-json-not-utf8": [Case(manifest=b'{"version": 1, "licence": "\xff"}')],
    "manifest-json-invalid": [
        Case(manifest=b'{"version": 1,}'),
        Case(manifest=b'{"version": 1, "licence": "\\ud83d"}'),
    ],
    "manifest-json-too-deep": [Case(manifest=b"[" * 100_000)],
    "manifest-json-repeated-key": [Case(manifest=b'{"version": 1, "version": 1}')],
    "manifest-json-not-a-number": [Case(manifest=b'{"version": NaN}')],
    "manifest-not-an-object": [Case(manifest=b"[1]")],
    "manifest-unknown-key": [Case(manifest={"reapeats": 3})],
    "manifest-invalid": [Case(manifest={"repeats": 0})],
    "manifest-path-outside": [
        declared("../a.jpg"),
        declared("%2e%2e/a.jpg"),
        declared(f"s3://{BUCKET}/a.jpg"),
    ],
    "manifest-path-repeated": [declared("10_sks cat/a.jpg", "10_sks cat/a.jpg")],
    "manifest-path-ambiguous": [
        declared("10_sks cat/a.jpg", "10_sks cat/A.jpg"),
        declared("\u00e9", "e\u0301"),
    ],
    "file-missing": [declared("10_sks cat/z.jpg")],
    "images-missing": [Case(manifest={"images": 3})],
    "upload-unfinished": [Case(unfinished=("10_sks cat/c.jpg",))],
    "file-size-differs": [declared("10_sks cat/a.txt", size=1)],
    "file-digest-differs": [declared("10_sks cat/a.txt", sha256="0" * 64)],
    "file-too-large": [Case(sizes={"10_sks cat/a.jpg": 101 * 1024 * 1024})],
    "image-empty": [image(b"")],
    "image-unreadable": [image(b"no image"), image(b"\xff\xd8\xff\xe0" + b"\0" * 500)],
    "image-truncated": [
        image(picture()[:-2000]),
        image(picture(format_name="PNG")[:-2000], "10_sks cat/c.png"),
    ],
    "image-too-large": [image(BOMB, "10_sks cat/c.png")],
    "image-format-unsupported": [
        image(saved(grey(), "GIF")),
        image(b"\0\0\0\x18ftypheic\0\0\0\0"),
        image(b"\0\0\0\x1cftypavif\0\0\0\0"),
        image(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        image(b"%PDF-1.7"),
        Case({"10_sks cat/c.heic": b"x"}, severity="error"),
        Case({"10_sks cat/a.heic": b"x"}, severity="note"),
    ],
    "image-16-bit": [image(saved(grey().convert("I;16"), "PNG"), "10_sks cat/c.png")],
    "image-size-refused": [option(enable_bucket=False, cache_latents=False)],
    "image-without-bucket": [
        image(picture(50, 50), **TO_SIZE),
        image(picture(4000, 16), **TO_SIZE),
        Case({"reg/1_cat/c.jpg": picture(1024, 50)}, **TO_SIZE),
    ],
    "image-extension-differs": [image(picture(format_name="PNG", seed=1))],
    "image-extension-case": [image(picture(seed=1), "10_sks cat/c.Jpg")],
    "image-too-small": [image(picture(512, 512))],
    "image-aspect-ratio": [image(picture(4096, 256)), option(enable_bucket=False, resolution="1024,512")],
    "image-orientation": [image(saved(grey(), exif=EXIF))],
    "image-animated": [
        image(saved(grey(seed=2), "PNG", save_all=True, append_images=[grey(seed=3)]), "10_sks cat/c.png")
    ],
    "image-cmyk": [image(saved(Image.merge("CMYK", (grey(),) * 4)))],
    "image-colour-profile": [
        image(saved(grey().convert("RGB"), icc_profile=profile("Adobe RGB (1998)")), severity="warning"),
        image(
            saved(grey().convert("RGB"), "PNG", icc_profile=profile("ProPhoto RGB", "utf-16-be")),
            "10_sks cat/c.png",
            severity="warning",
        ),
        image(saved(grey().convert("RGB"), icc_profile=profile("Display P3", "utf-16-be")), severity="note"),
    ],
    "image-transparent": [image(saved(CLEAR, "PNG"), "10_sks cat/c.png")],
    "image-palette": [image(saved(grey(seed=4).convert("P"), "PNG"), "10_sks cat/c.png")],
    "image-repeated": [image(picture())],
    "image-name-shared": [Case({"10_sks cat/a.png": picture(format_name="PNG", seed=1)})],
    "caption-missing": [caption(None)],
    "caption-empty": [caption(b"", severity="error"), caption(b" \n", severity="warning")],
    "caption-byte-order-mark": [caption("\ufeffsks cat".encode())],
    "caption-lines": [caption(b"sks cat\non a mat")],
    "caption-too-long": [caption(b"sks " + b"cat " * 75)],
    "caption-without-trigger-word": [caption(b"a cat on a mat")],
    "caption-not-utf8": [caption("sks café".encode("latin-1"))],
    "caption-without-image": [Case({"10_sks cat/z.txt": b"sks cat"})],
    "caption-repeated": [Case({"10_sks cat/a.caption": b"sks cat"})],
    "dataset-without-images": [
        Case(without(*CLEAN)),
        Case({**without(*CLEAN), "reg/1_cat/a.jpg": picture()}),
    ],
    "dataset-without-captions": [Case(without("10_sks cat/a.txt", "10_sks cat/b.txt"))],
    "dataset-too-large": [
        Case(
            {f"10_sks cat/{n}.md": b"x" for n in range(400)},
            sizes={f"10_sks cat/{n}.md": 3 * 10**9 for n in range(400)},
        )
    ],
    "layout-unclear": [
        Case({**without(*CLEAN), "cats/a.jpg": picture(), "dogs/b.jpg": picture(seed=1)}),
        Case({**without(*CLEAN), "cats/10_cat/a.jpg": picture(), "dogs/5_dog/b.jpg": picture(seed=1)}),
    ],
    "layout-guessed": [
        Case({**without(*CLEAN), "25 sks cat/a.jpg": picture(), "25 sks cat/a.txt": b"sks cat"}),
        Case({**without(*CLEAN), "0_sks cat/a.jpg": picture(), "0_sks cat/a.txt": b"sks cat"}),
    ],
    "repeats-too-many": [Case({"2024_sks/c.jpg": picture(seed=1), "2024_sks/c.txt": b"sks"})],
    "folder-without-token": [Case({"10/c.jpg": picture(seed=1), "10/c.txt": b"sks cat"})],
    "regularization-unused": [Case({"reg/50_cat/c.jpg": picture(seed=1)})],
    "file-name-unusable": [
        image(picture(seed=1), "10_sks cat/c\\d.jpg"),
        image(picture(seed=1), f"10_sks cat/{'é' * 200}.jpg"),
        Case({"10_sks cat": b"x"}),
    ],
    "file-outside-layout": [Case({"cats/c.jpg": picture(seed=1), "cats/c.txt": b"sks cat"})],
    "file-not-used": [
        Case({"10_sks cat/notes.md": b"x"}, severity="warning"),
        Case({"10_sks cat/._a.jpg": b"x"}, severity="note"),
    ],
    "config-too-large": [toml("#" * (1024 * 1024 + 1))],
    "config-not-toml": [toml("a = = 1")],
    "option-unknown": [toml("netwrok_dim = 4"), toml("conv_dim = 4")],
    "option-invalid": [option(network_dim="big"), option(optimizer_args=["weight_decay"])],
    "option-refused": [option(network_module="os"), option(huggingface_token="x"), option(vae="/x.pt")],
    "option-overridden": [toml('output_dir = "/x"'), option(save_every_n_steps=0)],
    "option-repeated": [toml("[a]\nnetwork_dim = 4\n[b]\nnetwork_dim = 8")],
    "options-contradict": [option(full_fp16=True)],
    "options-ignored": [option(clip_skip=2), option(network_args=["conv_dimm=4"])],
    "options-harmful": [option(optimizer_type="Prodigy")],
    "precision-unsupported": [
        Case(
            manifest={
                "instance_types": ["ml.g4dn.xlarge"],
                "config": {"mixed_precision": "bf16", "max_train_epochs": 1},
            }
        )
    ],
    "precision-changed": [Case(manifest={"instance_types": ["ml.p3.2xlarge"]})],
    "instance-without-gpu": [Case(manifest={"instance_types": ["ml.m5.large"]})],
    "steps-planned": [Case(manifest={"config": {}})],
    "nothing-held-back": [Case(manifest={"validation_split": 0.2}), option(validation_split=0.4)],
    "base-model-elsewhere": [Case(manifest={"base_model": "s3://elsewhere/models/x/m.safetensors"})],
    "base-model-missing": [Case(manifest={"base_model": f"s3://{BUCKET}/models/x/m.safetensors"})],
    "base-model-not-sdxl": [
        Case(manifest={"base_model": "stabilityai/stable-diffusion-2-1@main"}),
        toml('pretrained_model_name_or_path = "runwayml/stable-diffusion-v1-5"'),
    ],
    "base-model-replaced": [
        toml('pretrained_model_name_or_path = "D:/models/ponyDiffusionV6XL.safetensors"'),
        option(pretrained_model_name_or_path="sdxl/"),
    ],
    "base-model-unpinned": [toml('pretrained_model_name_or_path = "models/pony"')],
    "price-unknown": [
        Case(manifest={"instance_types": ["ml.x9.large"]}, severity="warning"),
        Case(manifest={"instance_types": ["ml.x9.large"], "max_cost_usd": 5}, severity="error"),
    ],
    "recipe-chosen": [
        Case(manifest={"instance_types": ["ml.p5.4xlarge"], "config": {"max_train_epochs": 300}})
    ],
    "images-multiplied": [
        Case(
            manifest={
                "instance_types": ["ml.p4d.24xlarge"],
                "config": {"train_batch_size": 4, "max_train_epochs": 1},
            }
        )
    ],
    "recipe-fitted": [option(resolution="2048,2048", max_bucket_reso=2048, network_dim=256)],
    "gpu-memory-exceeded": [option(train_batch_size=64)],
    "budget-exceeded": [Case(manifest={"max_cost_usd": 0.001})],
    "budget-kept": [Case(manifest={"max_cost_usd": 100})],
    "runtime-exceeded": [option(max_train_epochs=1_000_000)],
    "rung-left-out": [
        Case(manifest={"instance_types": ["ml.g5.8xlarge", "ml.p5.48xlarge"], "max_cost_usd": 2})
    ],
    "spot-loses-steps": [
        Case(manifest={"spot": True, "config": {"max_train_epochs": 1, "gradient_accumulation_steps": 2}}),
        Case(manifest={"spot": True}, settings={"KOHYA_VERSION": "v22.6.2"}),
    ],
    "spot-quote": [Case(manifest={"spot": True})],
}


def test_a_clean_dataset_provokes_nothing() -> None:
    report = Case().report()
    assert report["findings"] == []
    assert report["accepted"] is True
    assert REPORT.is_valid(report)


def test_every_code_has_a_case_made_for_it() -> None:
    # What compares two runs needs more than a dataset: tests/integration/functions/test_retry.py.
    assert set(CATALOGUE) - set(CASES) == {"retry-differs"}, "add a dataset that provokes the code"
    assert set(CASES) - set(CATALOGUE) == set()


@pytest.mark.parametrize(
    ("code", "case"),
    [(code, case) for code, cases in CASES.items() for case in cases],
    ids=[f"{code}-{number}" for code, cases in CASES.items() for number in range(len(cases))],
)
def test_a_dataset_provokes_the_code_that_it_was_made_for(code: str, case: Case) -> None:
    report = case.report()
    assert REPORT.is_valid(report)
    found = [finding for finding in report["findings"] if finding["code"] == code]
    assert found, [finding["code"] for finding in report["findings"]]
    severities = {finding["severity"] for finding in found}
    assert case.severity is None or severities == {case.severity}
    if "error" in severities:
        assert report["accepted"] is False
        assert report["plan"] is None


UNUSED: Mapping[str, bytes] = {
    "10_sks cat/notes.txt": "café".encode("latin-1"),
    "LICENSE.txt": "sks".encode("utf-16"),
    "readme.txt": b"",
    "10_sks cat/a.caption": b"",
    "originals/a.jpg": b"",
    "masks/a.png": b"no image",
    "10_sks cat/old/a.jpg": b"",
    "raw/a.nef": b"x",
    "turned/a.jpg": saved(grey(), exif=EXIF),
}


def test_files_that_nobody_trains_on_refuse_nothing_and_are_told_once() -> None:
    report = Case({**UNUSED, "10_sks cat/a.nef": b"x", "a.psd": b"x", "huge.mov": b"x"}).report()
    assert report["accepted"] is True
    told = {f["path"]: f["severity"] for f in report["findings"]}
    assert len(told) == len(report["findings"])
    assert told == {
        **dict.fromkeys(UNUSED, "warning"),
        "10_sks cat/a.nef": "note",
        "a.psd": "warning",
        "huge.mov": "warning",
    }
    large = Case({"masks/c.png": b"x"}, sizes={"masks/c.png": 101 * 1024 * 1024}).report()
    assert [(f["code"], f["severity"]) for f in large["findings"]] == [("file-outside-layout", "warning")]


def test_an_image_without_a_bucket_is_told_by_its_name_alone() -> None:
    report = image(picture(50, 60), **TO_SIZE).report()
    (finding,) = [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert (finding["code"], finding["path"]) == ("image-without-bucket", "10_sks cat/c.jpg")
    assert "50 × 60 pixels" in finding["message"]
    assert "Remove it" in finding["remedy"]


def test_what_the_manifest_declares_of_a_file_holds_wherever_it_lies() -> None:
    declared = {"files": [{"path": "masks/a.png", "sha256": "0" * 64}]}
    report = Case({"masks/a.png": picture()}, manifest=declared).report()
    assert [f["code"] for f in report["findings"]] == ["file-digest-differs", "file-outside-layout"]


@pytest.mark.parametrize("code", [code for code, meaning in CATALOGUE.items() if len(meaning.severities) > 1])
def test_a_code_of_several_severities_is_shown_with_each(code: str) -> None:
    assert {case.severity for case in CASES[code]} >= set(CATALOGUE[code].severities)
