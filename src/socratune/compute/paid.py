"""What a run sends to paid models, said before the first call."""

from __future__ import annotations

from collections.abc import Collection

from socratune.compute.plan import loop_usd
from socratune.config import RunConfig
from socratune.data import data_path, data_set
from socratune.llm import (
    FIELDS,
    FREE,
    TERMS_READ,
    AskedModel,
    Price,
    asked_models,
    endpoints_of,
    price_at,
    terms_of,
    writer_endpoints,
)
from socratune.runs import Results, RunDir


def paid_notice(config: RunConfig, to_do: Collection[str]) -> str:
    """Returns which fields of how many rows go to which paid models, with prices and terms; "" if nothing new does.

    A model that the run folder has already been asked in the same role is not named again.

    Args:
        to_do: the stages to come.
    """
    run, reached = RunDir(config.output), {**endpoints_of(config.enhance), **writer_endpoints(config.generate)}
    sent = Results(run).data.get("sent_to", {}) if run.results.is_file() else {}
    known = {(name.rpartition(".")[2], found["model"], host) for name, found in sent.items() for host in found["hosts"]}
    new = []
    for asked in asked_models(config):
        endpoint = reached[asked.role]
        price = price_at(asked.model, endpoint)
        if price is FREE and endpoint.api_key_env:  # a gateway, which has vendors behind it
            price = Price(None, None)
        stages = {asked.setting.partition(".")[0], *(["validate"] if asked.role == "judge" else [])}
        if price is FREE or stages.isdisjoint(to_do):
            continue
        if any((asked.role, asked.model, host) not in known for host in asked.hosts):
            new.append((asked, price))
    if not new:
        return ""
    rows = _row_count(config)
    lines = [_line(asked, price, rows) for asked, price in new]
    usd, calls = loop_usd(config.enhance, config.model, rows)
    about = f"About {usd:.2g} USD for the loop" if calls and usd and rows else "The price depends on the rows"
    lines.append(f"{about}; --estimate measures it, --max-usd limits it, and --local-only refuses such calls.")
    return "\n  ".join(["This run sends data to models that are paid for:", *lines])


def _line(asked: AskedModel, price: Price, rows: int) -> str:
    of_rows = "" if asked.role == "writer" else f" of up to {rows} rows" if rows else " of all rows"
    million = [usd and usd * 1e6 for usd in (price.per_prompt_token_usd, price.per_completion_token_usd)]
    cost = (
        "price not known" if None in million else "{:.3g} USD per million tokens read, {:.3g} written".format(*million)
    )
    page = terms_of(asked)
    terms = f"terms on training on its output, as of {TERMS_READ}: {page}" if page else "see its terms on training"
    return f"{asked.role} {asked.model} at {', '.join(asked.hosts)}: {FIELDS[asked.role]}{of_rows}; {cost}; {terms}"


def _row_count(config: RunConfig) -> int:
    """Returns how many rows are asked about, 0 where they are not written yet."""
    run = RunDir(config.output)
    split = [path for name in ("train_in", "held_out", "recall") if (path := run.rows(name)).exists()]
    if split:
        return sum(path.read_bytes().count(b"\n") for path in split)
    if config.writes_rows:
        return 0
    own = [data_path(config.split.held_out, held_out=True)] if config.split.held_out else []
    return sum(data_set(path).reading.rows for path in [data_path(config.dataset), *own])
