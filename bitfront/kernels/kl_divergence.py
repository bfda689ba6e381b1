"""KL divergence over a top K and the tail: one pass over the logits, no log-softmax is stored.

    log_probs [n, K], log_tail [n] = top_log_probs(logits [n, vocabulary], indices [n, K])
    kl [n] = kl_divergence(logits, indices, log_probs, log_tail)

The outcomes are the K tokens of `indices` and "any other" (`bitfront.models.reference`). Both run
the same instructions on the logits, so that equal logits have a KL of exactly 0. What a torch
chain reads and writes some eight times is read once: a row is a running maximum and a running sum
of the tokens outside the top K, which a bitmap of the vocabulary names.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 8192
_TINY = tl.constexpr(float(torch.finfo(torch.float32).tiny))


def reference_top_log_probs(
    logits: torch.Tensor, indices: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities at `indices` and of all other tokens, in the dtype of `logits`."""
    indices = indices.long()
    scaled = logits - logits.amax(dim=-1, keepdim=True)
    rest = scaled.scatter(-1, indices, -torch.inf).exp().sum(dim=-1)
    log_probs = scaled.log_softmax(dim=-1).gather(-1, indices)
    # An empty tail counts as the smallest float32, relative to the largest token.
    return log_probs, rest.clamp(min=_TINY.value).log() - scaled.exp().sum(dim=-1).log()


def reference_kl_divergence(
    logits: torch.Tensor, indices: torch.Tensor, log_probs: torch.Tensor, log_tail: torch.Tensor
) -> torch.Tensor:
    """`sum p (log p - log q) + (q - p)` over the outcomes; its second part sums to 0."""
    log_q, log_q_tail = reference_top_log_probs(logits, indices)
    log_p = torch.cat([log_probs, log_tail[..., None]], dim=-1).to(logits.dtype)
    log_q = torch.cat([log_q, log_q_tail[..., None]], dim=-1)
    p, q = log_p.exp(), log_q.exp()
    return torch.where(p == 0, q, p * (log_p - log_q) + (q - p)).sum(dim=-1)


