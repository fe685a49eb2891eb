"""`events`: what the controller did, and why."""

import time
from typing import Annotated, Any

import orjson
import typer

from orchestrator.cli.app import Json, app, err, out, print_json, refuse
from orchestrator.cli.durations import seconds
from orchestrator.cli.options import LOCAL, Config
from orchestrator.cli.policy import live_events
from orchestrator.cli.pools import NOBODY_ANSWERS, loaded

POLL_S = 1


@app.command()
def events(
    since: Annotated[
        str, typer.Option(metavar="TIME", help="How far back: 90s, 30m, 2h, 1d.")
    ] = "1h",
    follow: Annotated[bool, typer.Option(help="Go on with what happens.")] = False,
    config: Config = LOCAL,
    as_json: Json = False,
) -> None:
    """What the controller did, and why: scalings, bursts, holds, prices, leaders.

    With --follow, --json prints one event a line.
    """
    from_s = time.time() - seconds(since)
    rules = loaded(config, as_json)
    answer = live_events(rules, int(from_s * 1000))
    if answer is None:
        raise refuse(NOBODY_ANSWERS)
    if answer["not_written"] or answer["lost"]:
        err.print(
            f"events are not written ({answer['not_written'] or 'they are again'}); "
            f"{answer['lost']} are lost",
            style="yellow",
        )
    if as_json and not follow:
        print_json(answer["events"])
        return
    last = _show(answer["events"], as_json, 0)
    while follow:
        time.sleep(POLL_S)
        answer = live_events(rules, last)
        if answer is not None:
            last = _show(answer["events"], as_json, last)


def _show(found: list[dict[str, Any]], as_json: bool, last: int) -> int:
    """The id of the last one that was shown."""
    for event in found:
        if as_json:
            typer.echo(orjson.dumps(event).decode())
        else:
            at = time.strftime("%F %X", time.localtime(event["at_s"]))
            why = f": {event['reason']}" if event["reason"] else ""
            out.print(
                f"{at}  {event['kind']:<8} {event['subject']}: {event['what']}{why}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        last = event["id"]
    return last
