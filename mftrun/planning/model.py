"""What the arithmetic must know of a model: its sizes, and how many numbers it holds of which kind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """Sizes of a decoder.

    Attributes:
        family: As config.json names it.
        hidden: Width of the stream between layers.
        inner: Width of the feed-forward part; with experts, of those that see a token, together.
        layers: Depth.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a head.
        vocab: Entries of the output head.
        gated: Whether the feed-forward part multiplies two projections (SwiGLU and its kin).
        head_norms: Whether queries and keys are normalised head by head.
        tied: Whether the output head shares the embedding's weights.
        window: Positions that sliding attention sees; None sees all.
        rough: Why activations are only roughly those of the formulas; None where they were checked.
    """

    family: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    gated: bool = True
    head_norms: bool = False
    tied: bool = False
    window: int | None = None
    rough: str | None = None

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Parameters:
    """Numbers of weights, by what they are stored in and whether they are trained.

    Attributes:
        linear: Those of linear layers but the output head: what quantisation stores in a few bits.
        other: Embeddings, output head, norms, biases, fused experts.
        adapter: What an adapter adds.
        trained_linear: Of `linear`, those with a gradient.
        trained_other: Of `other`, those with a gradient.
        trained_adapter: Of `adapter`, those with a gradient.
    """

    linear: int = 0
    other: int = 0
    adapter: int = 0
    trained_linear: int = 0
    trained_other: int = 0
    trained_adapter: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.linear + self.other + self.adapter

    @property
    def trained(self) -> int:
        """All with a gradient."""
        return self.trained_linear + self.trained_other + self.trained_adapter


@dataclass(frozen=True)
class LowRank:
    """The low-rank adapters of one layer.

    Attributes:
        inputs: Widths of what goes into them, added up.
        ranks: Their ranks, added up.
        dropout: Whether their inputs go through dropout.
        merged: Weights of experts that have adapters: every forward pass makes copies with these added.
    """

    inputs: int
    ranks: int
    dropout: bool
    merged: int = 0


@dataclass(frozen=True)
class ModelSize:
    """A model with its adapters.

    Attributes:
        architecture: Its sizes.
        whole: All of its weights; shared ones once.
        layer: Those of its largest layer.
        outside: Those that belong to no layer.
        largest: Weights of the largest trained matrix in a layer.
        trains_head: Whether the output head's weight has a gradient.
        low_rank: The adapters of a layer; None without, and for adapters of another kind.
        active: Weights that one token goes through; None where that is all of them.
    """

    architecture: Architecture
    whole: Parameters
    layer: Parameters
    outside: Parameters
    largest: int = 0
    trains_head: bool = False
    low_rank: LowRank | None = None
    active: int | None = None
