"""What an instruction is to the network: a place in the list of those that were trained on, or a sentence's features.

    text = make_text(config, instructions)          # training
    text.features(["open the drawer"])              # float32 [1, text.size]
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from como_core import config as configuration
from como_core.errors import ComoError
from como_core.pretrained import beside_the_hub, pretrained_place
from como_core.training.checkpoint import weights_digest

_FILES = "config.json, model.safetensors and the tokenizer"


class TextError(ComoError, ValueError):
    """An instruction or a text encoder that cannot be used; the message names it, the reason and the remedy."""


@dataclass(frozen=True)
class TextConfig:
    """model   a text encoder of `transformers`, by its name on the hub or its folder, for any sentence.
               Empty: the instructions of training, and no others, without any download
    sha256  of its weights, written by training and checked at loading, since a checkpoint does not hold them
    """

    model: str = ""
    sha256: str = ""


class Text(Protocol):
    """Turns instructions into features."""

    size: int
    sha256: str

    def features(self, instructions: Sequence[str]) -> Tensor:
        """float32 [N, size]. Raises TextError for an instruction that it cannot take."""


def make_text(config: TextConfig, instructions: Sequence[str]) -> Text:
    """The encoder that `config` asks for. Raises TextError where a model cannot be had."""
    return Sentences(config) if config.model else Vocabulary(instructions)


class Vocabulary:
    """One of the instructions of training, as a one-hot row. What nobody trained on is refused, with the nearest."""

    sha256 = ""

    def __init__(self, instructions: Sequence[str]) -> None:
        self._known = tuple(instructions)
        self.size = len(self._known)

    def features(self, instructions: Sequence[str]) -> Tensor:
        rows = torch.tensor([self._place(instruction) for instruction in instructions])
        return torch.nn.functional.one_hot(rows, self.size).float()

    def _place(self, given: str) -> int:
        if given in self._known:
            return self._known.index(given)
        if self._known == ("",):
            return 0  # trained without instructions: whatever is said changes nothing
        raise TextError(f"instruction {given!r} is not one that the policy was trained on; "
                        f"{configuration.nearest(given, self._known)}")


class Sentences:
    """Sentences through a frozen text encoder of `transformers`: the mean of its last hidden states, at unit length.

    One that is longer than the encoder reads is refused, not cut: its end may be what the robot must not do.
    """

    def __init__(self, config: TextConfig) -> None:
        self.name = config.model
        self._tokens, self._network = _load(pretrained_place(config.model, _FILES))
        self._most_tokens = _most_tokens(self._tokens, self._network)
        self.size = int(self._network.config.hidden_size)
        self.sha256 = weights_digest(self._network)
        if config.sha256 and config.sha256 != self.sha256:
            raise TextError(f"{config.model}: its weights are not those that the policy was trained with (sha256 "
                            f"{self.sha256[:12]}, expected {config.sha256[:12]}); give the original text encoder")
        self._one = functools.lru_cache(maxsize=256)(self._encode)  # a robot hears the same sentence ten times a second

    def features(self, instructions: Sequence[str]) -> Tensor:
        return torch.stack([self._one(instruction) for instruction in instructions])

    @torch.inference_mode()
    def _encode(self, instruction: str) -> Tensor:
        if not instruction.strip():
            raise TextError(f"an empty instruction, but the policy was trained with the text encoder {self.name}: say "
                            "what the robot is to do")
        if any("\ud800" <= letter <= "\udfff" for letter in instruction):
            raise TextError(f"instruction {_begin_of(instruction)}: holds bytes that were not UTF-8 (lone surrogates), "
                            "which no text encoder reads; say it in UTF-8")
        given = self._tokens([instruction], return_tensors="pt", verbose=False)
        count = given["input_ids"].shape[1]
        if count > self._most_tokens:
            raise TextError(f"instruction {_begin_of(instruction)}: {count} tokens, and the text encoder {self.name} "
                            f"reads {self._most_tokens} at most: say it shorter")
        hidden = self._network(**given).last_hidden_state[0].float()
        mask = given["attention_mask"][0, :, None]
        return torch.nn.functional.normalize((hidden * mask).sum(0) / mask.sum(), dim=0).clone()


def _begin_of(instruction: str) -> str:
    return repr(instruction if len(instruction) <= 60 else instruction[:57] + "...")


def _most_tokens(tokens: Any, network: Any) -> int:
    """How many tokens both take: what the tokeniser says may be nothing or more than the network has places for."""
    places = [module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)  # as RoBERTa counts
              for name, module in network.named_modules()
              if isinstance(module, torch.nn.Embedding) and "position" in name.rpartition(".")[2]]
    said = getattr(network.config, "max_position_embeddings", None)
    return min([int(tokens.model_max_length), *places, *([said] if isinstance(said, int) and said > 0 else [])])


def _load(model: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModel, SiglipTextModel, T5EncoderModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    kinds: dict[str, Any] = {"t5": T5EncoderModel, "clip": CLIPTextModel, "clip_text_model": CLIPTextModel,
                             "siglip": SiglipTextModel, "siglip_text_model": SiglipTextModel}
    try:
        settings = AutoConfig.from_pretrained(model)
        network = kinds.get(settings.model_type, AutoModel).from_pretrained(model)
        return AutoTokenizer.from_pretrained(model), network.eval().requires_grad_(False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise TextError(f"{model}: no text encoder of `transformers` can be loaded from it: {beside_the_hub(model)}"
                        f"{reason}. Give a name on the Hugging Face hub (needs internet once) or a folder with {_FILES}"
                        ) from error
