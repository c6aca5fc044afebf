"""A picture for which the GPU has no room is left out, and the training that it was drawn for goes on: sizes are what a
prompt asks for, or estimated (samples.py).

sd-scripts 2e0fcc5: library/train_util.py, sample_images_common and sample_image_inference, which draws one prompt.
"""

from functools import wraps
from typing import Any

from kohya_trainer.trainer_events import tell


def leave_out_what_does_not_fit(train_util: Any, torch: Any) -> None:
    """Tells `no-picture` with the prompt's index. The processes of several GPUs draw without waiting for each other."""
    draw = train_util.sample_image_inference

    @wraps(draw)
    def drawn(
        accelerator: Any, args: Any, pipeline: Any, folder: Any, prompt: Any, *rest: Any, **more: Any
    ) -> None:
        if not _fits(lambda: draw(accelerator, args, pipeline, folder, prompt, *rest, **more), torch):
            # Only once the exception is gone does nothing hold the picture's tensors.
            torch.cuda.empty_cache()
            tell("no-picture", index=prompt["enum"])

    train_util.sample_image_inference = drawn


def _fits(draw: Any, torch: Any) -> bool:
    try:
        draw()
    except torch.cuda.OutOfMemoryError:
        return False
    return True
