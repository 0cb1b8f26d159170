"""`snnmlp data prepare`: published files from a server of ours, and ImageNet from archives in its format."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from image_sets import cifar_files, write_cifar, write_idx
from PIL import Image
from test_cli import assert_wrong_usage, call
from torchvision.datasets import imagenet as reference

from snnmlp_edu.data import downloading, imagenet
from snnmlp_edu.data.downloading import DOWNLOADS, Download, download
from snnmlp_edu.data.sources import open_source
from snnmlp_edu.errors import InputError


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the loopback address under which its files can be fetched."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "published"
    folder.mkdir()
    handler = partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


# --- downloads ---------------------------------------------------------------------------------------


def test_checksums_are_those_of_torchvision() -> None:
    """An independent list of the published files."""
    from torchvision import datasets

    ours = {name: md5 for wanted in DOWNLOADS.values() for name, md5 in wanted.md5.items()}
    assert {name: ours[name] for name, _ in datasets.FashionMNIST.resources} == dict(
        DOWNLOADS["mnist"].md5
    ), "both have the same four names"
    for name, published in (("mnist", datasets.MNIST), ("fashion_mnist", datasets.FashionMNIST)):
        assert DOWNLOADS[name].md5 == dict(published.resources)
        assert DOWNLOADS[name].address in published.mirrors
    for name, archive in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        (file,) = DOWNLOADS[name].md5  # the published one beside the one that torchvision unpickles
        assert f"{DOWNLOADS[name].address}{file}" == archive.url.replace("python", "binary")


def test_idx_files_are_fetched_checked_and_found_again(server: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = server
    write_idx(folder)
    for file in folder.glob("*ubyte"):
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    wanted = Download(address, {file.name: md5(file.read_bytes()) for file in folder.iterdir()})
    place = tmp_path / "mnist ä"
    files = download("mnist", place, wanted)
    assert {file.name: file.read_bytes() for file in files} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    assert len(open_source("idx", place).load("train").labels) == 40
    for file in folder.iterdir():
        file.unlink()  # nothing is fetched a second time
    assert download("mnist", place, wanted) == files
    assert sorted(place.iterdir()) == sorted(files), "nothing else is left behind"


def test_an_archive_is_fetched_by_the_command(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    archive, checksum = write_cifar(folder, "cifar10", cifar_files("cifar10"))
    place = tmp_path / "cifar"
    published = ("data", "prepare", "cifar10", place, "--mirror", address)
    message = rf"{archive.name} is not the published file \(MD5 c32a1d4ab5d03f1284b67883e8d87530 expected\)"
    assert_wrong_usage(call(*published), message)
    assert list(place.iterdir()) == [], "nothing was kept"
    generated = Download("https://example.invalid/", {archive.name: checksum}, "cifar10")
    files = download("cifar10", place, generated.at(address.rstrip("/")))
    assert files == [place / archive.name]
    assert len(open_source("cifar10", place, checksum).load("test").labels) == 40


def test_what_cannot_be_fetched_says_what_to_do(server: tuple[Path, str], tmp_path: Path) -> None:
    monkeypatched = Download(server[1], {"absent.gz": "0" * 32})
    with pytest.raises(
        InputError, match=r"absent\.gz cannot be downloaded \(404 .*put the file into .* yourself"
    ):
        download("mnist", tmp_path / "place", monkeypatched)
    nobody = Download("http://127.0.0.1:9/", {"absent.gz": "0" * 32})
    with pytest.raises(InputError, match=r"absent\.gz cannot be downloaded \(.*put the file"):
        download("mnist", tmp_path / "place", nobody)


def test_a_file_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"mine")
    message = "gz exists with another MD5 than c32a1d4ab5d03f1284b67883e8d87530; remove it"
    assert_wrong_usage(call("data", "prepare", "cifar10", tmp_path), message)
    assert (tmp_path / "cifar-10-binary.tar.gz").read_bytes() == b"mine"


@pytest.mark.parametrize("name", [*DOWNLOADS, "imagenet"])
def test_every_command_has_an_example(name: str) -> None:
    code, out, _ = call("data", "prepare", name, "--help")
    assert code == 0
    assert f"Example: snnmlp data prepare {name}" in " ".join(out.split())


# --- ImageNet ----------------------------------------------------------------------------------------

SYNSETS = ("n01440764", "n02012849", "n03126707")


def jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (30, 40), (shade, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
        for name, held in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(held)
            archive.addfile(member, io.BytesIO(held))
    return content.getvalue()


def train_archive(folder: Path) -> tuple[Path, str]:
    """`ILSVRC2012_img_train.tar`: an archive of one archive for each class."""
    inner = {
        f"{synset}.tar": tar({f"{synset}_{i}.JPEG": jpeg(50 * number + i) for i in range(1, 4)})
        for number, synset in enumerate(SYNSETS)
    }
    file = folder / "ILSVRC2012_img_train.tar"
    file.write_bytes(tar(inner))
    return file, md5(file.read_bytes())


def val_archive(folder: Path, images: int = 6) -> tuple[Path, str]:
    files = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(i) for i in range(1, images + 1)}
    file = folder / "ILSVRC2012_img_val.tar"
    file.write_bytes(tar(files))
    return file, md5(file.read_bytes())


def devkit(folder: Path, truth: tuple[int, ...] = (3, 1, 2, 2, 3, 1)) -> tuple[Path, str]:
    """The devkit, whose numbers do not follow the synsets, and which has nodes that are no classes."""
    from scipy.io import savemat

    fields = [
        ("ILSVRC2012_ID", "O"),
        ("WNID", "O"),
        ("words", "O"),
        ("gloss", "O"),
        ("num_children", "O"),
        ("children", "O"),
        ("wordnet_height", "O"),
        ("num_train_images", "O"),
    ]
    rows = [
        (1, SYNSETS[2], "crane", "lifts", 0, [], 0, 3),
        (2, SYNSETS[0], "tench, Tinca tinca", "a fish", 0, [], 0, 3),
        (3, SYNSETS[1], "crane", "a bird", 0, [], 0, 3),
        (4, "n00001740", "entity", "all", 3, [1, 2, 3], 1, 0),
    ]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array([rows], dtype=fields).T})
    top = "ILSVRC2012_devkit_t12"
    files = {
        f"{top}/data/meta.mat": meta.getvalue(),
        f"{top}/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in truth).encode(),
        f"{top}/readme.txt": b"",
    }
    file = folder / "ILSVRC2012_devkit_t12.tar.gz"
    file.write_bytes(tar(files, "w:gz"))
    return file, md5(file.read_bytes())


def publish(kind: str, file: Path, checksum: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an archive be the one whose checksum torchvision knows."""
    monkeypatch.setitem(reference.ARCHIVE_META, kind, (file.name, checksum))


