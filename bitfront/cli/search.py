"""bitfront search: a model and a budget in, a measured front out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bitfront.budget import Budget
from bitfront.cli.options import (
    AsJson,
    Base,
    CalibrationText,
    Device,
    Dtype,
    Experts,
    Model,
    OneChoice,
    Out,
    RuntimeName,
    Seed,
    SequenceLength,
    TaskName,
    TensorParallel,
    Ties,
    menu,
)
from bitfront.cli.output import print_line, print_note, written_report
from bitfront.errors import InvalidArgument
from bitfront.kv_cache import KVCache
from bitfront.loading import uncollected
from bitfront.plugins import Choice
from bitfront.study import SecondText, Study, TextSource, default_menu

if TYPE_CHECKING:
    from bitfront.report.data import ReportData


def search(
    model: Model,
    budget: Annotated[
        list[str],
        typer.Option(help="3.5bpw, 3.5bits, 60MB, or 12ms@b1c2048; given again, all must hold."),
    ],
    out: Out = Path("results"),
    formats: Annotated[
        str | None,
        typer.Option(
            help=f"Menu, separated by commas; default: {','.join(Study.formats)}, or the runtime's."
        ),
    ] = None,
    calibration: CalibrationText = Study.calibration.source,
    evaluation: Annotated[
        str, typer.Option(help="Another text, for the reported values.")
    ] = Study.evaluation.source,
    estimator: OneChoice = str(Study.estimator),
    search: Annotated[
        str, typer.Option(help="name or name:key=value,...; several, separated by commas, in turn")
    ] = ",".join(map(str, Study.searches)),
    quantizer: OneChoice = str(Study.quantizer),
    costs: Annotated[
        str, typer.Option(help="memory, or also latency:table=FILE, roofline:device=h100, bops")
    ] = ",".join(map(str, Study.costs)),
    n_trials: Annotated[
        int, typer.Option(help="Measurements on the calibration text.")
    ] = Study.n_trials,
    n_pairs: Annotated[
        int, typer.Option(help="Measured interactions, for --search sweep:solver=quadratic.")
    ] = Study.n_pairs,
    max_minutes: Annotated[
        float | None,
        typer.Option(help="Stop when measuring candidates and slopes has taken that long."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop when so many proposals brought nothing.")
    ] = None,
    n_parallel: Annotated[int, typer.Option(help="Proposals in flight.")] = Study.n_parallel,
    ties: Ties = Study.tied,
    experts: Experts = Study.experts,
    pin: Annotated[
        str | None,
        typer.Option(
            help=f"Format of embedding and head, or none; default: {Study.pinned} or the runtime's."
        ),
    ] = None,
    n_sequences: Annotated[
        int, typer.Option(help="Calibration blocks of estimators and quantizers.")
    ] = TextSource.n_sequences,
    n_search_sequences: Annotated[
        int, typer.Option(help="Further calibration blocks that each trial measures.")
    ] = Study.n_search_sequences,
    n_evaluation_sequences: Annotated[
        int, typer.Option(help="Evaluation blocks.")
    ] = TextSource.n_sequences,
    n_finalists: Annotated[
        int, typer.Option(help="Points measured on the evaluation text.")
    ] = Study.n_finalists,
    sequence_length: SequenceLength = TextSource.sequence_length,
    task: TaskName = Study.task,
    seed: Seed = Study.seed,
    dtype: Dtype = Study.dtype,
    device: Device = Study.device,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    runtime: RuntimeName = Study.runtime,
    tensor_parallel: TensorParallel = Study.tensor_parallel,
    kv_formats: Annotated[
        str | None,
        typer.Option(help="Menu of the KV cache, searched beside the weights: int2_g32,int4_g32."),
    ] = None,
    kv_at: Annotated[
        str, typer.Option(help="Batch and context that its bytes are counted at.")
    ] = "b1c2048",
    kv_window: Annotated[
        int, typer.Option(help="Recent tokens of it that stay at 16 bits.")
    ] = KVCache.window,
    kv_sinks: Annotated[
        int, typer.Option(help="First tokens of it that stay at 16 bits.")
    ] = KVCache.sinks,
    kv_pre_rope: Annotated[
        bool, typer.Option(help="Quantize its keys before their rotary embedding.")
    ] = KVCache.pre_rope,
    second_calibration: Annotated[
        str | None, typer.Option(help="Another text, KL on which is a second metric.")
    ] = None,
    second_evaluation: Annotated[
        str | None, typer.Option(help="For its reported values; give both or neither.")
    ] = None,
    second_layers: Annotated[
        str,
        typer.Option(help="Layers that it judges in --search decoupled: auto, or '*.mlp.*'."),
    ] = SecondText.layers,
    items: Annotated[
        Path | None, typer.Option(help="Multiple-choice items that finalists answer; JSON lines.")
    ] = None,
    base: Base = Study.base,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Also write the answer here, packed or as the runtime loads it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search the best allocation of MODEL within a budget and measure the front below it."""
    usual, pinned = default_menu(runtime, base)
    study = Study(
        model=model,
        budget=Budget.parse(",".join(budget)),
        calibration=TextSource(calibration, n_sequences, sequence_length),
        evaluation=TextSource(evaluation, n_evaluation_sequences, sequence_length),
        formats=menu(formats) if formats is not None else usual,
        quantizer=Choice.parse(quantizer),
        estimator=Choice.parse(estimator),
        searches=Choice.parse_list(search),
        costs=Choice.parse_list(costs),
        n_trials=n_trials,
        n_pairs=n_pairs,
        max_minutes=max_minutes,
        patience=patience,
        n_parallel=n_parallel,
        n_search_sequences=n_search_sequences,
        n_finalists=n_finalists,
        seed=seed,
        tied=ties,
        experts=experts,
        pinned=pinned if pin is None else None if pin == "none" else pin,
        revision=revision,
        dtype=dtype,
        device=device,
        runtime=runtime,
        tensor_parallel=tensor_parallel,
        kv_cache=_cache(kv_formats, kv_at, kv_window, kv_sinks, kv_pre_rope),
        base=base,
        task=task,
        second=_second(
            second_calibration,
            second_evaluation,
            second_layers,
            TextSource("", n_sequences, sequence_length),
            n_evaluation_sequences,
        ),
        items=str(items) if items else None,
    )
    exporter = study.deployment.exporter if study.deployment else "packed"
    with uncollected():
        from bitfront.display import Display
        from bitfront.export.base import check_target
        from bitfront.report.study import report_data
        from bitfront.run import export_checkpoint, run_study

    if checkpoint:
        for source in (model, base):  # before hours are spent
            if source is not None:
                check_target(checkpoint, source)
    with Display(as_json) as display:
        run_study(study, out, display.show)
        data = report_data(out)
        chosen, page = data.chosen, written_report(out, data)
        if checkpoint:
            export_checkpoint(study, chosen, checkpoint, exporter, out, display.show)
    _tell(data, str(study.estimator), page, checkpoint, as_json)


