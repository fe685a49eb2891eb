"""`profile`: how fast a running engine is, as a variant's `performance` says it."""

import asyncio
import os
import time
from typing import Annotated, Any
from urllib.parse import urlsplit

import aiohttp
import typer
import yaml
from rich.box import SIMPLE_HEAD
from rich.table import Table

from orchestrator.cli.app import Json, app, out, print_json, refuse
from orchestrator.cli.progress import progress
from orchestrator.config.access import is_loopback
from orchestrator.profile.endpoint import About, Endpoint
from orchestrator.profile.fit import Point, Profile, ProfileError
from orchestrator.profile.measure import STREAM_PROMPT_TOKENS, Measurement, steps

CONNECT_TIMEOUT_S = 10


@app.command()
def profile(
    url: Annotated[str, typer.Argument(help="Of the engine, with or without /v1.")],
    accelerator: Annotated[
        str, typer.Option(help="Of one replica, as the pools name it: H100, L40S.")
    ],
    max_num_seqs: Annotated[
        int, typer.Option(min=1, help="Sequences that it decodes at once, as it was started.")
    ],
    model: Annotated[
        str | None, typer.Option(help="That it serves. Default: the first that it lists.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the engine's API key.")
    ] = None,
    prompt_tokens: Annotated[
        int,
        typer.Option(min=1, help="Of ordinary prompts there: streams begin with so many."),
    ] = STREAM_PROMPT_TOKENS,
    seconds: Annotated[float, typer.Option(min=1, help="That it may take.")] = 120,
    as_json: Json = False,
) -> None:
    """Measure an engine at rest; print its speeds, what they miss, and the YAML for its variant.

    Prompts of several lengths are read alone, then streams run at once: one, two, and so on up to
    --max-num-seqs.
    """
    try:
        base_url = _checked(url, api_key_env is not None)
        headers = _headers(api_key_env)
        about, found = asyncio.run(
            _measured(base_url, headers, model, max_num_seqs, seconds, prompt_tokens)
        )
        performance = found.performance(accelerator, _source(about, found)).model_dump(
            exclude_none=True
        )
        reads, batches = found.read_points(), found.batch_points()
    except (ProfileError, aiohttp.ClientError, OSError) as error:
        raise refuse(_sentence(error, url), 2) from None
    if as_json:
        print_json(
            {
                "model": about.model,
                "engine_version": about.version,
                "performance": performance,
                "overhead_s": found.prefill().overhead_s,
                "prefill": [_plain(p, "prompt_tokens") for p in reads],
                "decode": [_plain(p, "sequences") for p in batches],
            }
        )
        return
    _show(found, reads, batches)
    text = yaml.safe_dump({"performance": [performance]}, sort_keys=False, width=88)
    out.print(text, end="", markup=False, highlight=False, soft_wrap=True)


def _checked(url: str, has_key: bool) -> str:
    """Without /v1. Raises ProfileError."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ProfileError(f"'{url}' is no URL; write http://127.0.0.1:8000") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProfileError(f"'{url}' is no URL of an engine; write http://127.0.0.1:8000")
    if has_key and parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ProfileError(f"{url}: whoever is on the way could read the key; write https://")
    return url.rstrip("/").removesuffix("/v1")


def _headers(api_key_env: str | None) -> dict[str, str]:
    """Raises ProfileError."""
    if api_key_env is None:
        return {}
    key = os.environ.get(api_key_env)
    if not key:
        raise ProfileError(f"--api-key-env: '{api_key_env}' is not set; export the key under it")
    return {"authorization": f"Bearer {key}"}


async def _measured(
    url: str,
    headers: dict[str, str],
    model: str | None,
    max_num_seqs: int,
    limit_s: float,
    prompt_tokens: int,
) -> tuple[About, Profile]:
    """Raises ProfileError, aiohttp.ClientError, OSError."""
    connections = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    async with aiohttp.ClientSession(
        connector=connections, headers=headers, timeout=timeout
    ) as session:
        endpoint = Endpoint(session, url)
        about = await endpoint.look(model)
        with progress("measuring", steps(max_num_seqs)) as step:
            run = Measurement(endpoint, max_num_seqs, limit_s, time.time_ns(), step, prompt_tokens)
            return about, await run.run()


def _source(about: About, found: Profile) -> str:
    longest = max(r.prompt_tokens for r in found.reads)
    return (
        f"measured at {time.strftime('%Y-%m-%d')} with {about.engine}, prompts of up to {longest} "
        f"tokens alone, up to {found.batches[-1].sequences} streams at once"
    )


def _sentence(error: Exception, url: str) -> str:
    if isinstance(error, ProfileError):
        return str(error)
    return (
        f"{url}: {type(error).__name__}: give the URL of a running engine that this machine reaches"
    )


def _show(found: Profile, reads: list[Point], batches: list[Point]) -> None:
    table = Table("prompt tokens", "until the first token", "fitted", "error", box=SIMPLE_HEAD)
    for point in reads:
        table.add_row(f"{point.at:.0f}", *_compared(point))
    out.print(table)
    overhead_ms = found.prefill().overhead_s * 1000
    out.print(f"besides, {overhead_ms:.1f} ms for every request", highlight=False)
    table = Table("streams", "from token to token", "fitted", "error", "tokens/s", box=SIMPLE_HEAD)
    for point, batch in zip(batches, found.batches, strict=True):
        table.add_row(f"{point.at:.0f}", *_compared(point), f"{batch.tokens_per_s:.0f}")
    out.print(table)


def _compared(point: Point) -> tuple[str, str, str]:
    measured_ms, fitted_ms = 1000 * point.measured_s, 1000 * point.fitted_s
    return f"{measured_ms:.4g} ms", f"{fitted_ms:.4g} ms", f"{point.error:+.1%}"


def _plain(point: Point, at: str) -> dict[str, Any]:
    measured = {"measured_s": point.measured_s, "fitted_s": point.fitted_s}
    return {at: point.at, **measured, "error": point.error}