def test_imagenet_is_unpacked_into_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = {"train": train_archive(tmp_path), "val": val_archive(tmp_path), "devkit": devkit(tmp_path)}
    for name, (file, checksum) in archives.items():
        publish(name, file, checksum, monkeypatch)
    place = tmp_path / "image net"
    (place / ".train.partial" / "train" / SYNSETS[0]).mkdir(parents=True)
    (place / ".train.partial" / "train" / SYNSETS[0] / "half.JPEG").write_bytes(b"of a call that was cut off")
    words = [word for name, (file, _) in archives.items() for word in (f"--{name}", file)]
    code, out, err = call("data", "prepare", "imagenet", place, *words)
    assert code == 0, err
    assert f"snnmlp train --recipe imagenet_released data_dir={place}" in out
    truth = [SYNSETS[1], SYNSETS[2], SYNSETS[0], SYNSETS[0], SYNSETS[1], SYNSETS[2]]
    for number, synset in enumerate(truth, 1):
        file = place / "val" / synset / f"ILSVRC2012_val_{number:08}.JPEG"
        assert file.read_bytes() == jpeg(number)
    source = open_source("imagenet", place)
    assert [name.split(maxsplit=1)[0] for name in source.class_names] == list(SYNSETS)
    assert "n02012849 crane" in source.class_names
    assert imagenet.same_classes(source.class_names, SYNSETS), "a copy without words has the same classes"
    assert not imagenet.same_classes(source.class_names, SYNSETS[::-1])
    assert source.pictures("train").labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (place / "train" / SYNSETS[2] / f"{SYNSETS[2]}_2.JPEG").read_bytes() == jpeg(102)
    assert "n02012849 crane\n" in (place / "words.txt").read_text()
    assert sorted(p.name for p in place.iterdir()) == ["train", "val", "words.txt"]
    for file, _ in (archives["train"], archives["val"]):
        file.unlink()
    assert call("data", "prepare", "imagenet", place, *words)[0] == 0, "a second call finds it done"


