"""Chat templates rendered by transformers' own `apply_chat_template`: chat/cases.json.

Each case has `name, template, messages, bos, eos, add_generation_prompt` and either `expected` or `error` (a part of
the message that the template raises); `extra` holds further variables, `tools` the tools.
"""

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from chat_templates import BITNET_2B4T, BITNET_WRONG, CHATML, LLAMA3
from common import out_root, write_json

S = lambda text: {"role": "system", "content": text}
U = lambda text: {"role": "user", "content": text}
A = lambda text: {"role": "assistant", "content": text}

TALK = [S("You are a helpful assistant."), U("Hello!"), A("Hi, how can I help?"), U("Tell me a story.")]
SPACES = [S("  be brief \n"), U("\n\n  What's up?  \n"), A("  Not much.\t"), U(" ok ")]
UNICODE = [U("昔々、あるところに 🙂 «naïve»"), A("<b>&amp; \"quoted\" 'single'</b>"), U("a\\b\\n{{ not a variable }} {% raw %}")]

STRICT = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if loop.index0 == 0 and system_message %}
        {%- set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
    {%- else %}
        {%- set content = message['content'] %}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + content.strip() + ' [/INST]' }}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + content.strip() + ' ' + eos_token }}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported, not ' + message['role']) }}
    {%- endif %}
{%- endfor %}
"""

# Without "-" the lines end in newlines, so that trim_blocks and lstrip_blocks show.
BLOCKS = """\
{% for message in messages %}
    {% if message.role == 'user' %}
  User> {{ message.content }}
    {% else %}
  {{ message.role | upper }}> {{ message.content }}
    {% endif %}
{% endfor %}
{# a comment on its own line #}
{% if add_generation_prompt %}
  ASSISTANT>
{% endif %}
end
"""

LOOP = """\
{%- for m in messages -%}
{%- if m.role == 'system' -%}{%- continue -%}{%- endif -%}
{%- if loop.index > 3 -%}{%- break -%}{%- endif -%}
[{{ loop.index }}/{{ loop.length }} {{ loop.index0 }} {{ loop.revindex }}{{ ' first' if loop.first }}{{ ' last' if loop.last }}
{%- if loop.previtem is defined %} after {{ loop.previtem.role }}{% endif -%}
{%- if loop.nextitem is defined %} before {{ loop.nextitem.role }}{% endif -%}
 {{ loop.cycle('odd', 'even') }}] {{ m.content }}
{% endfor -%}
"""

LOOP_IF = """\
{%- for m in messages if m.role == 'assistant' %}{{ loop.index }}/{{ loop.length }} {{ m.content }};{% else %}none{% endfor %}
"""

NAMESPACE = """\
{%- set ns = namespace(found=false, count=0, last='') -%}
{%- for message in messages[::-1] -%}
    {%- if message.role == 'user' and not ns.found -%}
        {%- set ns.found = true -%}
        {%- set ns.last = message.content -%}
    {%- endif -%}
    {%- set ns.count = ns.count + 1 -%}
{%- endfor -%}
{{ ns.count }} messages, last user: {{ ns.last }}, {{ 'found' if ns.found else 'not found' }}
"""

METHODS = """\
{%- for message in messages %}
{%- set c = message.content %}
[{{ c.strip() }}][{{ c.lstrip() }}][{{ c.rstrip() }}][{{ c.strip().split(' ')[0] }}][{{ c.split()[-1] }}]
[{{ c.upper() }}][{{ c.lower() }}][{{ c.title() }}][{{ c.capitalize() }}][{{ c.replace('l', 'L') }}]
[{{ 'He' if c.strip().startswith('He') }}][{{ 'spaces' if c.endswith('  ') else 'none' }}][{{ c.strip('H ') }}][{{ c.count('l') }}][{{ c.find('o') }}]
[{{ message.get('name', 'nobody') }}][{{ message.get('role') }}][{{ message.keys() | list | join('+') }}]
[{% for k, v in message.items() %}{{ k }}={{ v | length }};{% endfor %}][{{ c.split('l', 1)[1] }}]
{%- endfor %}
"""

THINK = """\
{%- for message in messages %}
{%- set content = message.content %}
{%- if message.role == 'assistant' and '</think>' in content %}
{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- if loop.last %}{{ '(' ~ thought ~ ')' }}{% endif %}
{%- endif %}
{{- message.role ~ '|' ~ content ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
"""

FILTERS = """\
{{ messages | length }} {{ messages | map(attribute='role') | join(', ') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ (messages | first).role }} {{ (messages | last).content | trim }}
{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | join(' / ') }}
{{ undefined_variable | default('fallback') }} {{ '' | default('empty', true) }}{{ ' number' if 3 is number }}{{ ' none' if none is none }}
{{ 'iterable ' if messages is iterable }}{{ 'mapping ' if messages[0] is mapping }}{{ 'string ' if messages[0].content is string }}{{ 'missing' if missing is not defined }}
{{ 7 // 2 }} {{ 7 % 4 }} {{ 7 / 2 }} {{ 2 ** 5 }} {{ (-3) | abs }} {{ 'a' ~ 1 ~ 'b' }} {{ 1.5 + 1 }}
{{ [1, 2, 3] | sum }} {{ [3, 1, 2] | sort | join }} {{ (['a', 'b'] + ['c']) | join('-') }}
{{ 'x' if messages | length > 2 else 'y' }} {{ 'in' if 'He' in messages[1].content }} {{ 'and' if not false and (1 < 2) }}
{{ range(1, 6, 2) | join(' ') }} {{ 'a,b'.split(',') | reverse | join(';') }} {{ 'two words' | title }} {{ 'x' | upper }}
{{ 'one\ntwo' | indent(2) }}|{{ '  t ' | trim }}|{{ 'abc' | replace('b', 'X') }}|{{ 'abc'[1:] }}|{{ 'abc'[::-1] }}|{{ messages[-1].role }}
"""

# Values printed as Python writes them; a renderer in another language has to imitate this on purpose.
PYTHON = "{{ true }} {{ none }} {{ ['a', 1, 2.0] }} {{ {'k': 1, 'l': none} }} {{ 1e20 }} {{ messages[0] }}"
PERCENT = "{{ '%s-%02d %.2f' % ('x', 7, 1.5) }} {{ 'ab' * 2 }} {{ '{} {}'.format('x', 1) }}"
ESCAPE = "{{ \"<a href='x'>&\" | e }}"

TOJSON = """\
{%- if tools %}
{%- for tool in tools %}
{{ tool | tojson }}
{{ tool | tojson(indent=2) }}
{%- endfor %}
{%- endif %}
{{ messages[-1].content | tojson }} {{ messages[-1] | tojson }} {{ [1, 2.5, true, none, 'ü'] | tojson }}
"""

MACRO = """\
{%- macro turn(role, text='(nothing)') -%}
<{{ role }}>{{ text }}</{{ role }}>
{%- endmacro -%}
{%- set who = {'user': 'U', 'assistant': 'A', 'system': 'S'} -%}
{%- for message in messages %}{{ turn(who[message['role']], message['content']) }}{{ turn('x') }}{% endfor -%}
{%- set block %}captured {{ messages | length }}{% endset -%}
{{ block | upper }}
"""

PARTS = """\
{%- for message in messages %}
{%- if message.content is string %}
{{- message.role + ': ' + message.content + '\\n' }}
{%- else %}
{{- message.role + ': ' }}
{%- for part in message.content %}
{%- if part['type'] == 'text' %}{{ part.text }}{% elif part.type == 'image' %}<image>{% endif %}
{%- endfor %}
{{- '\\n' }}
{%- endif %}
{%- endfor %}
"""

DATE = """\
{%- if date_string is not defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}
{%- endif %}
{{- 'Today Date: ' + (date_string if fixed is defined else (date_string | length | string)) }} {{ strftime_now('%%') }}
"""

GENERATION = """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- 'A: ' }}{% generation %}{{ message.content + eos_token }}{% endgeneration %}
{%- else %}
{{- 'U: ' + message.content + '\\n' }}
{%- endif %}
{%- endfor %}
"""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a place, e.g. <Köln> & 'Bonn'",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        },
    }
]

L3 = ("<|begin_of_text|>", "<|end_of_text|>")
SP = ("<s>", "</s>")

# name, template, messages, (bos, eos), add_generation_prompt, extra variables, tools
CASES = [
    ("2b4t", BITNET_2B4T, TALK, L3, True, {}, None),
    ("2b4t, no prompt", BITNET_2B4T, TALK[:3], L3, False, {}, None),
    ("2b4t, one turn", BITNET_2B4T, [U("hi")], L3, True, {}, None),
    ("2b4t, spaces", BITNET_2B4T, SPACES, L3, True, {}, None),
    ("2b4t, unicode", BITNET_2B4T, UNICODE, L3, True, {}, None),
    ("wrong 2b4t", BITNET_WRONG, TALK, L3, True, {}, None),
    ("llama3", LLAMA3, TALK, L3, True, {}, None),
    ("llama3, no prompt", LLAMA3, TALK, L3, False, {}, None),
    ("llama3, spaces", LLAMA3, SPACES, L3, True, {}, None),
    ("llama3, unicode", LLAMA3, UNICODE, L3, True, {}, None),
    ("chatml", CHATML, TALK, ("", "<|im_end|>"), True, {}, None),
    ("chatml, spaces kept", CHATML, SPACES, ("", "<|im_end|>"), False, {}, None),
    ("strict", STRICT, TALK, SP, True, {}, None),
    ("strict, no system", STRICT, TALK[1:], SP, False, {}, None),
    ("strict, raises on order", STRICT, [U("a"), U("b")], SP, True, {}, None),
    ("strict, raises on role", STRICT, [U("a"), {"role": "tool", "content": "x"}], SP, True, {}, None),
    ("blocks", BLOCKS, TALK, SP, True, {}, None),
    ("blocks, no prompt", BLOCKS, TALK[:2], SP, False, {}, None),
    ("loop controls", LOOP, TALK + [A("one"), U("two")], SP, False, {}, None),
    ("loop with a condition", LOOP_IF, TALK, SP, False, {}, None),
    ("loop, else", LOOP_IF, TALK[:2], SP, False, {}, None),
    ("namespace", NAMESPACE, TALK, SP, False, {}, None),
    ("string methods", METHODS, [U("  Hello world  "), {"role": "user", "content": "Hi all", "name": "Bo"}], SP, False, {}, None),
    ("thinking, last", THINK, [U("q"), A("<think>\nhm\n</think>\n\nanswer")], SP, False, {}, None),
    ("thinking, off", THINK, [U("q"), A("<think>\nhm\n</think>\n\nanswer"), U("r")], SP, True, {"enable_thinking": False}, None),
    ("thinking, on", THINK, [U("q")], SP, True, {"enable_thinking": True}, None),
    ("filters and tests", FILTERS, TALK, SP, False, {}, None),
    ("printed as Python does", PYTHON, TALK, SP, False, {}, None),
    ("percent and format", PERCENT, TALK, SP, False, {}, None),
    ("html escape", ESCAPE, TALK, SP, False, {}, None),
    ("tojson", TOJSON, UNICODE[:2], SP, False, {}, TOOLS),
    ("tojson, no tools", TOJSON, UNICODE, SP, False, {}, None),
    ("macro and set block", MACRO, TALK, SP, False, {}, None),
    ("content parts", PARTS, [{"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image"}]}, A("ok")], SP, False, {}, None),
    ("date given", DATE, [U("x")], SP, False, {"date_string": "01 Jan 2025", "fixed": True}, None),
    ("date now, its length", DATE, [U("x")], SP, False, {}, None),
    ("generation blocks", GENERATION, TALK[1:], SP, False, {}, None),
    ("empty content", LLAMA3, [U("")], L3, True, {}, None),
    ("template without tags", "just text\n", [U("x")], SP, True, {}, None),
]


def main() -> None:
    cases = []
    for name, template, messages, (bos, eos), prompt, extra, tools in CASES:
        special = {"bos_token": bos} if bos else {}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.BPE()), eos_token=eos, chat_template=template, **special
        )
        case = {"name": name, "template": template, "messages": messages, "bos": bos, "eos": eos,
                "add_generation_prompt": prompt}
        if extra:
            case["extra"] = extra
        if tools:
            case["tools"] = tools
        try:
            case["expected"] = tokenizer.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=prompt, **extra
            )
        except Exception as error:
            case["error"] = str(error)
            print(f"  {name}: raises {error}")
        cases.append(case)
    write_json(out_root() / "chat" / "cases.json", cases)
    print(f"  chat: {len(cases)} cases")


if __name__ == "__main__":
    main()
