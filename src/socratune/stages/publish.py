"""publish: uploads adapter, tokenizer, results and an honest card to the Hugging Face Hub, if the run passed.

the verdict derived again → gate → a folder with everything that will be public → one commit
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratune.config import DEMO, PublishConfig, RunConfig
from socratune.errors import Fault, OutsideError, Shown, StageFailed, UserError, one_line
from socratune.evaluation import Verification, adapter_manifest, verify_run
from socratune.publishing import (
    Licence,
    PublicBase,
    dataset_card,
    licence_of,
    model_card,
    public_base,
    public_hosts,
    publish_provenance,
    without_data,
    without_paths,
)
from socratune.runs import (
    RunDir,
    StageResult,
    read_jsonl,
    review_decisions,
    system_turn,
    write_json,
    write_jsonl,
    write_text,
)

log = logging.getLogger(__name__)

_FAULTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository to write: the folder that becomes it.

    Attributes:
        kind: `model` or `dataset`.
        mark: a file that identifies an existing repository as one of these.
    """

    kind: str
    folder: Path
    mark: str

    def files(self) -> list[tuple[str, int]]:
        """Returns (name, bytes) of every file, by name."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted((path.relative_to(self.folder).as_posix(), path.stat().st_size) for path in paths)


def publish_adapter(
    run: RunDir, config: RunConfig, verified: Verification, *, results: dict[str, Any], force: bool = False
) -> StageResult:
    """Uploads `adapter/` with card and results in one commit, and before it, if configured, the data set in another.

    Args:
        config: with `hub_id`.
        verified: by `check_gate`.
        force: as for `check_gate`; repeated in the command that resumes.

    Raises:
        OutsideError: the Hub refused or could not be reached; the message holds the command that resumes.
    """
    hub_id = str(config.hub_id)
    with tempfile.TemporaryDirectory() as temporary:
        repos = prepared_upload(run, config, Path(temporary), verified, results=results)
        again = _command(run, config.publish, hub_id, force)
        private = config.publish.private
        urls = {f"{repo.kind}_url": _upload(repo, hub_id, private=private, again=again) for repo in repos}
        files = sum(len(repo.files()) for repo in repos)
    return StageResult(rows_in=files, rows_out=files, figures={"url": urls["model_url"], **urls, "files": files})


def prepared_upload(
    run: RunDir,
    config: RunConfig,
    place: Path,
    verified: Verification,
    *,
    results: dict[str, Any],
    offline: bool = False,
) -> list[Repo]:
    """Returns what will be uploaded, in folders below `place`: the data set if configured, then the adapter.

    Args:
        config: with `hub_id`.
        verified: by `check_gate`; only the derived proof is published.
        offline: use no network; a licence that is not on this machine stays unknown.

    Raises:
        UserError: the results hold something else than a run's figures.
    """
    base = public_base(config.model, config.publish.base, results, offline=offline)
    if base.licence.doubt:
        log.warning("The licence of %s is unknown: %s. The model card says so.", base.name, base.licence.doubt)
    try:
        return _repos(run, config, place, verified, base, results=results, offline=offline)
    except (
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
    ) as error:  # whatever the file holds instead of figures
        got = Shown(f"{type(error).__name__}: {error}")
        raise UserError(Fault(str(run.results), "the figures of a run", got)) from None


def _repos(
    run: RunDir,
    config: RunConfig,
    place: Path,
    verified: Verification,
    base: PublicBase,
    *,
    results: dict[str, Any],
    offline: bool,
) -> list[Repo]:
    hub_id, repos = str(config.hub_id), []
    shown = public_results(results, verified, base)
    if config.publish.with_dataset:
        repos.append(_dataset_folder(run, place / "dataset", shown, hub_id, base, offline=offline))
    folder = place / "model"
    shutil.copytree(run.adapter, folder)
    if adapter_manifest(folder) != verified.proof.files:
        raise StageFailed("Not published: the adapter has changed since it was checked. Run it again.")
    write_json(folder / "pipeline_results.json", shown)
    _make_public(folder, base)
    dataset_id = hub_id if config.publish.with_dataset else None
    text = model_card(shown, hub_id, base, system=system_turn(run), dataset_id=dataset_id)
    write_text(folder / "README.md", text)
    publish_provenance(folder)
    return [*repos, Repo("model", folder, "pipeline_results.json")]


def check_gate(run: RunDir, config: RunConfig, results: dict[str, Any], *, force: bool = False) -> Verification:
    """Derives the verdict again and refuses a run that did not pass, or whose files contradict it.

    Args:
        force: accept a run that did not pass, with a warning in the card; never one whose files contradict it.

    Raises:
        StageFailed: it is refused; the text gives the reason.
        UserError: a file cannot be read.
    """
    again = shlex.join(["socratune", "validate", str(run.root)])
    if results["stages"].get("train", {}).get("status", "done") != "done":
        raise StageFailed(f"Not published, because a restarted training is not finished. First: {again}")
    verified = verify_run(run, config, results)
    if verified is None:
        raise StageFailed(f"Not published, because it was not validated yet. First: {again}")
    if verified.claimed.damage:
        problems = "; ".join(verified.claimed.damage)
        raise StageFailed(f"Not published, and not by force: the adapter's files are not whole ({problems}).")
    if verified.faults:
        faults = " ".join(verified.faults[:_FAULTS_SHOWN])
        more = len(verified.faults) - _FAULTS_SHOWN
        faults += f" And {more} more; socratune verify {shlex.quote(str(run.root))} shows all." if more > 0 else ""
        fix = f"If nothing of it is meant, {again} --restart proves what there is now."
        raise StageFailed(f"Not published, and not by force: its files do not hold what it says. {faults} {fix}")
    if not verified.proof.passed and not force:
        raise StageFailed(f"Not published, because the validation did not pass. {verified.proof.reason}")
    return verified


def public_results(results: dict[str, Any], verified: Verification, base: PublicBase) -> dict[str, Any]:
    """Returns the run's results without paths of this machine, the user's data, and what changes by itself."""
    proof = verified.proof
    shown = {name: results[name] for name in ("socratune", "stages", "config", "inputs") if name in results}
    shown["stages"] = {name: entry for name, entry in shown["stages"].items() if name != "publish"}
    dataset = str(results.get("dataset", "not recorded"))
    on_hub = results["stages"].get("split", {}).get("commit")
    shown |= {
        "status": proof.status,
        "model": base.name,
        "dataset": dataset if on_hub else Path(dataset).name,
        "validation": without_data(proof.to_json()),
        "verified": {"pinned_before_training": verified.pinned, "remarks": verified.remarks},
    }
    if "sent_to" in results:
        shown["sent_to"] = public_hosts(results["sent_to"])
    config = {key: value for key, value in shown.get("config", {}).items() if key not in ("hub_id", "publish")}
    return without_paths(shown | {"config": config | {"model": base.name, "dataset": shown["dataset"]}})


def _make_public(folder: Path, base: PublicBase) -> None:
    """Gives the adapter's own files the public name of the base, and removes paths of this machine."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text("utf-8"))
    write_json(path, config | {"base_model_name_or_path": base.name, "revision": base.revision})
    path = folder / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    if private := tokenizer.keys() & {"name_or_path", "is_local", "local_files_only"}:
        write_json(path, {key: value for key, value in tokenizer.items() if key not in private})


