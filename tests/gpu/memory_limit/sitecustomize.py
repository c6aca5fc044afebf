"""With this folder on PYTHONPATH, the trainer has less memory than the machine. Only its own process is limited, not
what launches it.

GPU_MEMORY_LIMIT_GB: of 2**30 bytes, by torch's own limiter; a large GPU then behaves as a small one does.
HOST_MEMORY_LIMIT_GB: what the kernel gives a process to write to; beyond it an allocation fails.
"""

import os
import resource
import sys

# sys.argv is not filled yet. The launcher's command line names the trainer too, after its own module.
is_trainer = "-m" not in sys.orig_argv and any(name.endswith("_train_network.py") for name in sys.orig_argv)
if is_trainer and (host := os.environ.get("HOST_MEMORY_LIMIT_GB")):
    resource.setrlimit(resource.RLIMIT_DATA, (int(host) << 30, int(host) << 30))
if is_trainer and (gpu := os.environ.get("GPU_MEMORY_LIMIT_GB")):
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, float(gpu) * 2**30 / total))
