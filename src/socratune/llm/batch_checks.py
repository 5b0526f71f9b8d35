"""Checks whether the calls of a role can go in batches, and what that saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from socratune.config import StudentTeacherConfig
from socratune.errors import Fault, Shown
from socratune.llm.references import RULES, Role, endpoints_of, price_at, resolve_alias, teacher_of
from socratune.llm.vendors import BASES, vendor_of


def batch_faults(config: StudentTeacherConfig, refs: Mapping[Role, str], *, engine: str) -> list[Fault]:
    """Returns why the configured batches of judge and teacher are impossible.

    Args:
        config: of the loop.
        refs: the models by role.
        engine: where the loop runs.
    """
    faults = []
    for role, reached in endpoints_of(config).items():
        if not reached.batch:
            continue
        where, ref, fix = f"enhance.endpoints.{role}.batch", refs[role], "Leave it out."
        if role == "judge" and config.judge_mode == "mechanical":
            ref = RULES["judge"]
        if engine == "ray":
            faults.append(Fault(where, "one process, which gathers all calls", Shown("the engine ray"), fix))
        if (vendor_of(ref) or ("",))[0] not in BASES:
            expected = "a model of openai/… or anthropic/…, whose API takes batches"
            faults.append(Fault(where, expected, ref, f"{fix} What is not paid by the call gains nothing by a batch."))
        elif reached.api_bases and reached.api_key_env is None:
            fix += f" Or name the key of a gateway that passes batches on: enhance.endpoints.{role}.api_key_env."
            faults.append(Fault(where, "a vendor's API", Shown(f"{ref} at a server without a key"), fix))
        elif len(reached.api_bases) > 1:
            got = Shown(f"{len(reached.api_bases)} addresses")
            faults.append(Fault(where, "one address, as a batch lies at one", got, fix))
    return faults


def batch_shares(config: StudentTeacherConfig) -> dict[Role, float]:
    """Returns by batched role the price of a call as a share of a direct call's price."""
    refs: dict[Role, str] = {"teacher": teacher_of(config), "judge": resolve_alias(config.judge_model)}
    shares: dict[Role, float] = {}
    for role, reached in endpoints_of(config).items():
        if reached.batch:
            batched, direct = (
                price_at(refs[role], endpoint).usd(1000, 1000) for endpoint in (reached, replace(reached, batch=False))
            )
            shares[role] = batched / direct if batched and direct else 1.0
    return shares
