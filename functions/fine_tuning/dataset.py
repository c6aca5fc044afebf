"""What only the whole dataset says, beside its configuration: duplicates, aspect buckets, captions, size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from fine_tuning import buckets
from fine_tuning.caption_check import SHORTEST_LIMIT
from fine_tuning.file_kinds import CAPTION_EXTENSIONS
from fine_tuning.findings import Finding, error, warning
from fine_tuning.instances import Disk
from fine_tuning.inventory import InspectedFile
from fine_tuning.layout import Layout
from fine_tuning.paths import is_plain

_ENLARGED = 1.25  # times, in either direction: more than that is seen in what the model makes
_CUT_AWAY = 0.25  # share of the pixels
_LONGEST_NAME = 255  # bytes of one part of a path, on the file systems of the training machine
# What the training job's disk holds beside the dataset: a base model in half precision, and the checkpoints,
# samples and logs of a run.
BESIDE_DATASET = 12 * 1000**3  # bytes
# Latents of an image, for each of its pixels in its bucket, none of which has more than the resolution's area: four
# channels of an eighth of its sides, 4 bytes a number (sd-scripts, library/strategy_sd.py).
_LATENT_BYTES = 4 * 4 / 64


def judge(
    files: Sequence[InspectedFile],
    layout: Layout,
    values: Mapping[str, Any],
    trigger_word: str | None,
    disk: Disk,
) -> list[Finding]:
    """Findings of a dataset whose every file was inspected.

    Args:
        values: the resolved configuration.
        disk: of the training job, for dataset, base model and what is written.
    """
    findings = [*_names(files), *_space(files, layout, values, disk), *_duplicates(layout)]
    if nothing := _nothing_to_train_on(files, layout):
        return [*findings, nothing]
    return [*findings, *_sizes(layout, values), *_captions(files, layout, values, trigger_word)]


def _nothing_to_train_on(files: Sequence[InspectedFile], layout: Layout) -> Finding | None:
    images = [file for file in files if file.kind == "image"]
    if not images:
        message = "There is no image in the dataset's folder."
        remedy = "Put images (.jpg, .png, .webp, .bmp) beside the manifest or into <repeats>_<token> folders."
        return error("dataset-without-images", "", message, remedy)
    readable = any(image.width for image in images)
    unclear = any(finding.code == "layout-unclear" for finding in layout.findings)
    if readable and not layout.images and not unclear:
        message = "No image lies where training images are looked for."
        remedy = "Put them beside the manifest or into <repeats>_<token> folders; reg/ is for regularization."
        return error("dataset-without-images", "", message, remedy)
    if layout.images and not any(
        placed.source.lower().endswith(CAPTION_EXTENSIONS)
        for folder in layout.folders
        if not folder.is_regularization
        for placed in folder.files
    ):
        message = "None of the images has a caption."
        remedy = "Put a .txt file of the same name beside each image, with a sentence that describes it."
        return error("dataset-without-captions", "", message, remedy)
    return None


def _names(files: Sequence[InspectedFile]) -> Iterator[Finding]:
    """Keys of S3 that cannot become files: the training job would end while it downloads them."""
    folders = {str(folder) for file in files for folder in PurePosixPath(file.path).parents}
    for file in files:
        parts = file.path.split("/")
        if not is_plain(file.path):
            why = "has an empty part, '.', '..', a backslash or a control character in it"
        elif any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in parts):
            why = f"has a part of more than {_LONGEST_NAME} bytes"
        elif file.path in folders:
            why = "is also the name of a folder"
        else:
            continue
        message = f"The name {why}; it cannot become a file on the training machine."
        yield error("file-name-unusable", file.path, message, "Rename or delete the object.")


def _space(
    files: Sequence[InspectedFile], layout: Layout, values: Mapping[str, Any], disk: Disk
) -> Iterator[Finding]:
    size = sum(file.size for file in files)
    beside = BESIDE_DATASET + _latents(layout, values)
    if size + beside <= disk.size_gb * 1000**3:
        return
    message = (
        f"The dataset has {size / 1000**3:.1f} GB; with {beside / 1000**3:.1f} GB for the base model and what "
        f"training writes it does not fit the {disk.size_gb} GB of {disk.instance_type}'s "
        f"{'own disk' if disk.is_own else 'volume'}."
    )
    more = (
        "name a type with a larger disk in instance_types" if disk.is_own else "raise TrainingVolumeSizeInGB"
    )
    remedy = f"Scale the images down, take out what is not trained on, or {more}."
    yield error("dataset-too-large", "", message, remedy)


def _latents(layout: Layout, values: Mapping[str, Any]) -> float:
    """Bytes of the latents that the training keeps; 0 where planning tells that the resolution is none."""
    try:
        width, height = buckets.parse_resolution(values.get("resolution"))
    except buckets.BucketOptionsError:
        return 0
    images = sum(len(folder.images) for folder in layout.folders)
    return images * width * height * _LATENT_BYTES * (2 if values.get("flip_aug") else 1)


def _duplicates(layout: Layout) -> Iterator[Finding]:
    """Images of the same bytes: each copy counts as further repeats of one picture."""
    first: dict[str, str] = {}
    for folder in layout.folders:
        for image in folder.images:
            original = first.setdefault(image.sha256, image.path)
            if original != image.path:
                message = f"The image has the same content as {original}; that picture counts twice."
                remedy = "Remove one of the two, and raise the repeats if that is what is meant."
                yield warning("image-repeated", image.path, message, remedy)


def _sizes(layout: Layout, values: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        options = buckets.BucketOptions.of_config(dict(values))
    except buckets.BucketOptionsError:
        return  # planning tells of it
    for folder in layout.folders:
        for image in folder.images:
            yield from _size(image, options, values)


def _size(
    image: InspectedFile, options: buckets.BucketOptions, values: Mapping[str, Any]
) -> Iterator[Finding]:
    width, height = image.width or 1, image.height or 1
    measured = f"The image has {width} × {height} pixels"
    try:
        bucket = buckets.select(width, height, options)
    except buckets.NoBucketError as problem:
        message = f"{measured}; with bucket_no_upscale it {problem}, and the trainer stops at it."
        remedy = "Remove it, use a larger one, or set bucket_no_upscale to false."
        yield error("image-without-bucket", image.path, message, remedy)
        return
    if (
        not options.enable_bucket
        and not values.get("cache_latents")
        and not values.get("cache_latents_to_disk")
    ):
        # train_util.py, __getitem__: "image too large, but cropping and bucketing are disabled", "image size is small".
        too_large = width > bucket[0] or height > bucket[1]
        if width < bucket[0] or height < bucket[1] or (too_large and not values.get("random_crop")):
            message = (
                f"{measured}, not {bucket[0]} × {bucket[1]}; without aspect buckets the trainer stops at it."
            )
            yield error("image-size-refused", image.path, message, "Set enable_bucket to true.")
        return
    scale = max(bucket[0] / width, bucket[1] / height)
    if scale > _ENLARGED:
        message = f"{measured} and is enlarged {scale:.1f} times for its bucket of {bucket[0]} × {bucket[1]}."
        yield warning("image-too-small", image.path, message, "Use a larger one, or a lower resolution.")
    cut = 1 - (bucket[0] * bucket[1]) / (width * scale * height * scale)
    if cut > _CUT_AWAY:
        message = f"{measured}; no aspect bucket is near, {cut:.0%} of it is cut away for {bucket[0]} × {bucket[1]}."
        remedy = "Crop it to what matters" + (
            ", or widen min_bucket_reso and max_bucket_reso."
            if options.enable_bucket
            else ", or set enable_bucket."
        )
        yield warning("image-aspect-ratio", image.path, message, remedy)


def _captions(
    files: Sequence[InspectedFile], layout: Layout, values: Mapping[str, Any], trigger_word: str | None
) -> Iterator[Finding]:
    of_subject = {
        placed.source: not folder.is_regularization for folder in layout.folders for placed in folder.files
    }
    captions = [file for file in files if file.kind == "caption" and file.path in of_subject]
    most = values.get("max_token_length") or SHORTEST_LIMIT
    added = f"{values.get('caption_prefix', '')} {values.get('caption_suffix', '')}".casefold()
    expects_trigger = trigger_word is not None and trigger_word.casefold() not in added
    for caption in captions:
        if caption.tokens is not None and caption.tokens > most:
            message = f"The caption has {caption.tokens} tokens of CLIP; the trainer reads the first {most}."
            remedy = "Shorten it" + (", or set max_token_length to 150 or 225." if most < 225 else ".")
            yield warning("caption-too-long", caption.path, message, remedy)
        if expects_trigger and caption.lacks_trigger and of_subject[caption.path]:
            message = f"The caption does not hold the trigger word '{trigger_word}'."
            remedy = "Write it into the caption, or set caption_prefix, or leave trigger_word out."
            yield warning("caption-without-trigger-word", caption.path, message, remedy)
