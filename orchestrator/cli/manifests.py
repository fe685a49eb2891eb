"""`manifests`: what runs the product on Kubernetes, from a configuration."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from orchestrator.cli.app import app, configuration_error, refuse
from orchestrator.cli.options import Config
from orchestrator.config.load import ConfigurationError, Loaded, load

manifests = typer.Typer(no_args_is_help=True, help="Objects and rules for Kubernetes.")
app.add_typer(manifests, name="manifests")

MADE = "# Made by `orchestrator manifests`; change the configuration instead.\n"

Out = Annotated[Path | None, typer.Option(help="Write files into this folder instead.")]


@manifests.command()
def render(
    config: Config,
    cluster: Annotated[
        str | None, typer.Option(help="Which cluster of it. Default: the gateway's.")
    ] = None,
    single_node: Annotated[
        bool, typer.Option(help="For a cluster of one node: one controller, volumes of a node.")
    ] = False,
    out: Out = None,
) -> None:
    """Print the Kubernetes objects of a cluster, or write them with a kustomization."""
    from orchestrator.manifests.parts import RenderError
    from orchestrator.manifests.render import everything

    try:
        objects = everything(_load(config), cluster, single_node)
    except RenderError as error:
        raise refuse(f"{config}: {error}", 2) from None
    if out is None:
        typer.echo(as_yaml(objects), nl=False)
        return
    write(out, {"objects.yaml": objects}, {"resources": ["objects.yaml"]})


@manifests.command()
def rules(config: Config) -> None:
    """Print the alert rules as Prometheus itself reads them."""
    from orchestrator.manifests.alerts import groups

    typer.echo(_dump({"groups": groups(_load(config).configuration)}), nl=False)


@manifests.command()
def dashboards(out: Annotated[Path, typer.Option(help="Write the JSON files there.")]) -> None:
    """Write the Grafana dashboards."""
    from orchestrator.manifests.dashboards import dashboards as made

    out.mkdir(parents=True, exist_ok=True)
    for name, dashboard in made().items():
        (out / name).write_text(json.dumps(dashboard, indent=1) + "\n")


@manifests.command(hidden=True)
def ship(folder: Path) -> None:
    """Write base and overlays anew."""
    from orchestrator.manifests.shipped import shipped

    for name, (files, kustomization) in shipped(folder.parent).items():
        write(folder / name, files, kustomization)


def write(folder: Path, files: dict[str, list[dict[str, Any]]], kustomization: Any) -> None:
    """A kustomization, and one file for each name; files of an earlier one are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.yaml"):
        file.unlink()
    for name, text in texts(files, kustomization).items():
        (folder / name).write_text(text)


def texts(files: dict[str, list[dict[str, Any]]], kustomization: Any) -> dict[str, str]:
    """What the files hold."""
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return {
        **{name: MADE + as_yaml(objects) for name, objects in files.items()},
        "kustomization.yaml": MADE + _dump({**head, **kustomization}),
    }


def as_yaml(objects: list[dict[str, Any]]) -> str:
    return "---\n".join(_dump(o) for o in objects)


def _load(config: Path) -> Loaded:
    try:
        return load(config)
    except ConfigurationError as error:
        raise configuration_error(error, False) from None


class _Dumper(yaml.SafeDumper):
    """Writes text of many lines as such, and nothing by reference."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style="|" if "\n" in value else None
    )


_Dumper.add_representer(str, _text)


def _dump(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100)
    return text