def _dataset_folder(
    run: RunDir, folder: Path, shown: dict[str, Any], hub_id: str, base: PublicBase, *, offline: bool
) -> Repo:
    """Writes `enhanced_dataset.jsonl` as others may see it, with its card."""
    folder.mkdir()
    count = write_jsonl(folder / run.enhanced.name, _public_rows(run))
    source = Licence("other", "unknown", doubt="it is not on the Hub")
    if shown["stages"].get("split", {}).get("commit"):
        source = licence_of(shown["dataset"], kind="dataset", offline=offline)
    elif shown["dataset"] == DEMO:
        source = Licence("apache-2.0")
    if source.doubt:
        log.warning("The licence of the data set is unknown: %s. Its card says so.", source.doubt)
    text = dataset_card(shown, hub_id, base, source, rows=count, model_id=hub_id)
    write_text(folder / "README.md", text)
    return Repo("dataset", folder, run.enhanced.name)


def _public_rows(run: RunDir) -> Iterator[dict[str, Any]]:
    """Yields the rows as reviewed, their texts unchanged and their metadata without paths."""
    reviews = review_decisions(run)
    for row in read_jsonl(run.enhanced):
        *turns, answer = row["messages"]
        review = reviews.get(row["id"])
        if review is not None and review.holds_for(answer["content"]):
            if review.decision == "reject":
                continue
            if review.decision == "edit":
                row["messages"] = [*turns, answer | {"content": review.text}]
        yield {**row, "metadata": without_paths(row["metadata"])}


