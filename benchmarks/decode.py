"""How fast does a packed checkpoint decode, and in how much memory, against bfloat16 and float32?

    python benchmarks/decode.py MODEL CHECKPOINT [--device cpu] [--n-tokens 64] [--n-rounds 5]

MODEL is the unquantized model (folder, hub id or GGUF file), CHECKPOINT what `bitfront export` made
of it with the `packed` exporter. Every way to run it is a process of its own; rounds alternate
between the ways, so that ratios hold on a machine with other load, and `tokens_per_second` is the
median. A round decodes `--n-tokens` tokens, one by one, after a prompt of `--n-prompt`; the prompt
is timed apart. On a GPU a step is one replayed CUDA graph. `loaded_mib` is the memory after the
model was loaded, `peak_mib` the most while it decoded, both of the whole process (of the GPU, what
torch allocated); `load_peak_mib` is the most while loading. Ways: `float32`, `bfloat16`, `packed`,
on a CPU `packed kept`, whose layers keep their decoded weight, and on a GPU `packed apart`, which
multiplies q, k and v, and gate and up, in a launch for each. Appends to
`benchmarks/results/decode.csv`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
from record import Record
from stopwatch import peak_memory, reset_peak
from torch import nn
from transformers import AutoModelForCausalLM, StaticCache

import bitfront
from bitfront.models.load import load_model
from bitfront.models.quant_linear import join_siblings, keep_decoded

COLUMNS = (
    *("model", "checkpoint", "bits_per_weight", "device", "way", "weight_bytes", "n_prompt"),
    *("n_tokens", "n_rounds", "tokens_per_second", "slowest", "fastest", "over_bfloat16"),
    *("prompt_tokens_per_second", "loaded_mib", "load_peak_mib", "peak_mib", "n_threads", "load"),
)
WAYS = ("float32", "bfloat16", "packed", "packed kept", "packed apart")


def main() -> None:
    """Start every way, let them decode in turn, record."""
    arguments = parse()
    record = Record("decode", COLUMNS)
    elsewhere = "packed kept" if on_gpu(arguments) else "packed apart"
    ways = [way for way in arguments.ways if way != elsewhere]
    with started(arguments, ways) as pipes:
        memory = {way: pipe.recv() for way, pipe in pipes.items()}
        rounds: dict[str, list[Round]] = {way: [] for way in ways}
        load = os.getloadavg()[0]
        for _ in range(arguments.n_rounds):
            for way, pipe in pipes.items():
                pipe.send("decode")
                rounds[way].append(pipe.recv())
    speeds = {way: [found.tokens_per_second for found in rounds[way]] for way in ways}
    for way in ways:
        record.add(
            model=Path(arguments.model).name,
            checkpoint=arguments.checkpoint.name if "packed" in way else "",
            device=torch.cuda.get_device_name() if on_gpu(arguments) else "cpu",
            way=way,
            n_prompt=arguments.n_prompt,
            n_tokens=arguments.n_tokens,
            n_rounds=arguments.n_rounds,
            tokens_per_second=round(median(speeds[way]), 3),
            slowest=round(min(speeds[way]), 3),
            fastest=round(max(speeds[way]), 3),
            over_bfloat16=over(speeds, way, "bfloat16"),
            prompt_tokens_per_second=round(
                median(found.prompt_tokens_per_second for found in rounds[way]), 1
            ),
            peak_mib=max(found.peak_mib for found in rounds[way]),
            n_threads=arguments.n_threads,
            load=round(load, 2),
            **memory[way],
        )


def parse() -> argparse.Namespace:
    """Command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("model")
    made.add_argument("checkpoint", type=Path)
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--ways", type=lambda text: text.split(","), default=list(WAYS))
    made.add_argument("--n-prompt", type=int, default=32)
    made.add_argument("--n-tokens", type=int, default=64)
    made.add_argument("--n-rounds", type=int, default=5)
    made.add_argument("--n-threads", type=int, default=torch.get_num_threads())
    return made.parse_args()


def on_gpu(arguments: argparse.Namespace) -> bool:
    """Whether the device is a GPU."""
    return arguments.device.startswith("cuda")


def over(speeds: dict[str, list[float]], way: str, other: str) -> float | str:
    """Median over rounds of how many times faster than another way, round by round."""
    if other not in speeds:
        return ""
    ratios = (a / b for a, b in zip(speeds[way], speeds[other], strict=True))
    return round(median(ratios), 3)