@triton.jit
def _row_sums(logits, inside, indices, n_tokens, top_k, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    """Largest logit of a row, and the sums of `exp(logit - largest)` outside and in all."""
    largest = -float("inf")
    rest = 0.0
    word = tl.arange(0, BLOCK // 32)
    bit = tl.arange(0, 32)
    for start in range(0, n_tokens, BLOCK):
        token = start + word[:, None] * 32 + bit[None, :]  # [BLOCK / 32, 32]
        x = tl.load(logits + token, mask=token < n_tokens, other=-float("inf")).to(tl.float32)
        first = start // 32 + word
        members = tl.load(inside + first, mask=first * 32 < n_tokens, other=0)
        block_largest = tl.maximum(largest, tl.max(x))
        # A block of nothing but -inf has a sum of 0, not of NaN.
        base = tl.where(block_largest == -float("inf"), 0.0, block_largest)
        outside = members[:, None] & (1 << bit)[None, :] == 0
        rest = rest * tl.exp(largest - base) + tl.sum(tl.where(outside, tl.exp(x - base), 0.0))
        largest = block_largest
    top = 0.0
    for start in range(0, top_k, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        token = tl.load(indices + k, mask=k < top_k, other=0)
        x = tl.load(logits + token, mask=k < top_k, other=-float("inf")).to(tl.float32)
        top += tl.sum(tl.exp(x - largest))
    return largest, rest, rest + top


@triton.jit
def _log_tail(rest, total):
    return tl.log(tl.maximum(rest, _TINY)) - tl.log(total)


@triton.jit
def _outcome(log_p, log_q):
    """`p (log p - log q) + (q - p)`: near 0 by its series, whose first term is of second order."""
    p = tl.exp(log_p)
    r = log_p - log_q
    series = 1 / 479001600 - r * (1 / 6227020800)
    series = 1 / 3628800 - r * (1 / 39916800 - r * series)
    series = 1 / 40320 - r * (1 / 362880 - r * series)
    series = 1 / 720 - r * (1 / 5040 - r * series)
    series = 1 / 24 - r * (1 / 120 - r * series)
    near = p * (r * r) * (0.5 - r * (1 / 6 - r * series))
    q = tl.exp(log_q)
    far = p * r + (q - p)
    return tl.where(p == 0, q, tl.where(tl.abs(r) < 1, near, far))


@triton.jit
def _top_log_probs(
    # pointers
    logits, inside, indices, log_probs, log_tail,
    # sizes
    n_tokens, top_k, n_words,
    # meta-parameters
    BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits += row * n_tokens
    indices += row * top_k
    largest, rest, total = _row_sums(
        logits, inside + row * n_words, indices, n_tokens, top_k, BLOCK, BLOCK_K
    )
    for start in range(0, top_k, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        token = tl.load(indices + k, mask=k < top_k, other=0)
        x = tl.load(logits + token, mask=k < top_k, other=0.0).to(tl.float32)
        tl.store(log_probs + row * top_k + k, x - largest - tl.log(total), mask=k < top_k)
    tl.store(log_tail + row, _log_tail(rest, total))


@triton.jit
def _kl_divergence(
    # pointers
    logits, inside, indices, log_probs, log_tail, kl,
    # sizes
    n_tokens, top_k, n_words,
    # meta-parameters
    BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits += row * n_tokens
    indices += row * top_k
    largest, rest, total = _row_sums(
        logits, inside + row * n_words, indices, n_tokens, top_k, BLOCK, BLOCK_K
    )
    tail = tl.load(log_tail + row).to(tl.float32)
    divergence = _outcome(tail, _log_tail(rest, total))
    for start in range(0, top_k, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        valid = k < top_k
        token = tl.load(indices + k, mask=valid, other=0)
        x = tl.load(logits + token, mask=valid, other=0.0).to(tl.float32)
        log_p = tl.load(log_probs + row * top_k + k, mask=valid, other=0.0).to(tl.float32)
        outcome = _outcome(log_p, x - largest - tl.log(total))
        divergence += tl.sum(tl.where(valid, outcome, 0.0))
    tl.store(kl + row, divergence)


def _inside(indices: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Bit `t % 32` of word `t // 32` says whether token t is listed, int32 `[n, n_tokens / 32]`."""
    bits = torch.ones_like(indices) << (indices & 31)
    words = indices.new_zeros(len(indices), -(-n_tokens // 32))
    return words.scatter_add_(1, (indices >> 5).long(), bits)  # a sum of distinct bits is their or


def _launch(kernel, logits: torch.Tensor, indices: torch.Tensor, *others: torch.Tensor) -> None:
    indices = indices.to(torch.int32).contiguous()
    n, n_tokens, top_k = len(logits), logits.shape[-1], indices.shape[-1]
    inside = _inside(indices, n_tokens)
    kernel[(n,)](
        logits.contiguous(), inside, indices, *others, n_tokens, top_k, inside.shape[1],
        BLOCK=min(_BLOCK, max(32, triton.next_power_of_2(n_tokens))),
        BLOCK_K=min(_BLOCK, triton.next_power_of_2(top_k)),
        num_warps=8, enable_fp_fusion=True,
    )  # fmt: skip


def run_top_log_probs(
    logits: torch.Tensor, indices: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities at `indices`, float32 `[n, K]`, and of all other tokens, `[n]`.

    Args:
        logits: `[n, vocabulary]`, any float dtype.
        indices: distinct tokens of each row, integers `[n, K]`.
    """
    log_probs = torch.empty(indices.shape, dtype=torch.float32, device=logits.device)
    log_tail = log_probs.new_empty(len(logits))
    _launch(_top_log_probs, logits, indices, log_probs, log_tail)
    return log_probs, log_tail


def run_kl_divergence(
    logits: torch.Tensor, indices: torch.Tensor, log_probs: torch.Tensor, log_tail: torch.Tensor
) -> torch.Tensor:
    """KL(reference || softmax of logits) of each row in nats, float32 `[n]`.

    NaN where a row holds NaN or +inf or nothing but -inf; +inf where a token that the reference
    gives any probability is at -inf.

    Args:
        logits: `[n, vocabulary]`, any float dtype.
        indices: distinct tokens of each row, integers `[n, K]`.
        log_probs: of the reference at `indices`, any float dtype `[n, K]`.
        log_tail: log of the reference's mass outside, `[n]`.
    """
    kl = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    _launch(_kl_divergence, logits, indices, log_probs.contiguous(), log_tail.contiguous(), kl)
    return kl


top_log_probs = torch.library.custom_op(
    "bitfront::top_log_probs", run_top_log_probs, mutates_args=(), device_types="cuda"
)
kl_divergence = torch.library.custom_op(
    "bitfront::kl_divergence", run_kl_divergence, mutates_args=(), device_types="cuda"
)


@top_log_probs.register_fake
def _(logits: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    log_probs = logits.new_empty(indices.shape, dtype=torch.float32)
    return log_probs, log_probs.new_empty(len(logits))


@kl_divergence.register_fake
def _(
    logits: torch.Tensor, indices: torch.Tensor, log_probs: torch.Tensor, log_tail: torch.Tensor
) -> torch.Tensor:
    return logits.new_empty(len(logits), dtype=torch.float32)


@top_log_probs.register_kernel("cpu")
def _(logits: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return reference_top_log_probs(logits.float(), indices)


@kl_divergence.register_kernel("cpu")
def _(
    logits: torch.Tensor, indices: torch.Tensor, log_probs: torch.Tensor, log_tail: torch.Tensor
) -> torch.Tensor:
    return reference_kl_divergence(logits.float(), indices, log_probs, log_tail)