def hub_id_fault(hub_id: str, where: str = "--hub-id") -> Fault | None:
    """Returns why `hub_id` is no valid repository name, or None."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(hub_id)
        reason = "" if "/" in hub_id else "a name without its owner"
    except HFValidationError:
        reason = "a name of other signs than letters, digits, -, _ and ., or too long, or with more than one /"
    return Fault(where, f"a Hub name like myusername/my-adapter, not {hub_id!r}", Shown(reason)) if reason else None


def hub_access_fault(hub_id: str) -> Fault | None:
    """Returns why this machine's token cannot publish under that name, or None.

    A Hub that does not answer is no fault, since it may answer later; the log reports it. Neither is a permission that
    the Hub does not disclose.
    """
    from huggingface_hub import HfApi, constants, get_token

    later = "Or leave --hub-id out, and when the run has passed: socratune publish RUN --hub-id …"
    if constants.HF_HUB_OFFLINE:
        return Fault("--hub-id", "a Hub that may be asked", Shown("HF_HUB_OFFLINE in the environment"), later)
    if get_token() is None:
        fix = f"Run: export HF_TOKEN=… (one with write access). {later}"
        return Fault("--hub-id", "a token of the Hugging Face Hub", Shown("none"), fix)
    try:
        account = HfApi().whoami()
    except Exception as error:  # the client's errors have no common class across its versions
        status, _ = _answered(error)
        if status in (401, 403):
            fix = f"Set HF_TOKEN to one with write access. {later}"
            return Fault("--hub-id", "a token that the Hub takes", Shown("one that it refuses"), fix)
        log.warning(
            "The Hugging Face Hub could not be asked whether this token may write %s: %s What passes is kept here, "
            "whatever becomes of the upload.", hub_id, _reason(error, hub_id),
        )  # fmt: skip
        return None
    if reason := _may_not_write(account, hub_id):
        return Fault("--hub-id", f"a token that may write {hub_id}", Shown(reason), f"Take another. {later}")
    return None


def _may_not_write(account: Any, hub_id: str) -> str:
    """Returns why the Hub's description of a token rules out writing there; empty if it may, or if that is open."""
    try:
        owner, own = hub_id.partition("/")[0], str(account["name"])
        ranks = {str(org["name"]).casefold(): org.get("roleInOrg") for org in account.get("orgs") or []}
        token = (account.get("auth") or {}).get("accessToken") or {}
        role, fine = token.get("role"), token.get("fineGrained") or {}
        scoped = fine.get("scoped", [])
        scopes = [(str(scope["entity"].get("name")).casefold(), scope["permissions"]) for scope in scoped]
    except (LookupError, TypeError, AttributeError):
        return ""  # the Hub's answer has another form than today
    if owner.casefold() not in (own.casefold(), *ranks):
        others = f" and of {', '.join(ranks)}" if ranks else ""
        return f"one of {own}{others}"
    if role == "read" or ranks.get(owner.casefold()) == "read":
        return "one that may only read there"
    places = (owner.casefold(), hub_id.casefold())
    if role == "fineGrained" and scopes and not any(
        name in places and "repo.write" in permissions for name, permissions in scopes
    ):  # fmt: skip
        return "one whose fine-grained permissions do not hold repo.write there"
    return ""


