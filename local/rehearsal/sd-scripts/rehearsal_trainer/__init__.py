"""A CPU stand-in for Kohya's SDXL LoRA trainer that optimises a small low-rank denoiser on the dataset's
pixels.
"""