@contextmanager
def started(arguments: argparse.Namespace, ways: list[str]) -> Iterator[dict[str, Connection]]:
    """A process for each way, loaded one after the other; ended with the block."""
    start = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    try:
        for way in ways:
            pipes[way], theirs = start.Pipe()
            process = start.Process(target=decode, args=(arguments, way, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes[way].poll(None)  # loading would disturb the loading of the next
        yield pipes
    finally:
        for pipe in pipes.values():
            with suppress(OSError):
                pipe.send("")
        for process in processes:
            process.join(10)
            process.terminate()


@dataclass(frozen=True)
class Round:
    """One prompt and the tokens after it."""

    tokens_per_second: float
    prompt_tokens_per_second: float
    peak_mib: float


def decode(arguments: argparse.Namespace, way: str, pipe: Connection) -> None:
    """Load, tell the memory, then decode whenever asked to."""
    torch.set_num_threads(arguments.n_threads)
    reset(arguments.device)
    model = loaded(arguments, way)
    weights = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    pipe.send(
        {
            "weight_bytes": sum(weights.values()),
            "bits_per_weight": bits_per_weight(model),
            "load_peak_mib": peak(arguments.device),
            "loaded_mib": resident(arguments.device),
        }
    )
    with torch.inference_mode():
        steps = Steps(model, arguments.n_prompt, arguments.n_tokens, arguments.device)
        steps.run()  # what is made at the first call is made
        while pipe.recv():
            reset(arguments.device)
            prompt, tokens = steps.run()
            pipe.send(
                Round(
                    arguments.n_tokens / tokens,
                    arguments.n_prompt / prompt,
                    peak(arguments.device),
                )
            )


def loaded(arguments: argparse.Namespace, way: str) -> nn.Module:
    """The model that a way runs."""
    if "packed" not in way:
        return load_model(arguments.model, dtype=way, device=arguments.device).module
    assert bitfront.__version__  # its import is what lets transformers load the checkpoint
    made = AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.bfloat16)
    keep_decoded(made, "kept" in way)
    if "apart" in way:
        join_siblings(made, ())
    return made.to(arguments.device).eval()


def bits_per_weight(model: nn.Module) -> float:
    """Stored bits of all weights over their number."""
    tensors = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}.values()
    packed = [module for module in model.modules() if hasattr(module, "format")]
    n_packed = sum(module.shape[0] * module.shape[1] for module in packed)
    stored = {id(t) for module in packed for t in module.buffers(recurse=False)}
    n_plain = sum(tensor.numel() for tensor in tensors if id(tensor) not in stored)
    return round(8 * sum(tensor.nbytes for tensor in tensors) / (n_packed + n_plain), 3)


class Steps:
    """A prompt, then tokens one by one, the likeliest each time; on a GPU as one graph a step."""

    def __init__(self, model: nn.Module, n_prompt: int, n_tokens: int, device: str) -> None:
        self.model, self.n_tokens, self.device = model, n_tokens, device
        generator = torch.Generator().manual_seed(0)
        size = model.config.vocab_size
        self.prompt = torch.randint(size, (1, n_prompt), generator=generator).to(device)
        self.token = self.prompt[:, :1].clone()
        self.cache = StaticCache(config=model.config, max_cache_len=n_prompt + n_tokens)
        self.step: Callable[[], object] = self._step

    def run(self) -> tuple[float, float]:
        """Seconds of the prompt and of all tokens after it."""
        self.cache.reset()
        start = self._now()
        self._take(self.prompt)
        between = self._now()
        if self.device != "cpu" and self.step == self._step:
            self._capture()
            return self.run()
        for _ in range(self.n_tokens):
            self.step()
        return between - start, self._now() - between

    def _step(self) -> None:
        self._take(self.token)

    def _take(self, tokens: torch.Tensor) -> None:
        logits = self.model(tokens, past_key_values=self.cache, use_cache=True).logits
        self.token.copy_(logits[:, -1:].argmax(dim=-1))

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        self.step = graph.replay

    def _now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


def reset(device: str) -> None:
    """Let the largest memory so far be forgotten."""
    if device == "cpu":
        reset_peak()
    else:
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> float:
    """Largest memory since `reset`, in MiB."""
    return peak_memory() if device == "cpu" else mib(torch.cuda.max_memory_allocated())


def resident(device: str) -> float:
    """Memory now, in MiB."""
    if device != "cpu":
        return mib(torch.cuda.memory_allocated())
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return mib(pages * os.sysconf("SC_PAGE_SIZE"))


def mib(n_bytes: int) -> float:
    """Bytes in MiB."""
    return round(n_bytes / 2**20, 1)


if __name__ == "__main__":
    main()