def _tell(
    data: ReportData, estimator: str, page: Path, checkpoint: Path | None, as_json: bool
) -> None:
    """Print what was found."""
    chosen = data.chosen
    if as_json:
        written: dict[str, object] = {"checkpoint": str(checkpoint)} if checkpoint else {}
        if data.experts.counts:
            written["tokens_of_experts"] = data.experts.counts
        row = {"chosen": chosen.number, "values": chosen.values, "report": str(page)}
        print(json.dumps(row | written))
        return
    from bitfront.report.terminal import front_table

    console = Console()
    console.print(front_table(data.front, chosen))
    print_note(console, estimator, data.loss.note)
    print_note(console, "Experts", data.experts.summary)
    print_note(console, "Base", _of_base(data.provenance, chosen.values["bytes"]))
    print_line(console, f"Report: {page}")
    if checkpoint:
        print_line(console, f"Checkpoint: {checkpoint}")


def _of_base(identity: Mapping[str, str], nbytes: float) -> str:
    """What a base takes beside the offset of a point; empty where there is none."""
    if "base" not in identity:
        return ""
    beside = int(identity["base bytes"])
    total = f"{(beside + nbytes) / 1e6:.4g} MB in all"
    return f"{beside / 1e6:.4g} MB that all fine-tuned models of it share, beside these; {total}"


def _cache(formats: str | None, at: str, window: int, sinks: int, pre_rope: bool) -> KVCache | None:
    if formats is None:
        return None
    return KVCache(menu(formats), *KVCache.parse_point(at), window, sinks, pre_rope)


def _second(
    calibration: str | None,
    evaluation: str | None,
    layers: str,
    blocks: TextSource,
    n_evaluation: int,
) -> SecondText | None:
    """The second text of a study; `blocks` says how it is cut.

    Raises:
        InvalidArgument: one of its two parts is missing.
    """
    if calibration is None and evaluation is None:
        return None
    if calibration is None or evaluation is None:
        raise InvalidArgument(
            "Give --second-calibration and --second-evaluation together: what the search sees and "
            "what is reported must be two texts."
        )
    return SecondText(
        replace(blocks, source=calibration),
        replace(blocks, source=evaluation, n_sequences=n_evaluation),
        layers,
    )
