"""Chat formats of the legacy families, in jinja, for checkpoints that bring no template of their own."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

QWEN = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}" + CHATML
)
"""ChatML; the original always has a system message."""

INTERNLM2 = "{{ bos_token }}" + CHATML

BAICHUAN2 = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<reserved_106>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<reserved_107>' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<reserved_107>' }}{% endif %}"
)
"""The entries 195 and 196 are the user and the assistant; a system message stands in front as it is."""

CHATGLM2 = (
    "{{ '[gMASK]<sop>' }}{% set ns = namespace(round=0) %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{% set ns.round = ns.round + 1 %}"
    "{{ '[Round ' ~ ns.round ~ ']\\n\\n问\uff1a' + message['content'] + '\\n\\n答\uff1a' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] }}{{ eos_token if loop.last else '\\n\\n' }}"
    "{% else %}{{ raise_exception('this chat format has user and assistant messages alone') }}{% endif %}"
    "{% endfor %}"
)
"""Numbered rounds; a question always ends with what asks for the answer."""

CHATGLM3 = (
    "{{ '[gMASK]<sop>' }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n ' + message['content'] }}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The space stands for the mark before words that the original puts in front of each message."""

AQUILA2 = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ 'A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human\\'s questions.' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '###Human: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '###Assistant: ' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '###Assistant:' }}{% endif %}"
)
