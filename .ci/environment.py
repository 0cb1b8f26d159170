"""Make .venv hold what pyproject.toml asks for, installed by uv, or by pip where uv cannot do it.

Run by `make setup` with the Python that `PYTHON` names. Nothing is done, and no network is asked for, while
.venv is whole and the dependencies are those that were installed. This file has to be readable for old
Pythons, too: it tells them that they are too old.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
READY = VENV / ".ready"  # written when all is installed: what was asked for, and where
OLDEST = (3, 11)
WHAT = ["--constraint", "constraints.txt", "--editable", ".[dev]"]


def main() -> None:
    """Leave a .venv in which everything is installed, or end in one line that says why there is none."""
    asked = os.environ.get("PYTHON")
    found = version_of_environment()
    usable = found is not None and found >= OLDEST and (not asked or found == sys.version_info[:2])
    if usable and READY.is_file() and READY.read_bytes() == wanted():
        return
    if not usable:
        if sys.version_info < OLDEST:
            newer = "name another, as in make PYTHON=python3.12"
            this = "{} is {}.{}".format(asked or "python3", *sys.version_info[:2])
            sys.exit(f"snnmlp-edu needs Python 3.11 or newer, and {this}: {newer}")
        if VENV.is_dir():
            state = "broken" if found is None else "of Python {}.{}".format(*found)
            print(f"The .venv here is {state}: it is made anew.", flush=True)
    print("Installing into .venv; the first time this takes some minutes.", flush=True)
    READY.unlink(missing_ok=True)
    # A usable environment is completed by the Python that made it: pip may be missing from it.
    maker, how = (str(PYTHON), []) if usable else (sys.executable, ["--clear"])
    run(maker, "-m", "venv", *how, ".venv")
    trouble = install_with_uv()
    if trouble:
        print(f"uv did not install ({trouble}): pip does.", flush=True)
        run(str(PYTHON), "-m", "pip", "install", "--quiet", *WHAT)
    READY.write_bytes(wanted())


def wanted() -> bytes:
    """What .venv has to agree with: the dependencies, and this folder, to which its packages point."""
    files = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return b"\n".join([*files, os.fsencode(str(ROOT))])


def version_of_environment() -> "tuple[int, ...] | None":
    """Version of the Python in .venv, None where there is none that runs."""
    ask = "import sys; print(*sys.version_info[:2])"
    try:
        words = subprocess.check_output([str(PYTHON), "-c", ask], stderr=subprocess.DEVNULL).split()
        return tuple(int(word) for word in words)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def install_with_uv() -> str:
    """Install with the uv on the path, or one that pip brings; returns what went wrong, empty if nothing."""
    uv = [shutil.which("uv")] if shutil.which("uv") else [str(PYTHON), "-m", "uv"]
    missing = "" if shutil.which("uv") else attempt([str(PYTHON), "-m", "pip", "install", "--quiet", "uv"])
    install = [*uv, "pip", "install", "--quiet", "--python", str(PYTHON), *WHAT]
    return missing or attempt(install, dict(settings_for_uv(), **os.environ))


def attempt(command: "list[str]", environment: "dict[str, str] | None" = None) -> str:
    """Run a command; returns the first line of its complaint, empty if it succeeded."""
    try:
        done = subprocess.run(command, cwd=str(ROOT), env=environment, stderr=subprocess.PIPE, check=False)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode == 0:
        return ""
    said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines()]
    complaints = [line for line in said if line and not line.lower().startswith("warning")]
    return complaints[0] if complaints else f"exit code {done.returncode}"


def settings_for_uv() -> "dict[str, str]":
    """The indexes that pip is configured with, in uv's words: uv itself does not read pip's configuration."""
    ask = [str(PYTHON), "-m", "pip", "config", "list"]
    listed = subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    found = {}
    # Lines are like global.index-url='...' and :env:.index-url='...'; the environment has the last word.
    for line in sorted(listed.decode(errors="replace").splitlines(), key=lambda line: line[0:1] == ":"):
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2]] = value.strip("'\"").replace("\\n", " ").split()
    settings = {
        "UV_DEFAULT_INDEX": " ".join(found.get("index-url", [])),
        "UV_INDEX": " ".join(found.get("extra-index-url", [])),
        # The newest of all indexes, as pip has it, and not that of the first which knows the name.
        "UV_INDEX_STRATEGY": "unsafe-best-match" if "extra-index-url" in found else "",
        "UV_FIND_LINKS": ",".join(found.get("find-links", [])),
        "SSL_CERT_FILE": " ".join(found.get("cert", [])),
    }
    return {name: value for name, value in settings.items() if value}


def run(*command: str) -> None:
    """Run a command that tells by itself what goes wrong; its failure ends this program."""
    done = subprocess.run(command, cwd=str(ROOT), check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
