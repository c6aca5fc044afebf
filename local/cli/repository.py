"""Where the repository is that these commands belong to."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
