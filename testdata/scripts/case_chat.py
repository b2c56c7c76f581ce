"""Chat templates rendered by transformers: the built-in ones, and constructs that real templates use.

Each case holds the template's source, the messages and the options, so a test needs no other file.
"""

import json
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

OUT = Path(__file__).resolve().parent.parent / "chat"

# The template that the tokenizer_config.json of BitNet b1.58 2B4T holds (same output; own wording).
BITNET_2B4T = (
    "{% for message in messages %}"
    "{% set content = message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Constructs of newer templates: white space control, namespaces, loop controls, Python's methods, JSON, generation.
CONSTRUCTS = """\
{%- set ns = namespace(system='', turns=0) -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set ns.system = messages[0]['content'].strip() -%}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{{ bos_token }}{% if ns.system %}[SYS]{{ ns.system }}[/SYS]
{% endif %}
{% if tools is defined and tools is not none %}
Tools: {{ tools | tojson }}
{% for tool in tools %}
    {{- tool.function.name.upper() }}: {{ tool['function'] | tojson(indent=2) }}
{% endfor %}
{% endif %}
{% for message in messages %}
    {% if message.role == 'skip' %}{% continue %}{% endif %}
    {% set ns.turns = ns.turns + 1 %}
    {% if message['role'] == 'user' %}
U{{ loop.index }}: {{ message['content'].split('|')[0] | trim }}
    {% elif message.get('role') == 'assistant' %}
        {%- generation -%}
A: {{ message.content.lstrip().rstrip('!') ~ '!' }}
        {%- endgeneration %}

    {% else %}
        {{- raise_exception('role ' + message.role) }}
    {% endif %}
{% endfor %}
Turns: {{ ns.turns }} {{ ns.turns is odd }} {{ none }} {{ 1.0 }} {{ ['a', 1, true, none] }} {{ {'k': 'v'} }}
{{ "%s-%d" | format("x", 3) }} {{ messages | map(attribute='role') | join(',') }} {{ messages | length > 1 and 'many' or 'one' }}
{% if add_generation_prompt %}A:{% endif %}
"""

CONVERSATION = [
    {"role": "system", "content": "  You are kind. "},
    {"role": "user", "content": "Hi, 日本 <b>&'\"</b> "},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "\nTell me | more\n"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather <now> of a city's day & \"night\": 天気",
            "parameters": {"type": "object", "properties": {"n": {"type": "number", "default": 1.5}}, "required": []},
        },
    }
]


def main() -> None:
    cases = []

    def add(name: str, template: str, messages: list, generation: bool, tools=None, **extra) -> None:
        tokens = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
        case = {"name": name, "template": template, "messages": messages, "add_generation_prompt": generation}
        case |= {"tools": tools, "extra": extra}
        try:
            rendered = render_jinja_template(
                [messages], tools=tools, chat_template=template, add_generation_prompt=generation, **tokens, **extra
            )
            case["expected"] = rendered[0][0]
        except jinja2.exceptions.TemplateError as error:
            case["error"] = str(error)
        cases.append(case)

    for name, template in [("bitnet-2b4t", BITNET_2B4T), ("llama3", LLAMA3), ("chatml", CHATML)]:
        add(name, template, CONVERSATION, True)
        add(name, template, CONVERSATION[:3], False)
        add(name, template, CONVERSATION[1:2], True)
    add("constructs", CONSTRUCTS, CONVERSATION, True)
    add("constructs", CONSTRUCTS, CONVERSATION[1:], False, tools=TOOLS)
    add("constructs", CONSTRUCTS, [{"role": "other", "content": "x"}], False)
    add("constructs", CONSTRUCTS, CONVERSATION[1:2] + [{"role": "skip", "content": ""}], True)
    add("extra", "{{ enable_thinking }} {{ date_string | default('none') }}", CONVERSATION, False, enable_thinking=False)
    add("undefined", "[{{ missing }}]{% if missing %}x{% endif %}", CONVERSATION, False)
    add("undefined attribute", "{{ missing.x }}", CONVERSATION, False)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "cases.json").write_text(json.dumps({"cases": cases}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"  chat: {len(cases)} cases")


if __name__ == "__main__":
    main()
