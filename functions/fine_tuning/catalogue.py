"""Every code that a finding may have: the one list. docs/findings.md is written from it.

A finding with another code, or with a severity that its code never has, cannot be made (findings.Finding).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Code:
    """What a code means.

    Attributes:
        severities: those that it may have, the usual one first.
        cause: what is wrong, and what would come of it on the GPU.
        remedy: what to change.
    """

    severities: tuple[Severity, ...]
    cause: str
    remedy: str


def _error(cause: str, remedy: str) -> Code:
    return Code(("error",), cause, remedy)


def _warning(cause: str, remedy: str) -> Code:
    return Code(("warning",), cause, remedy)


def _note(cause: str, remedy: str = "Nothing to do.") -> Code:
    return Code(("note",), cause, remedy)


_MANIFEST = {
    "manifest-too-large": _error(
        "manifest.json has more than 1 MiB.", "Leave out `files`, or give `images`, their number, instead."
    ),
    "manifest-json-byte-order-mark": _error(
        "The file begins with a byte order mark, which JSON does not know.",
        "Save it as UTF-8 without byte order mark.",
    ),
    "manifest-json-not-utf8": _error("The file is not UTF-8.", "Save it as UTF-8."),
    "manifest-json-invalid": _error(
        "The file is not JSON, or a number in it is too long to be read.",
        "Correct it at the line and column that the message names.",
    ),
    "manifest-json-too-deep": _error(
        "Values are nested more than 32 deep.",
        "Write the manifest as its schema shows; it needs four levels.",
    ),
    "manifest-json-repeated-key": _error(
        "One key appears twice in an object; readers of JSON disagree about which counts.",
        "Keep one of the two.",
    ),
    "manifest-json-not-a-number": _error(
        "NaN or Infinity stands where JSON has no such number.", "Write a finite number."
    ),
    "manifest-not-an-object": _error("The document is no object.", 'Begin with {"version": 1}.'),
    "manifest-unknown-key": _error(
        "A key is not one of the manifest's; it would do nothing.", "Correct or remove it."
    ),
    "manifest-invalid": _error(
        "A value is not what its key takes, or two keys exclude each other.",
        "Give what events/manifest.schema.json describes.",
    ),
    "manifest-path-outside": _error(
        "A declared path leaves the dataset's folder: absolute, with `.` or `..`, an address of a bucket, "
        "percent-encoded, with a backslash or a control character.",
        "Write the path relative to the manifest, as the file is named, with forward slashes.",
    ),
    "manifest-path-repeated": _error("A path is declared twice.", "Declare it once."),
    "manifest-path-ambiguous": _error(
        "Two declared paths differ only in case or in how Unicode writes an accent: on many disks they are "
        "one file.",
        "Rename one of the two files.",
    ),
}

_UPLOAD = {
    "file-missing": _error(
        "A declared file never arrived.", "Upload it beside the manifest, then drop the manifest again."
    ),
    "images-missing": _error(
        "Fewer images arrived than `images` announces.",
        "Upload the rest, or correct `images`, then drop the manifest again.",
    ),
    "upload-unfinished": _error(
        "The upload of a large file had begun and was not over in time; training would have gone without it.",
        "Let it end, or upload the file again, then drop the manifest again.",
    ),
    "file-size-differs": _error(
        "A file has another size than the manifest declares.", "Upload it again, or correct the manifest."
    ),
    "file-digest-differs": _error(
        "A file has another sha256 than the manifest declares.", "Upload it again, or correct the manifest."
    ),
    "file-too-large": _error(
        "An image, a caption or the TOML is larger than it need be; it is not read.",
        "Scale the image down, or move the file out of the dataset.",
    ),
}

_IMAGES = {
    "image-empty": _error("The file has no bytes.", "Upload the image again."),
    "image-unreadable": _error(
        "The content is no image, or a damaged one; the trainer would stop at it.",
        "Export it again as JPEG, PNG, WebP or BMP.",
    ),
    "image-truncated": _error(
        "The image ends too early; the trainer would stop at it while it caches latents.",
        "Export and upload it again.",
    ),
    "image-too-large": _error(
        "The image claims more pixels than can be decoded in bounded memory.", "Scale it down."
    ),
    "image-format-unsupported": Code(
        ("error", "note"),
        "The format is none that the trainer reads (HEIC, AVIF, SVG, PDF, GIF, TIFF and the like). A note where an "
        "image of the same name that it reads lies beside it.",
        "Save it as JPEG, PNG, WebP or BMP.",
    ),
    "image-16-bit": _error(
        "The image has 16 bits (or more) of grey a pixel; the trainer makes it all but white.",
        "Save it with 8 bits a channel.",
    ),
    "image-size-refused": _error(
        "Without aspect buckets and cached latents the trainer takes images of exactly its resolution only.",
        "Set enable_bucket to true.",
    ),
    "image-without-bucket": _error(
        "With bucket_no_upscale an image that is smaller than a bucket step, or very narrow, has no aspect bucket; the "
        "trainer stops at it.",
        "Remove it, use a larger one, or set bucket_no_upscale to false.",
    ),
    "image-extension-differs": _warning(
        "The name's extension is that of another format; the trainer reads the content all the same.",
        "Rename the file.",
    ),
    "image-extension-case": _note(
        "The trainer finds neither extensions of small and capital letters mixed nor .jfif and .jpe; the image is "
        "staged under a name that it finds."
    ),
    "image-too-small": _warning(
        "The image is smaller than its aspect bucket and is enlarged by more than a quarter.",
        "Use a larger one, or a lower resolution.",
    ),
    "image-aspect-ratio": _warning(
        "No aspect bucket is near the image's proportions; more than a quarter of it is cut away.",
        "Crop it to what matters, or set enable_bucket and widen min_bucket_reso and max_bucket_reso.",
    ),
    "image-orientation": _warning(
        "EXIF says that the image is turned or mirrored; the trainer does not look and trains on it as it lies.",
        "Save it upright, for example with: mogrify -auto-orient, or jhead -autorot.",
    ),
    "image-animated": _warning(
        "The image is an animation; only its first frame is trained on.",
        "Save the frames that are meant as images of their own.",
    ),
    "image-cmyk": _warning(
        "The image is CMYK; the trainer turns it into RGB without its colour profile.", "Convert it to sRGB."
    ),
    "image-colour-profile": Code(
        ("warning", "note"),
        "The image's colours are not sRGB's, and the trainer reads no colour profile: they are learned too pale. A "
        "note where that is little (Display P3, what telephones take).",
        "Convert it to sRGB.",
    ),
    "image-transparent": _warning(
        "Parts of the image are transparent; the trainer shows whatever colour lies beneath, often black.",
        "Put it on a background, unless alpha_mask is set.",
    ),
    "image-palette": _note(
        "The image has a palette of at most 256 colours; what was lost to it is trained on.",
        "Use the original, if there is one.",
    ),
    "image-repeated": _warning(
        "Two images have the same bytes; that picture counts twice.",
        "Remove one of the two, and raise the repeats if that is what is meant.",
    ),
    "image-name-shared": _warning(
        "Images share one name before the extension, and so one caption.",
        "Give each image a name of its own.",
    ),
}

_CAPTIONS = {
    "caption-missing": _warning(
        "An image has no caption; the trainer takes the folder's token instead.",
        "Add a .txt file of the same name with a sentence that describes the image.",
    ),
    "caption-empty": Code(
        ("warning", "error"),
        "A caption says nothing, and the image is trained without text; an error where the file has no bytes, "
        "because the trainer stops at it.",
        "Describe the image, or delete the file.",
    ),
    "caption-byte-order-mark": _warning(
        "The caption begins with a byte order mark, which the trainer takes for a character of it.",
        "Save it as UTF-8 without byte order mark.",
    ),
    "caption-lines": _warning(
        "The caption has several lines; only the first is trained on.",
        "Write it on one line, or set enable_wildcard to have a line drawn each time.",
    ),
    "caption-too-long": _warning(
        "The caption has more tokens of CLIP's own tokenizer than max_token_length (75 where nothing is said); "
        "the rest is not read.",
        "Shorten it, or set max_token_length to 150 or 225.",
    ),
    "caption-without-trigger-word": _warning(
        "The manifest names a trigger word and the caption does not hold it.",
        "Write it into the caption, or set caption_prefix, or leave trigger_word out.",
    ),
    "caption-not-utf8": _error("A caption is not UTF-8; the trainer would stop at it.", "Save it as UTF-8."),
    "caption-without-image": _warning(
        "A caption has no image beside it; it is not used.", "Upload its image, or remove the caption."
    ),
    "caption-repeated": _warning(
        "An image has several captions; one is used.", "Remove those that are not meant."
    ),
}

_LAYOUT = {
    "dataset-without-images": _error(
        "No image lies where training images are looked for.",
        "Put images beside the manifest or into <repeats>_<token> folders.",
    ),
    "dataset-without-captions": _error(
        "None of the images has a caption.", "Put a .txt file of the same name beside each image."
    ),
    "dataset-too-large": _error(
        "Dataset, base model and what training writes do not fit the training job's disk together.",
        "Scale the images down, take out what is not trained on, name an instance type with a larger disk, or, "
        "where it has none of its own, raise TrainingVolumeSizeInGB.",
    ),
    "layout-unclear": _error(
        "Images lie in several folders, none of which says how often to repeat its images; or the folders that say so "
        "do not lie side by side.",
        "Name each folder <repeats>_<token>, side by side, or put all images beside the manifest.",
    ),
    "layout-guessed": _warning(
        "The only folder of images has a name that seems to say repeats, but not as the trainer reads them: the "
        "manifest's `repeats`, or 10, are taken. Or images lie both beside the manifest and in <repeats>_<token> "
        "folders below another: where more are is trained on. Or a lone folder below another has a number such as 01.",
        "Name the folder <repeats>_<token>, or write `repeats` into the manifest; or take out what is not meant.",
    ),
    "repeats-too-many": _error(
        "A folder's name says more than 1000 repeats, as one that begins with a year does; the trainer would obey.",
        "Name it with the repeats that are meant, for example 10_holiday.",
    ),
    "folder-without-token": _note(
        "A folder's name says repeats but no token: its images without a caption would have no text at all. "
        "The trigger word, or `subject`, is added.",
        "Name it <repeats>_<token>.",
    ),
    "regularization-unused": _warning(
        "There are more regularization images than training images, repeats counted; the rest is never used.",
        "Remove some, or lower their repeats.",
    ),
    "file-name-unusable": _error(
        "An object's key cannot become a file on the training machine; its download would end the job.",
        "Rename or delete the object.",
    ),
    "file-outside-layout": _warning(
        "No folder that is trained on holds the file; it is not used, and nothing else is said of it.",
        "To train on it, move it into a folder named <repeats>_<token>; images for regularization belong into "
        "reg/<repeats>_<class>.",
    ),
    "file-not-used": Code(
        ("warning", "note"),
        "The file is neither an image nor a caption; it is not used. A note where a system or a program left it "
        "behind.",
        "Remove it, or rename it if it is one.",
    ),
}

_CONFIGURATION = {
    "config-too-large": _error("The configuration has more than 1 MiB.", "Leave only Kohya's options in it."),
    "config-not-toml": _error(
        "The configuration is not TOML.", "Correct it at the place that the message names."
    ),
    "option-unknown": _warning(
        "The trainer has no such option; it does nothing, and the trainer would not say so.",
        "Correct or remove it.",
    ),
    "option-invalid": _error(
        "A value is of another type, or outside what the trainer takes or can work with.",
        "Give the option another value, or remove it.",
    ),
    "option-refused": _error(
        "The option imports code by name, uploads, holds a secret, names a file of the training machine, or "
        "ends the job before it trains.",
        "Remove it.",
    ),
    "option-overridden": _note("The option is set by the application; what it says is not used."),
    "option-repeated": _warning(
        "One option stands in several sections of the TOML; the trainer flattens them, and the last one counts.",
        "Keep one of them.",
    ),
    "options-contradict": _error(
        "Options that the trainer refuses together: it would stop after the instance was started.",
        "Remove or correct one of them.",
    ),
    "options-ignored": _warning(
        "An option does nothing beside the others, and the trainer does not say so.", "Remove it."
    ),
    "options-harmful": _warning(
        "Options that the trainer takes together, to no good.", "Do what the message's remedy says."
    ),
    "precision-unsupported": _error(
        "bf16 is asked for on a GPU older than Ampere (T4, V100, K80, M60), which emulates it.",
        "Set mixed_precision to fp16, or name an instance with a newer GPU.",
    ),
    "precision-changed": _note(
        "The preset's bf16 becomes fp16, because the instance's GPU has no bf16.",
        "Name an instance with a newer GPU for bf16.",
    ),
    "instance-without-gpu": _error(
        "An instance type of the manifest has no NVIDIA GPU that the training image runs on.",
        "Name one such as ml.g5.2xlarge or ml.g6.2xlarge.",
    ),
}

_PLAN = {
    "nothing-held-back": _warning(
        "The validation split is so small that no image of any folder is held back: there is no validation loss, or "
        "one of images that are trained on.",
        "Raise validation_split to the share that the message names, or remove it.",
    ),
    "steps-planned": _note(
        "Nothing says how long to train, so epochs were planned: never the trainer's silent 1600 steps.",
        "Set max_train_epochs or max_train_steps in `config` for another length.",
    ),
    "base-model-elsewhere": _error(
        "The base model lies in a bucket that the training job cannot read.",
        "Copy it below models/ of this bucket.",
    ),
    "base-model-missing": _error(
        "There is no base model at the address.", "Upload it there, or correct `base_model`."
    ),
    "base-model-not-sdxl": _error(
        "The base model is one of Stable Diffusion 1 or 2, or SDXL's refiner; the SDXL trainer stops at it.",
        "Name one of SDXL as `base_model`, or none for SDXL base 1.0.",
    ),
    "base-model-replaced": _warning(
        "The configuration names a base model by a path of another machine; another model is trained on.",
        "Upload it below models/ of the bucket and name its address as `base_model`, or remove the option.",
    ),
    "base-model-unpinned": _warning(
        "The configuration names what can only be a model of the hub; it is trained on as its branch main is then.",
        "Name it as `base_model` in the manifest, with a revision.",
    ),
    "price-unknown": Code(
        ("warning", "error"),
        "No price of the instance type is known, so the cost cannot be quoted; an error where there is a budget.",
        "Name another instance type, or set no budget.",
    ),
    "recipe-chosen": _note(
        "More images a step than the preset's take less time on this GPU, so that many are shown, at a rate that "
        "belongs to it; or several GPUs share the images of a step.",
        'Put "recipe": {"scale_batch": false} into the manifest to keep the preset\'s; a batch, rate or steps of your '
        "own stay.",
    ),
    "images-multiplied": _warning(
        "Several GPUs show a batch each, so that a step has more images than the learning rate was set for.",
        "Do what the message says: a smaller batch, fewer GPUs, or a rate for that many images.",
    ),
    "recipe-fitted": _note(
        "The preset needs more GPU memory than there is, so that it is trained in a way that needs less.",
        "Set these options in `config` to decide yourself, or name instances with more GPU memory.",
    ),
    "gpu-memory-exceeded": _error(
        "The recipe needs more memory than the GPU of the instance type has; training would end at its first step.",
        "Do what the message says: checkpointing, a smaller batch, or a larger GPU.",
    ),
    "budget-exceeded": _error(
        "The quote is above the budget of the manifest or of the stack.",
        "Do what the message says: fewer epochs, a cheaper instance type, or a larger max_cost_usd.",
    ),
    "budget-kept": _note("The job is ended before it can cost more than the budget."),
    "runtime-exceeded": _error(
        "The quote is above the longest job that the stack allows.",
        "Train fewer steps, name a faster instance type, or raise MaxTrainingRuntimeInSeconds.",
    ),
    "rung-left-out": _warning(
        "An instance type of the ladder is too dear, too slow, or has another number of GPUs than the first.",
        "Nothing to do, or remove it from instance_types.",
    ),
    "retry-differs": _warning(
        "The files of a retried run are others than those of the first, so training begins anew.",
        "Nothing to do, or put the files back and retry again.",
    ),
    "spot-loses-steps": _warning(
        "An interruption of spot capacity loses more than ten minutes: with gradient accumulation up to an epoch, with "
        "Kohya v22.6.2 all that was trained.",
        "Leave out `spot`, or use Kohya v25.2.2 without gradient accumulation.",
    ),
    "spot-quote": _note(
        "A run on spot capacity may fall back on demand, so the budget is held against that price."
    ),
}

AREAS: Mapping[str, Mapping[str, Code]] = {
    "Manifest": _MANIFEST,
    "Upload": _UPLOAD,
    "Images": _IMAGES,
    "Captions": _CAPTIONS,
    "Layout": _LAYOUT,
    "Kohya configuration": _CONFIGURATION,
    "Plan and quote": _PLAN,
}
CATALOGUE: Mapping[str, Code] = {code: meaning for area in AREAS.values() for code, meaning in area.items()}
