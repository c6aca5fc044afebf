"""The U-Net's element-wise work in kernels of Triton, each of which reads and writes its tensors once.

For frozen layers: normalisations have no gradients of their own weights. Sums are taken in fp32. Every kernel has its
autograd function beside it.
"""
