"""A repository of the Hugging Face hub: a file of it brought here, a folder of files sent there.

huggingface_hub does the work: its cache, its log-in, and its environment variables (HF_HOME, HF_TOKEN, HF_ENDPOINT,
HF_HUB_OFFLINE) are the user's usual ones. What goes wrong becomes one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from atrous.errors import InputError

HUB = "hub:"  # hub:OWNER/NAME or hub:OWNER/NAME@REVISION, wherever a checkpoint is asked for
WEIGHTS = "model.safetensors"


def is_repository(name: str | Path) -> bool:
    return str(name).startswith(HUB)


def has_weights(folder: str | Path) -> bool:
    """Whether it is a folder laid out like a repository, as `atrous.hub.save_pretrained` writes it."""
    return (Path(folder) / WEIGHTS).is_file()


def bring(
    name: str | Path, file: str = WEIGHTS, revision: str | None = None, token: str | None = None
) -> Path:
    """The path of a file of hub:OWNER/NAME[@REVISION] in the hub's cache, downloaded where the cache lacks it.

    Without a network what is in the cache is used. Raises InputError where there is no such repository, revision or
    file, no permission, no network, or no huggingface_hub.
    """
    repository, _, named = str(name).removeprefix(HUB).partition("@")
    with _errors_of(name, "read") as hub:
        return Path(
            hub.hf_hub_download(
                repository, file, revision=revision or named or None, token=token, library_name="atrous"
            )
        )


def send(folder: Path, name: str, message: str, private: bool | None = None, token: str | None = None) -> str:
    """Put the files of a folder into OWNER/NAME, which is made where there is none; returns the commit's address."""
    repository = name.removeprefix(HUB)
    with _errors_of(name, "write to") as hub:
        api = hub.HfApi(token=token, library_name="atrous")
        made = api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message)
        return str(commit.commit_url)


@contextmanager
def _errors_of(name: str | Path, action: str) -> Iterator[ModuleType]:
    """huggingface_hub, whose errors become an InputError of one line."""
    name = f"{HUB}{str(name).removeprefix(HUB)}"
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise InputError(f"{name} needs huggingface_hub: pip install 'atrous[hub]'") from None
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    try:
        yield hub
    except errors.HFValidationError:
        raise InputError(f"{name}: not a name of the hub, which are OWNER/NAME") from None
    except errors.GatedRepoError:
        raise InputError(
            f"{name}: its owner lets in those who asked; ask on its page, then {log_in}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"{name}: no such repository, or one that is private: {log_in}") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{name}: the repository has no such revision") from None
    except errors.LocalEntryNotFoundError:
        raise InputError(f"{name}: not in the cache, and the hub cannot be reached") from None
    except errors.EntryNotFoundError:
        theirs = f"huggingface/{name.removeprefix(HUB).partition('@')[0]}"
        raise InputError(f"{name}: no {WEIGHTS} there; of another project: atrous pull {theirs}") from None
    except errors.LocalTokenNotFoundError:
        raise InputError(f"{name}: you are not logged in: {log_in}") from None
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise InputError(f"{name}: your token may not {action} it: {log_in}") from None
        raise InputError(f"{name}: the hub answered: {_first_line(error)}") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            raise InputError(f"{name}: the hub cannot be reached ({_first_line(error)})") from None
        raise


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
