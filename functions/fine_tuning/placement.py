"""Which file stands under which name in a folder of the trainer: its images, and one caption for each.

The trainer finds an image by its extension (sd-scripts, library/train_util.py, IMAGE_EXTENSIONS: all small or
all capital letters) and its caption and its cached latents by what stands before it. The staged names are made
so that it finds every image, and no two share a caption or a cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from fine_tuning import image_check
from fine_tuning.file_kinds import JPEG_EXTENSIONS, is_foreign_image, pair_of, stem_of
from fine_tuning.findings import Finding, note, warning
from fine_tuning.inventory import InspectedFile
from fine_tuning.paths import same_name


@dataclass(frozen=True)
class Placement:
    """A file of the dataset and its name inside the trainer's folder."""

    source: str
    target: str


def place(
    files: Sequence[InspectedFile], caption_extension: str, preferred: str, wants_captions: bool = True
) -> tuple[list[Placement], list[Finding]]:
    """The readable images of one folder and the caption of each.

    Args:
        caption_extension: what a caption is staged with, and the trainer looks for.
        preferred: the extension of the caption that counts where an image has several.
        wants_captions: regularization images need none.
    """
    everything = sorted((file for file in files if file.kind == "image"), key=lambda f: f.path)
    images = [image for image in everything if image.width]
    twins = {pair_of(image.path): image.path for image in images}
    foreign = [file for file in files if is_foreign_image(file.path)]
    # A caption belongs to its image, though that must be mended first.
    described = [*everything, *(file for file in foreign if pair_of(file.path) not in twins)]
    captions, findings = _captions([file for file in files if file.kind == "caption"], described, preferred)
    findings += [_undescribed(f) for f in everything if wants_captions and stem_of(f.path) not in captions]
    placed: list[Placement] = []
    taken: set[str] = set()
    for image in images:
        path = PurePosixPath(image.path)
        stem = path.stem if path.stem not in taken else _free_stem(path, taken)
        taken.add(stem)
        placed.append(Placement(image.path, f"{stem}{_found_suffix(path.suffix)}"))
        if caption := captions.get(stem_of(image.path)):
            placed.append(Placement(caption.path, f"{stem}{caption_extension}"))
    findings += _about_names(images)
    findings += [_foreign(file.path, twins.get(pair_of(file.path))) for file in foreign]
    return sorted(placed, key=lambda p: (p.source, p.target)), findings


def _captions(
    captions: Sequence[InspectedFile], images: Sequence[InspectedFile], preferred: str
) -> tuple[dict[str, InspectedFile], list[Finding]]:
    """The caption of each image's stem; those without an image, and those that another one displaces, are told."""
    findings: list[Finding] = []
    exact = {stem_of(image.path) for image in images}
    alike: dict[str, set[str]] = defaultdict(set)
    for stem in exact:
        alike[same_name(stem)].add(stem)
    offered: dict[str, list[InspectedFile]] = defaultdict(list)
    for caption in captions:
        stem = stem_of(caption.path)
        stems = {stem} if stem in exact else alike.get(pair_of(caption.path), set())
        if len(stems) != 1:
            findings.append(_orphan(caption, exact))
        offered[next(iter(stems)) if len(stems) == 1 else ""].append(caption)
    offered.pop("", None)
    chosen: dict[str, InspectedFile] = {}
    for stem, found in sorted(offered.items()):
        # A name that is the image's very own comes first, then the extension, then the order of the alphabet.
        chosen[stem], *others = sorted(
            found, key=lambda f: (stem_of(f.path) != stem, not f.path.endswith(preferred), f.path)
        )
        for other in others:
            message = f"{PurePosixPath(chosen[stem].path).name} is used instead; an image has one caption."
            findings.append(warning("caption-repeated", other.path, message, "Remove one of the two."))
    return chosen, findings


def _orphan(caption: InspectedFile, stems: set[str]) -> Finding:
    message = "This caption has no image beside it; it is not used."
    remedy = "Upload its image, or remove the caption."
    # `a.jpg.txt`: some programs put the extension behind the whole name.
    if stem_of(stem_of(caption.path)) in stems:
        name = PurePosixPath(stem_of(stem_of(caption.path))).name
        remedy = f"Name it {name}{PurePosixPath(caption.path).suffix}."
    return warning("caption-without-image", caption.path, message, remedy)


def _undescribed(image: InspectedFile) -> Finding:
    message = "This image has no caption beside it; the trainer takes the folder's token instead."
    remedy = f"Add {PurePosixPath(image.path).stem}.txt with a sentence that describes the image."
    return warning("caption-missing", image.path, message, remedy)


def _foreign(path: str, twin: str | None) -> Finding:
    """An image of a format that the trainer does not read; beside the same in one that it reads it harms nobody."""
    what = f"The trainer does not read {PurePosixPath(path).suffix.lower()} files"
    if twin is None:
        return image_check.unsupported(path, what)
    return note(
        "image-format-unsupported", path, f"{what}; {PurePosixPath(twin).name} beside it is trained on."
    )


def _about_names(images: Sequence[InspectedFile]) -> list[Finding]:
    findings: list[Finding] = []
    shared: dict[str, list[InspectedFile]] = defaultdict(list)
    for image in images:
        shared[stem_of(image.path)].append(image)
        suffix = PurePosixPath(image.path).suffix
        if (found := _found_suffix(suffix)) != suffix:
            message = f"The trainer does not find names that end in {suffix}; the image is staged as {found}."
            findings.append(note("image-extension-case", image.path, message))
    for stem, alike in shared.items():
        if len(alike) > 1:
            message = f"{len(alike)} images share this name and so one caption: {PurePosixPath(stem).name}."
            findings.append(warning("image-name-shared", stem, message, "Give each image a name of its own."))
    return findings


def _found_suffix(suffix: str) -> str:
    if suffix.lower() in JPEG_EXTENSIONS:
        return ".jpg"
    return suffix if suffix in (suffix.lower(), suffix.upper()) else suffix.lower()


def _free_stem(path: PurePosixPath, taken: set[str]) -> str:
    """`a` is taken, so the image a.png becomes `a-png`."""
    stem = f"{path.stem}-{path.suffix[1:].lower()}"
    while stem in taken:
        stem += "-"
    return stem
