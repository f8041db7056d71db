"""`faasmoe inspect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.options import BlockSize, Dtype, Json, Quantize, RopeScalingOption
from faasmoe.errors import CheckpointError, UnsupportedModel

if TYPE_CHECKING:
    from faasmoe.model.plan import ModelPlan
    from faasmoe.model.state.sequence_state import StateSpec


def inspect(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A folder, GGUF file or hub id; the demo model without it."),
    ] = None,
    block_size: BlockSize = None,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    as_json: Json = False,
    rope_scaling: RopeScalingOption = None,
) -> None:
    """Show what a model is made of, and what it takes to serve it.

    Loads no weights. Exits with 2 if the model cannot be served, and says why.
    """
    from faasmoe.model.adapter.light_import import import_transformers
    from faasmoe.model.checkpoint.source import resolve

    try:
        source = resolve(model)  # before torch, which takes seconds to import
        import_transformers()
        from faasmoe.model.dense.rehearsal import rehearse
        from faasmoe.model.plan import make_plan

        plan = make_plan(source, block_size, dtype, quantize, rope_scaling)
        facts = _facts(plan, rehearse(plan.architecture, plan.dtype))
    except (CheckpointError, UnsupportedModel) as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"servable": False, "reason": str(error)}))
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        Console().print(_table(facts))


def _facts(plan: ModelPlan, state: StateSpec) -> dict[str, Any]:
    from faasmoe.planner.machine import ProcessFootprint

    config, experts = plan.architecture.text_config, plan.architecture.experts
    total = sum(block.artifact.memory for block in plan.blocks)
    fixed = sum(kind.nbytes(0) for kind in state.layers.values())
    footprint = ProcessFootprint.here()
    own = footprint.each_orchestrator(experts[0].hidden_size)
    orchestrator = footprint.orchestrator + own + plan.dense_bytes
    processes = footprint.gateway + orchestrator + footprint.platform
    return {
        "servable": True,
        "model": plan.source.name,
        "architecture": plan.architecture.name,
        "layers": config.num_hidden_layers,
        "expert_layers": len(experts),
        "experts": experts[0].num_experts,
        "experts_per_token": getattr(config, "num_experts_per_tok", None),
        "context": plan.architecture.context_length,
        "sequence_bytes": fixed,
        "token_bytes": sum(kind.nbytes(1) for kind in state.layers.values()) - fixed,
        "dtype": str(plan.dtype).removeprefix("torch."),
        "block_size": plan.block_size,
        "functions": len(plan.blocks),
        "function_bytes": plan.function_bytes,
        "dense_bytes": plan.dense_bytes,
        "expert_bytes": total,
        "weights_mapped": plan.mapped,
        "published_formats": sorted({plan.checkpoint.location(name).format for name in plan.checkpoint}),
        "quantized": {
            "format": plan.quantised.format.name,
            "experts": sum(len(experts) for experts in plan.quantised.experts.values()),
            "dense_layers": len(plan.linears),
            "folder": str(plan.quantised.folder),
            "bytes": plan.quantised.nbytes,
            "missing_bytes": plan.quantised.missing,
        }
        if plan.quantised
        else None,
        "memory_idle_bytes": processes - footprint.platform,
        "memory_full_bytes": processes + total + footprint.instance * len(plan.blocks),
    }


def _table(facts: dict[str, Any]) -> Table:
    table = Table(title=f"{facts['model']} ({facts['architecture']})", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    of = f" of which {facts['experts_per_token']} per token" if facts["experts_per_token"] else ""
    rows = {
        "can be served": "yes",
        "layers": f"{facts['layers']}, {facts['expert_layers']} with experts",
        "experts a layer": f"{facts['experts']}{of}",
        "context": f"{facts['context']:,} tokens",
        "a sequence keeps": f"{facts['token_bytes'] / 1e3:.1f} kB a token"
        + (f", and {_size(facts['sequence_bytes'])}" if facts["sequence_bytes"] else ""),
        "computes in": f"{facts['dtype']}, weights {'mapped' if facts['weights_mapped'] else 'converted on load'}",
        "functions": f"{facts['functions']} of up to {facts['block_size']} experts",
        "largest function": _size(facts["function_bytes"]),
        "dense part": _size(facts["dense_bytes"]),
        "all experts": _size(facts["expert_bytes"]),
        "memory when idle": f"about {_size(facts['memory_idle_bytes'])}",
        "with all functions": f"about {_size(facts['memory_full_bytes'])}",
    }
    if facts["published_formats"] != ["dense"]:
        rows["published in"] = ", ".join(name for name in facts["published_formats"] if name != "dense")
    if about := facts["quantized"]:
        made = "to be written at the first start" if about["missing_bytes"] else "there"
        rows[f"in {about['format']}"] = f"{about['experts']:,} experts, {about['dense_layers']:,} dense layers"
        rows["their copy"] = f"{_size(about['bytes'])} in {about['folder']}, {made}"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
