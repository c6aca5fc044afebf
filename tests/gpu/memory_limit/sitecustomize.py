"""With this folder on PYTHONPATH, torch's own limiter keeps the trainer below GPU_MEMORY_LIMIT_GB (of 2**30 bytes).

A large GPU then behaves as a small one does. Only the trainer's own process is limited, not what launches it.
"""

import os
import sys

limit = os.environ.get("GPU_MEMORY_LIMIT_GB")
# sys.argv is not filled yet. The launcher's command line names the trainer too, after its own module.
is_trainer = "-m" not in sys.orig_argv and any(name.endswith("_train_network.py") for name in sys.orig_argv)
if limit and is_trainer:
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, float(limit) * 2**30 / total))