def test_labels_may_come_from_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, checksum = val_archive(tmp_path, images=3)
    publish("val", file, checksum, monkeypatch)
    listed = tmp_path / "labels.txt"
    listed.write_text("\n".join((SYNSETS[2], SYNSETS[0], SYNSETS[2])) + "\n")
    place = imagenet.prepare_val(file, tmp_path / "place", imagenet.read_synsets(listed))
    assert sorted(p.name for p in place.rglob("*.JPEG")) == [f"ILSVRC2012_val_{i:08}.JPEG" for i in (1, 2, 3)]
    assert (place / SYNSETS[0] / "ILSVRC2012_val_00000002.JPEG").is_file()
    for labels in (SYNSETS[:2], SYNSETS + SYNSETS):
        with pytest.raises(InputError, match=f"holds 3 images and there are {len(labels)} labels"):
            imagenet.prepare_val(file, tmp_path / "elsewhere", labels)
        assert list((tmp_path / "elsewhere").iterdir()) == [], "nothing is left half done"
    listed.write_text("n01440764\ntench\n")
    with pytest.raises(InputError, match=r"labels\.txt has 'tench' as entry 2; write synsets such as"):
        imagenet.read_synsets(listed)


def test_other_archives_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    file, checksum = train_archive(tmp_path)
    with pytest.raises(InputError, match=r"train\.tar is not .*MD5 1d675b47d978889d74fa0da5fadfb00e"):
        imagenet.prepare_train(file, place)
    publish("train", file, checksum, monkeypatch)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"train\.tar is not .*MD5 {checksum}"):
        imagenet.prepare_train(file, place)
    assert list(place.iterdir()) == [], "nothing is left half done"


@pytest.mark.parametrize("deeper", [False, True])
def test_nothing_is_written_outside_the_folder(
    deeper: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even of the archive that is asked for."""
    evil = tar({"../../../evil.JPEG": b"x"})
    file = tmp_path / "train.tar"
    file.write_bytes(tar({"n01440764.tar": evil}) if deeper else evil)
    publish("train", file, md5(file.read_bytes()), monkeypatch)
    with pytest.raises(InputError, match=r"train\.tar cannot be unpacked .*evil\.JPEG"):
        imagenet.prepare_train(file, tmp_path / "deep" / "place")
    assert not list(tmp_path.rglob("evil.JPEG"))
    assert not list((tmp_path / "deep" / "place").iterdir())
    assert tarfile.TarFile.extraction_filter is None, "other programs' archives are read as before"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is nothing to unpack; give --train ARCHIVE, or --val ARCHIVE, or both"),
        (["--val", "v.tar"], "the images in --val have no labels of their own; give --devkit or --synsets"),
        (["--train", "absent.tar"], r"there is no file absent\.tar; give the archive from https://image-net"),
        (["--val", "v.tar", "--synsets", "no.txt"], r"there is no file no\.txt; give one with the synset"),
        (["--val", "v.tar", "--devkit", "no.tar.gz"], r"there is no file no\.tar\.gz; give the archive"),
    ],
)
def test_wrong_calls_get_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_wrong_usage(call("data", "prepare", "imagenet", "place", *words), message)
    assert list(tmp_path.iterdir()) == []


def test_every_address_is_a_folder() -> None:
    for wanted in downloading.DOWNLOADS.values():
        assert wanted.address.endswith("/")
        assert wanted.source
