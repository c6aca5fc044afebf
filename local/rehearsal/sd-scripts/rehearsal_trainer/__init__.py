"""A CPU stand-in for Kohya's SDXL LoRA trainer that optimises a small low-rank denoiser on the dataset's
pixels.
"""

import os

# One thread: the same run gives the same numbers, and the emulator beside it keeps a core. Here, because numpy reads it
# when it is first imported, and the container's hooks import modules of this package before the trainer's script runs.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