def _command(run: RunDir, config: PublishConfig, hub_id: str, force: bool) -> str:
    """Returns the command that repeats the upload."""
    base = [] if config.base is None else ["--base", config.base]
    flags = {"--public": not config.private, "--with-dataset": config.with_dataset, "--force": force}
    chosen = [flag for flag, on in flags.items() if on]
    return shlex.join(["socratune", "publish", str(run.root), "--hub-id", hub_id, *base, *chosen])


def _upload(repo: Repo, hub_id: str, *, private: bool, again: str) -> str:
    """Uploads what changed in one commit and returns its address.

    Raises:
        OutsideError: the Hub refused or could not be reached, or the name is taken.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    then = f"Then resume with: {again}"
    if get_token() is None:
        raise OutsideError(f"No token for the Hugging Face Hub: set HF_TOKEN to one with write access. {then}")
    api = HfApi()
    try:
        api.create_repo(hub_id, repo_type=repo.kind, private=private, exist_ok=True)
        before = api.repo_info(hub_id, repo_type=repo.kind)
        if reason := _taken(repo, before, private=private):
            raise OutsideError(f"{hub_id} was not written: {reason}. Or: {again.replace(hub_id, f'{hub_id}-2')}")
        commit = api.upload_folder(
            repo_id=hub_id,
            repo_type=repo.kind,
            folder_path=repo.folder,
            commit_message="Published with Socratune",
            parent_commit=before.sha,  # so that two who publish at once do not mix their files
        )
        if before.private and not private:
            api.update_repo_settings(hub_id, repo_type=repo.kind, private=False)
    except OutsideError:
        raise
    except Exception as error:  # the client's errors have no common class across its versions
        raise OutsideError(f"The Hugging Face Hub did not take {hub_id}: {_reason(error, hub_id)} {then}") from error
    return commit.commit_url


def _taken(repo: Repo, existing: Any, *, private: bool) -> str:
    """Returns why an existing repository must not be written; empty if it may be."""
    names = {file.rfilename for file in existing.siblings or []} - {".gitattributes", "README.md"}
    if names and repo.mark not in names:
        return f"the {repo.kind} repository of that name holds something else ({', '.join(sorted(names)[:3])})"
    if private and not existing.private:
        return "it is public; add --public to the command if that is meant"
    return ""


_REASONS = {
    401: "the token was refused. Set HF_TOKEN to one with write access.",
    403: "the token may not write there. Take one with write access to {owner}, or another --hub-id.",
    409: "the name is taken, or somebody else is writing there.",
    412: "somebody else wrote there meanwhile.",
}


def _chain(error: BaseException) -> list[BaseException]:
    """Returns an error and those that it wraps."""
    chain = [error]
    while deeper := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(deeper)
    return chain


def _answered(error: BaseException) -> tuple[int | None, str]:
    """Returns status and text of the server's answer, which the client wraps; None if there was none."""
    for cause in _chain(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            return status, one_line(cause)
    return None, ""


def _reason(error: BaseException, hub_id: str) -> str:
    """Returns in one sentence what went wrong, and what to do."""
    status, text = _answered(error)
    if status is not None:
        known = _REASONS.get(status)
        return known.format(owner=hub_id.partition("/")[0]) if known else f"it answered {status} ({text})."
    text = one_line(error, 200)
    if any(isinstance(cause, OSError) or type(cause).__module__.startswith("httpx") for cause in _chain(error)):
        return f"the connection failed ({text}). Check the network; what was uploaded is not sent again."
    return f"{text}."
