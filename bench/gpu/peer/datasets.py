"""As much of the package `datasets` as the peer's script asks for: a folder of pictures with captions beside them.

The real one needs pyarrow and much else; what it does here takes no time that the comparison would notice.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image


class utils:  # noqa: N801, the package's name
    class logging:  # noqa: N801
        set_verbosity_warning = set_verbosity_error = staticmethod(lambda: None)


class Folder:
    column_names = ("image", "text")

    def __init__(self, pictures: list[Path]) -> None:
        self.pictures = pictures
        self.transform: Callable[[dict[str, list[Any]]], dict[str, list[Any]]] = dict

    def with_transform(self, transform: Callable[..., Any], output_all_columns: bool = False) -> "Folder":
        self.transform = transform
        return self

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.pictures[index]
        caption = path.with_suffix(".txt").read_text(encoding="utf-8")
        columns = self.transform({"image": [Image.open(path)], "text": [caption]})
        return {name: values[0] for name, values in columns.items()}


def load_dataset(kind: str, data_files: dict[str, str], cache_dir: str | None = None) -> dict[str, Folder]:
    folder = Path(data_files["train"].removesuffix("**"))
    return {"train": Folder(sorted(folder.rglob("*.jpg")))}
