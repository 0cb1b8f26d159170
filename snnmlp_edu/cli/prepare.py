"""The commands `snnmlp data prepare ...`: download or unpack a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..data import downloading, imagenet
from ..data.cifar import CIFAR
from ..data.cifar_images import write_from_images
from ..errors import InputError
from ..printing import printable

prepare_app = typer.Typer(
    help="Download a data set, or unpack ImageNet. A repeated call skips what is already done.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(metavar="PATH", help="Folder to put it in; created if needed.")]


Mirror = Annotated[str | None, typer.Option(help="Address of another copy of the files.")]


def _say_how_to_train(dataset: str, folder: Path) -> None:
    print(printable(f"train with: snnmlp train --recipe RECIPE dataset={dataset} data_dir={folder}"))


def _fetch(name: str, wanted: downloading.Download, folder: Path, mirror: str | None) -> None:
    for file in downloading.download(name, folder, wanted if mirror is None else wanted.at(mirror)):
        print(printable(file))
    _say_how_to_train(wanted.dataset, folder)


def _add_download(name: str, wanted: downloading.Download) -> None:
    def fetch(folder: Folder, mirror: Mirror = None) -> None:
        _fetch(name, wanted, folder, mirror)

    def fetch_or_write(
        folder: Folder,
        mirror: Mirror = None,
        from_images: Annotated[
            Path | None,
            typer.Option(help="Download nothing: make the files from PNGs in train/CLASS/ and test/CLASS/."),
        ] = None,
    ) -> None:
        if from_images is None:
            _fetch(name, wanted, folder, mirror)
            return
        if mirror is not None:
            raise InputError("--from-images downloads nothing; leave out --mirror")
        print(printable(write_from_images(name, from_images, folder, announce=True)))
        _say_how_to_train(wanted.dataset, folder)

    command = fetch_or_write if name in CIFAR else fetch
    command.__doc__ = f"Download {name.replace('_', '-')}. Source: {wanted.source}."
    prepare_app.command(name, epilog=f"Example: snnmlp data prepare {name} data/{name}")(command)


for _name, _wanted in downloading.DOWNLOADS.items():
    _add_download(_name, _wanted)


@prepare_app.command(
    "imagenet",
    epilog="Example: snnmlp data prepare imagenet data/imagenet --train ILSVRC2012_img_train.tar"
    " --val ILSVRC2012_img_val.tar --devkit ILSVRC2012_devkit_t12.tar.gz",
)
def prepare_imagenet(
    folder: Folder,
    train: Annotated[Path | None, typer.Option(help="ILSVRC2012_img_train.tar.")] = None,
    val: Annotated[Path | None, typer.Option(help="ILSVRC2012_img_val.tar.")] = None,
    devkit: Annotated[
        Path | None, typer.Option(help="ILSVRC2012_devkit_t12.tar.gz, which has the labels of val.")
    ] = None,
    synsets: Annotated[
        Path | None,
        typer.Option(help="Instead of --devkit: a text file with the synset of each val image, in order."),
    ] = None,
) -> None:
    """Unpack the archives of ImageNet-1K (https://image-net.org) into train/ and val/ with class folders.

    Give one archive or both. Each is compared with its published checksum; a
    folder gets its name when all of it is there.
    """
    if train is None and val is None:
        raise InputError("there is nothing to unpack; give --train ARCHIVE, or --val ARCHIVE, or both")
    if val is not None and (devkit is None) == (synsets is None):
        raise InputError("the images in --val have no labels of their own; give --devkit or --synsets")
    if val is not None:
        labels = imagenet.read_synsets(synsets) if synsets else imagenet.read_devkit(_given(devkit), folder)
        print(printable(imagenet.prepare_val(val, folder, labels)))
    if train is not None:
        print(printable(imagenet.prepare_train(train, folder)))
    print(printable(f"train with: snnmlp train --recipe imagenet_released data_dir={folder}"))


def _given(path: Path | None) -> Path:
    assert path is not None
    return path
