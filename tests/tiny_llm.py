"""Language models small enough for tests, made here and without a network: the same bytes for the same seed.

Weights are random and far apart, so that greedy decoding has no near ties: whoever computes it gets the same tokens.
"""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path

VOCABULARY = 512
CONTEXT = 512
WIDTH = 128
SPREAD = 0.3
END, BEGIN = "<|end|>", "<|begin|>"
CHAT = "{% for message in messages %}<|begin|>{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
WIDE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
}
"""Steps of some milliseconds: in shorter ones vLLM's core makes many tokens before it sends any, and clients would leave too late."""
MODULES, POOLING = "sentence_transformers.models", "1_Pooling"


def llama(folder: Path, seed: int = 0, **shape: int) -> Path:
    """A Llama of two layers that chats: its folder, as `from_pretrained` and vLLM read it. `shape` changes its configuration."""
    import torch  # noqa: PLC0415 - costs a second that most tests need not spend
    import transformers  # noqa: PLC0415

    torch.manual_seed(seed)
    return _saved(transformers.LlamaForCausalLM(_shape(**shape)), folder)


def embedder(folder: Path, seed: int = 0) -> Path:
    """The same without a head, as Sentence Transformers lays it out: its vectors are the last token's, of length one."""
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


def adapter(folder: Path, of: Path, seed: int = 1) -> Path:
    """A LoRA adapter of the Llama in `of`, strong enough that every answer differs from its base's."""
    import peft  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    torch.manual_seed(seed)
    settings = peft.LoraConfig(
        r=8, lora_alpha=64, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False
    )
    changed = peft.get_peft_model(transformers.LlamaForCausalLM.from_pretrained(of), settings)
    changed.save_pretrained(folder)
    return folder


def _shape(**changes: int):
    import transformers  # noqa: PLC0415

    told = {
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
    return transformers.LlamaConfig(**told | changes)


def _saved(model, folder: Path) -> Path:
    model.eval().save_pretrained(folder)
    (folder / "tokenizer.json").write_text(_tokenizer())
    settings = {
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
    """A byte-level BPE, learned from the source of a module that every Python has."""
    import tokenizers  # noqa: PLC0415

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made.train_from_iterator([inspect.getsource(inspect)], trainer)
    return str(made.to_str())
