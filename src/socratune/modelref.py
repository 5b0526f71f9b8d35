"""Which model a name means, whether it exists, and what identifies its weights; loads nothing heavy."""

from __future__ import annotations

import hashlib
from pathlib import Path

from socratune.config import DEMO, DEMO_DATA
from socratune.errors import Fault, OutsideError, Shown

_SAMPLE_BYTES = 1 << 20


def model_location(name: str) -> str:
    """What transformers' `from_pretrained` takes: a directory, or a Hub id. The name `demo` is the embedded model."""
    return str(DEMO_DATA / "base") if name == DEMO else name


def model_fault(name: str, where: str = "--model") -> Fault | None:
    """Why `name` is no model, or None.

    Raises:
        OutsideError: it looks like a Hub id that is not in the local cache, and the Hub could not be asked.
    """
    location = Path(model_location(name))
    if location.is_dir():
        missing = [file for file in ("config.json",) if not (location / file).is_file()]
        if (location / "adapter_config.json").is_file():
            fix = "Name its base model; an adapter is trained on a base."
            return Fault(f"{where} {name}", "a base model", Shown("a LoRA adapter"), fix)
        if missing:
            return Fault(f"{where} {name}", "a model folder", Shown(f"a folder without {missing[0]}"))
        return None
    if location.exists():
        return Fault(f"{where} {name}", "a model folder or a Hub id", Shown("a file"))
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or not name.strip():
        return Fault(f"{where} {name}", "a model folder or a Hub id", Shown("no such folder"))
    return _hub_fault(name, where)


def _hub_fault(name: str, where: str) -> Fault | None:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return None
        HfApi().model_info(name, timeout=20)
    except HFValidationError:
        return Fault(f"{where} {name}", "a model folder or a Hub id like org/name", Shown("neither"))
    except RepositoryNotFoundError:
        fix = "Check the spelling; for a private or gated model set HF_TOKEN."
        return Fault(f"{where} {name}", "a model on the Hugging Face Hub", Shown("none of that name"), fix)
    except Exception as error:  # the client's transport errors have no common class across its versions
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutsideError(
            f"{where} {name}: no such folder, and the Hugging Face Hub could not be asked ({reason[:200]}). "
            f"Check the spelling and the network, or use --model {DEMO}, the embedded model."
        ) from error
    return None


def weights_fingerprint(location: str) -> str:
    """16 hex digits of a model folder's or Hub model's identity.

    A folder: names, sizes, and the first and last MiB of every weight file, whole configuration and tokenizer files.
    A Hub id: the id and the revision in the local cache.
    """
    folder = Path(location)
    if not folder.is_dir():
        from huggingface_hub import HfApi, try_to_load_from_cache

        cached = try_to_load_from_cache(location, "config.json")
        here = isinstance(cached, str)  # else: not downloaded yet, and this is the revision it will have when it is
        revision = Path(cached).parent.name if here else HfApi().model_info(location, timeout=20).sha
        return hashlib.sha256(f"{location}@{revision}".encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".jinja", ".safetensors", ".bin", ".model"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(_SAMPLE_BYTES if path.suffix in (".safetensors", ".bin") else size))
            if size > 2 * _SAMPLE_BYTES:
                stream.seek(-_SAMPLE_BYTES, 2)
                digest.update(stream.read())
    return digest.hexdigest()[:16]
