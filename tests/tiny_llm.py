"""Language models for tests, built without a network: the same bytes for the same seed.

Weights are random and far apart, so that greedy decoding has no near ties, and every implementation
gets the same tokens.
"""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path
from typing import Any

VOCABULARY = 512
CONTEXT = 512
WIDTH = 128
SPREAD = 0.3
END, BEGIN = "<|end|>", "<|begin|>"
CHAT = (
    "{% for message in messages %}<|begin|>{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "assistant:"
)
# Its steps take some milliseconds. In shorter ones vLLM's core makes many tokens before it sends
# any, and a client that disconnects does so too late.
WIDE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
}
MODULES, POOLING = "sentence_transformers.models", "1_Pooling"


def llama(folder: Path, seed: int = 0, **shape: int) -> Path:
    """Write a Llama of two layers that chats, and return its folder.

    `from_pretrained` and vLLM read it. `shape` changes its configuration.
    """
    import torch  # noqa: PLC0415 - costs a second that most tests need not spend
    import transformers  # noqa: PLC0415

    torch.manual_seed(seed)
    return _saved(transformers.LlamaForCausalLM(_shape(**shape)), folder)


def embedder(folder: Path, seed: int = 0) -> Path:
    """Write the same without a head, in the layout of Sentence Transformers.

    Its vectors are the last token's, of length one.
    """
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    torch.manual_seed(seed)
    modules = [
        {"idx": 1, "path": POOLING, "type": f"{MODULES}.Pooling"},
        {"idx": 2, "path": "2_Normalize", "type": f"{MODULES}.Normalize"},
    ]
    (folder / POOLING).mkdir(parents=True)
    (folder / POOLING / "config.json").write_text(
        json.dumps({"word_embedding_dimension": WIDTH, "pooling_mode_lasttoken": True})
    )
    (folder / "modules.json").write_text(json.dumps(modules))
    return _saved(transformers.LlamaModel(_shape()), folder)


def adapter(folder: Path, base: Path, seed: int = 1) -> Path:
    """Write a LoRA adapter of the Llama in `base` that changes every answer."""
    import peft  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    torch.manual_seed(seed)
    settings = peft.LoraConfig(
        r=8, lora_alpha=64, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False
    )
    changed = peft.get_peft_model(transformers.LlamaForCausalLM.from_pretrained(base), settings)
    changed.save_pretrained(folder)
    return folder


def _shape(**changes: int) -> Any:
    import transformers  # noqa: PLC0415

    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": SPREAD,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    return transformers.LlamaConfig(**shape | changes)


def _saved(model: Any, folder: Path) -> Path:
    model.eval().save_pretrained(folder)
    (folder / "tokenizer.json").write_text(_tokenizer())
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
    }
    settings |= {
        "model_max_length": CONTEXT,
        "chat_template": CHAT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@functools.cache
def _tokenizer() -> str:
    """Return a byte-level BPE, learned from the source of a module of the standard library."""
    import tokenizers  # noqa: PLC0415

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([inspect.getsource(inspect)], trainer)
    return str(tokenizer.to_str())
