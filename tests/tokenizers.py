"""Small real tokenizers of the kinds that models have, and their chat templates."""

from __future__ import annotations

from functools import cache

from transformers import PreTrainedTokenizerFast

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "system\nYou are a helpful assistant.\n user assistant start end think table",
    "It was a dark night, and the wind came over the sea. <|im_start|> [INST] [/INST] <s> </s>",
    "  Spaces   and\n\nlines;  naïve, 夜 🎈 'quoted' 1234 <b> || >> << im_ _start",
]

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING = (  # looks into an assistant's content, as Qwen3's does
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '</think>' in m.content %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content | trim + eos_token }}"
    "{% else %}{{ '[INST] ' + m.content | trim + ' [/INST]' }}{% endif %}{% endfor %}"
)
JOINED = "{% for m in messages %}{{ m.content }}{% endfor %}<|im_end|>"  # nothing between contents


@cache
def _byte_level(text: bool = True) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS * 4, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return backend


def chatml(template: str = CHATML) -> PreTrainedTokenizerFast:
    """As Qwen's: bytes, control tokens beside the vocabulary, some of which are not special."""
    backend = Tokenizer.from_str(_byte_level().to_str())
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    backend.add_tokens(
        [AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>", "<table>")]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = template
    return made


def llama(template: str = INST) -> PreTrainedTokenizerFast:
    """As Llama 2's: pieces of SentencePiece with bytes to fall back to, control tokens within the vocabulary, and one
    before each text."""
    pieces = sorted({letter for text in CORPUS for letter in text.replace(" ", "▁") if letter < "\u3000"})
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, "▁t", "he", "▁the"]
    vocabulary = {name: i for i, name in enumerate(dict.fromkeys(names))}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    backend = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    backend.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", vocabulary["<s>"])])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = template
    return made


def normalising(template: str = CHATML) -> PreTrainedTokenizerFast:
    """One that finds its control tokens after it has made wide letters narrow: they can be spelled in other ways."""
    backend = Tokenizer.from_str(_byte_level().to_str())
    backend.normalizer = normalizers.NFKC()
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=True, rstrip=True) for t in ("<|im_start|>", "<|im_end|>")]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    made.chat_template = template
    return made


@cache
def letters() -> PreTrainedTokenizerFast:
    """A token for each printable letter of ASCII: for models whose vocabulary is tiny."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *map(chr, range(32, 127))]
    backend = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>"))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names[:4]])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def with_signs(template: str, *signs: str, special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """`chatml` with more added tokens: `special` ones are not part of texts."""
    made = chatml(template)
    made.add_tokens([AddedToken(sign, special=False, normalized=False) for sign in signs])
    made.add_tokens([AddedToken(sign, special=True, normalized=False) for sign in special], special_tokens=True)
    return made


# Templates with tools, each in the way of some model's, in words of our own
TOOLS_QWEN = (
    "{% if tools %}<|im_start|>system\n{% if messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    "<tools>{% for t in tools %}\n{{ t | tojson }}{% endfor %}\n</tools> as <tool_call></tool_call><|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
TOOLS_DEEPSEEK = (  # arguments are a text; a content beside calls is left out unless it is none
    "{% for m in messages %}{% if m.role == 'user' %}<U>{{ m.content }}"
    "{% elif m.role == 'assistant' and m.content is none %}<A>{% for c in m.tool_calls %}<｜tool▁calls▁begin｜>"  # noqa: RUF001
    "{{ c.function.name + '\n```json\n' + c.function.arguments }}{% endfor %}"
    "{% elif m.role == 'assistant' %}<A>{{ m.content }}{% elif m.role == 'tool' %}<T>{{ m.content }}{% endif %}"
    "{% endfor %}{% for t in tools or [] %}{{ t.function.name }}: {{ t.function.description }}{% endfor %}"
)
TOOLS_MISTRAL = (  # ids are nine letters and digits
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
    "{{ c.function | tojson }}, {{ c.id }}{% endfor %}]{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}, "
    "{{ m.tool_call_id }}[/TOOL_RESULTS]{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
TOOLS_KIMI = (  # of calls and results the ids alone
    "{% for t in tools or [] %}<T>{{ t | tojson }}{% endfor %}{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'tool' %}## {{ m.tool_call_id }}: {% endif %}{{ m.content }}{% if m.tool_calls %}"
    "<|tool_calls_section_begin|>{% for c in m['tool_calls'] %}<|tool_call_begin|>{{ c['id'] }}"
    "<|tool_call_argument_begin|>{{ c.function.arguments | tojson }}<|tool_call_end|>{% endfor %}"
    "<|tool_calls_section_end|>{% endif %}{% endfor %}"
)
TOOLS_HARMONY = (  # the first call of a message, without its content; a result has the name of the last call
    "{% for t in tools or [] %}type {{ t.function.name }}{% endfor %}{% set last = namespace(name='') %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|start|>functions.{{ last.name }} to=assistant"
    "<|channel|>commentary<|message|>{{ m.content }}<|end|>{% elif 'tool_calls' in m %}"
    "{% set last.name = m.tool_calls[0].function.name %}<|start|>assistant to=functions.{{ last.name }}"
    "<|channel|>commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
)
