"""Text that needs no network: the help topics of Python's standard library, as characters to predict."""

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100  # a target that counts for nothing: torch's default `ignore_index`
CHOSEN, HIDDEN, REPLACED = 0.15, 0.8, 0.1  # Devlin et al. 2019, arXiv 1810.04805, section 3.1


@dataclass(frozen=True)
class TextBatches:
    """Windows of a text, drawn anew each step; the batch depends on seed and step alone, so a run can be resumed.

    Args:
        tokens: int64, (length,).
        batch_size: windows a step.
        context: tokens in a window.
        vocabulary: number of tokens that occur; the mask is the token after the last.
        masked: False asks for the next token; True hides tokens as BERT does and asks for those alone.
        seed: of the draws.

    Raises:
        ValueError: the text is not longer than `context`, or batch_size or context is below 1.
    """

    tokens: Tensor
    batch_size: int
    context: int
    vocabulary: int
    masked: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 1 <= self.context < len(self.tokens):
            raise ValueError(
                f"batch_size={self.batch_size}, context={self.context} with {len(self.tokens)} tokens; "
                "use 1 or more of each, and a context shorter than the text."
            )

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one step, counted from 0: int64, (batch_size, context) each."""
        seed = (1_000_003 * self.seed + step) % 2**32  # the CPU generator reads no more bits than these
        draw = torch.Generator().manual_seed(seed)
        starts = torch.randint(len(self.tokens) - self.context, (self.batch_size, 1), generator=draw)
        places = (starts + torch.arange(self.context)).to(self.tokens.device)
        window = self.tokens[places]
        if not self.masked:
            return window, self.tokens[places + 1]
        chance, fate = torch.rand(2, *window.shape, generator=draw).to(window.device)
        other = torch.randint(self.vocabulary, window.shape, generator=draw).to(window.device)
        chosen = chance < CHOSEN
        inputs = window.masked_fill(chosen & (fate < HIDDEN), self.vocabulary)
        inputs = torch.where(chosen & (fate >= 1 - REPLACED), other, inputs)
        return inputs, window.masked_fill(~chosen, IGNORED)


@dataclass(frozen=True)
class Text:
    """Characters as numbers: `train` is the first nine tenths, `held_out` the rest; `characters[i]` is token i."""

    characters: str
    train: Tensor
    held_out: Tensor

    def batches(
        self, batch_size: int = 8, context: int = 64, masked: bool = False, seed: int = 0, held_out: bool = False
    ) -> TextBatches:
        """Windows of the training text, or of the held-out one."""
        tokens = self.held_out if held_out else self.train
        return TextBatches(tokens, batch_size, context, len(self.characters), masked, seed)


def text(device: torch.device | str = "cpu") -> Text:
    """Load all topics of `pydoc_data.topics` in alphabetical order. Their length depends on Python's version."""
    from pydoc_data.topics import topics

    whole = "".join(topics[name] for name in sorted(topics))
    characters = "".join(sorted(set(whole)))
    number = {character: index for index, character in enumerate(characters)}
    tokens = torch.tensor([number[character] for character in whole])
    cut = len(tokens) * 9 // 10
    return Text(characters, tokens[:cut].to(device), tokens[cut:].to(device))
