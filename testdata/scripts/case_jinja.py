"""Expressions and statements rendered by Python's jinja2 as transformers sets it up: chat/jinja.json.

Each case has `template` and either `want` or `error: true`; all are rendered with the same `vars`. Needs jinja2 alone:
the environment is the one that transformers builds in `utils/chat_template_utils.py`.
"""

import datetime
import json

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARS = {
    "tools": None,
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Köln 😀\n<b>"}],
    "t": "Hello brave new World",
    "d": {"b": 1, "a": [1, 2.5, None, True], "c": {"x": "é\"\\\n"}},
    "l": [3, 1, 2],
    "users": [{"name": "Bo", "age": 3, "tags": ["x"]}, {"name": "al", "age": 5}, {"name": "Cy", "age": 3, "on": True}],
    "f": 1e16,
    "z": 0,
    "empty": "",
}
NOW = datetime.datetime(2016, 12, 31, 23, 59, 59)


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return env


# One expression a line; each is written between {{ and }}.
EXPRESSIONS = r"""
none is iterable
tools is iterable and tools | length > 0
nope is iterable
'abc' is sequence
{'a': 1} is sequence
nope is sequence
none is sequence
nope is mapping
d is mapping
l is mapping
range(3) is sequence
d.items() is sequence
d.items() is iterable
1 is iterable
nope|length
nope|count
none|length
nope|first
nope|last
none|first
none|last
nope|list
none|list
nope|items|list
none|items|list
d|items|list
nope|join(',')
none|join(',')
nope|sort
nope|unique|list
nope|sum
none|map('upper')|list
nope|selectattr('x')|list
nope|upper
none|upper
nope|int
none|int
nope|float
none|float(2.5)
nope|default('x')
none|default('x')
none|default('x', true)
''|default('e', boolean=true)
0|d(7, true)
nope == nope2
nope ~ 'a'
nope + 'a'
nope.x
nope['x']
nope()
-nope
nope < 1
1 in nope
1 in none
not nope
nope|tojson
none|tojson
nope is defined
none is defined
messages[5] is defined
messages[0].x is defined
messages[0].x.y is defined
d.get('zz') is none
d['zz']
d.zz|length
{'b': 1, 'a': [1, 2]}|tojson
{'b': 1, 'a': [1, 2]}|tojson(separators=(',', ':'))
{'b': 1, 'a': [1, 2]}|tojson(sort_keys=true)
d|tojson(indent=2)
d|tojson(false, 4)
d|tojson(indent=1, separators=(',', ':'))
d|tojson(indent='--')
[]|tojson(indent=2)
{}|tojson(indent=2)
'Köln 😀'|tojson(ensure_ascii=true)
'Köln 😀 </b>&\'"'|tojson
'a\tb\x00\x7f'|tojson
'\x7f'|tojson(ensure_ascii=true)
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
(1, 2)|tojson
1e16|tojson
1.0|tojson
d|tojson(nonsense=1)
range(3)|tojson
namespace(a=1)|tojson
'x'|int
'42'|int
' 4_2 '|int
'0x1A'|int(0, 16)
'0x1A'|int(base=0)
'12.9'|int
'1e3'|int
3.99|int
-3.99|int
true|int
'zz'|int(-1)
'ff'|int(base=16)
'x'|float
' 1e-3 '|float
'inf'|float
'%s and %s' % (1, 'x')
'%s' % none
'%5.2f|%-5d|%05d|%+d' % (3.14159, 42, 42, 7)
'%x %X %o %e %g' % (255, 255, 8, 12345.678, 0.00001)
'%r %a' % ('é', 'é')
'%(a)s %(b)d' % {'a': 1, 'b': 2}
'100%%' % ()
'%s' % ('a', 'b')
'%d' % 'x'
'%*d|%.*f' % (5, 42, 2, 3.14159)
'%c%c' % (65, 'b')
'%s-%s'|format('a', 'b')
'%(x)s'|format(x=3)
'a\nb'|indent('> ')
'a\n\nb'|indent(2)
'a\n\nb'|indent(2, true, true)
'a\nb\n'|indent(first=true)
'aaaa'|replace('a', 'b', 2)
'aaaa'|replace('a', 'bb')
'abc'|replace('', '-')
1234|replace(2, 'x')
'k=v=w'.partition('=')
'k=v=w'.rpartition('=')
'abc'.partition('-')
'Straße ΣΑΣ'.casefold()
'ΣΑΣ'.lower()
'-42'.zfill(6)
'+7'.zfill(4)
'prefix-x'.removeprefix('prefix-')
'x.txt'.removesuffix('.txt')
' a b '.split()
' a b c '.split(none, 1)
'a,b,,c'.split(',')
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
' a b c '.rsplit(maxsplit=1)
'a\nb\r\nc\x0bd'.splitlines()
'a\nb\n'.splitlines(true)
'abcabc'.find('c')
'abcabc'.rfind('c')
'abcabc'.find('z')
'abcabc'.index('z')
'abcabc'.count('bc')
'abc'.count('')
'abc'.startswith(('x', 'ab'))
'abc'.endswith('bc', 1)
'héllo'.find('l', 3)
'they\'re here'.title()
'they\'re here'|title
'hello WORLD'.capitalize()
'Hello'.swapcase()
'abc'.center(8, '*')
'abc'.center(6)
'ab'.ljust(5, '.')
'ab'.rjust(5, '.')
'a\tb'.expandtabs(4)
'xxabcxx'.strip('x')
'xxabcxx'.lstrip('x') ~ 'xxabc '.rstrip()
'abc'.isalpha() ~ 'a1'.isalnum() ~ '12'.isdigit() ~ '²'.isdigit() ~ '½'.isnumeric() ~ '²'.isdecimal()
'abc'.islower() ~ 'ABC'.isupper() ~ 'Ab Cd'.istitle() ~ ' \t'.isspace() ~ 'a b'.isidentifier()
'-'.join(['a', 'b'])
'-'.join([1])
'{} {1}'.format(1, 2)
'{} {}'.format(1, 2)
'{0}{a}{b[x]}'.format(1, a=2, b={'x': 3})
'{:>6}|{:<6}|{:^6}|{:06.2f}'.format('a', 'b', 'c', 3.14159)
'{:,} {:_} {:x} {:#b} {:+}'.format(1234567, 1234567, 255, 5, 3)
'{!r:>5}'.format('a')
'{:.3}'.format('abcdef')
'{:.2%} {:e} {:g}'.format(0.5, 12345.678, 1e20)
'{:{}}'.format('a', 4) ~ '|'
t|wordcount
'foo-bar, baz_1'|wordcount
t|truncate(9)
t|truncate(9, true)
t|truncate(9, end='')
t|truncate(12, leeway=0)
t|truncate(1)
t|wordwrap(10)
'averyverylongword and-hyphenated-words here'|wordwrap(8)
'averyverylongword short'|wordwrap(8, false)
'a b c d'|wordwrap(3, wrapstring='|')
'one  two   three'|wordwrap(7)
1e16
1e15
1.5e300
1e-5
0.0001
100000000000000000000.0
123456789.123456789
0.1 + 0.2
f
-0.0
1.0
1e22|int
3 / 2
4 / 2
7 // 2
-7 // 2
-7 % 3
7.5 // 2
-7.5 % 2
2 ** 10
2 ** -1
-2 ** 2
2 ** 3 ** 2
1 / 0
1 % 0
'a' * 3
3 * 'ab'
[1] * 2
'a' * -1
'a' + 1
[1] + [2]
(1,) + (2,)
[1] + (2,)
true + 1
[1, 'a', none, true, 1.5, {'k': (1,)}]
{'a': none, 1: 'x'}
(1,)
()
'it\'s'
['it\'s', 'say "x"', 'both \' "', '\n\t\\', 'é😀', '\x00\x7f\xa0\u200b']
d
d.keys()
d.values()|list
d.items()|list
range(3)
range(1, 10, 3)
range(5)[1:3]
range(10, 0, -3)|list
range(100001)|length
l[1:]
l[::-1]
l[-1]
l[10:]
'héllo'[1]
'héllo'[::-1]
'héllo'[1:3]
'hello'[-3:]
l[none:2]
l['x']
l.0
messages[0]['content']
messages[-1].role
l|sort
l|sort(reverse=true)
['b', 'A', 'c']|sort
['b', 'A', 'c']|sort(case_sensitive=true)
users|sort(attribute='age,name')|map(attribute='name')|join(',')
[1, 'a']|sort
d|dictsort
{'b': 1, 'A': 3}|dictsort(by='value', reverse=true)
l|first
l|last
l|min
l|max
['b', 'A']|min
[]|max
[1, 2, 2, 3, 1]|unique|list
['a', 'A', 'b']|unique|list
users|groupby('age')
users|map(attribute='name')|list
users|map(attribute='on', default='?')|list
users|selectattr('on', 'defined')|map(attribute='name')|list
users|rejectattr('age', 'eq', 3)|list
l|select('odd')|list
l|reject('gt', 1)|list
l|map('string')|join('+')
['a', 'b']|map('replace', 'a', 'x')|list
l|sum
users|sum(attribute='age')
[1, 2, 3, 4, 5]|batch(2)|list
[1, 2, 3, 4, 5]|batch(2, 'x')|list
[1, 2, 3, 4, 5]|slice(2)|list
[1, 2, 3, 4, 5]|slice(3, 'x')|list
'abc'|list
'abc'|reverse
l|reverse|list
'abc'|first ~ 'abc'|last
2.675|round(2)
2.5|round
42.55|round(1, 'floor')
42|round
42.1|round(0, 'ceil')
1234|round(-2)
-3|abs
1000000|filesizeformat
1|filesizeformat
1500000|filesizeformat(true)
'<a href="x">\'&'|e
'<b>x</b>  &amp; y'|striptags
' x '|trim
'xxaxx'|trim('x')
'a'|center(5) ~ '|'
'a b/c&d'|urlencode
{'a': 'x y', 'b': 1}|urlencode
{'class': 'a b', 'id': none, 'n': 1}|xmlattr
d|attr('items') is callable
'abc'|upper|lower|capitalize
1 if false
1 if false else 2 if false else 3
'a' if l else 'b'
1 < 2 < 3
1 == 1.0 == true
[1, 2] == [1, 2.0]
[1] == (1,)
{'a': 1} == {'a': 1.0}
'a' < 'b'
[1, 2] < [1, 3]
none < 1
1 is number and true is number and 1.5 is float and 1 is integer
true is integer
true is boolean
'A' is upper
'a' is lower
4 is divisibleby 2
3 is odd
3 is even
2 is in [1, 2]
'x' is string
1 is sameas 1.0
none is none
range is callable
'a' is callable
1 is eq 1
1 is ne(2)
'upper' is filter
'nope' is filter
'odd' is test
1 is nonsense
1|nonsense
not true and false or true
1 and 'x'
'' or 'y'
dict(a=1, b=2)
dict([('a', 1)], b=2)
d.get('b') ~ d.get('q', 5)
l.index(2)
l.count(3)
l.append(4)
d.update({})
d.pop('a')
'abc'.__class__
('a', 'b').index('b')
'\u00e9\x41\101\'\"\\'
'a' 'b' "c"
0x1f + 0b101 + 0o17 + 1_000
1_0.5e-1
strftime_now('%Y-%m-%d %H:%M:%S %A %a %B %b %j %p %I %y %f')
strftime_now('%G-W%V-%u %U %W %w %C %g %e %k %l %P %s')
strftime_now('%c|%x|%X|%D|%F|%R|%T|%r|%n|%t|%%|%h')
strftime_now('%-d %-m %_d %^a %#p %-I|%z|%Z|%Q|%')
raise_exception('no')
5 .real
'{1} {}'.format(1, 2)
'{0} {0}'.format('x')
'{}'.format()
'{a.b}'.format(a={'b': 1})
'{:08.3f}|{:+d}|{:<08d}'.format(3.14159, 5, 7)
'{:,.2f}'.format(1234567.891)
'{:>{w}.{p}f}'.format(3.14159, w=8, p=2)
'%-10s|%10s|%.2s' % ('ab', 'cd', 'efg')
'%i%%' % 50
'%5s' % true
'%(a)5.1f' % {'a': 2.25}
'%s' % [1, 2]
'abc' % ()
'abc' % 1
'a,b;c'.replace(',', ';').split(';')
'MiXeD'.lower().upper()
'ǆ ŉ ﬁ İ'.title() ~ 'ǆ'.upper() ~ 'İ'.lower() ~ 'ﬁ'.casefold()
'a\u2028b'.splitlines()
'x' in 'xyz' and 'q' not in 'xyz'
'' in 'abc'
[] in [[]]
1 in {1: 2} and 1.0 in {1: 2} and true in {1: 2}
'b' in d.values()|list
{'a': 1}.items()|list
{}.get('x', 'y')
{1: 'a', 1.0: 'b', true: 'c'}
{'a': 1, 'a': 2}
d.keys()|list|tojson
d.items()|first
messages|map(attribute='content')|map('length')|list
messages|map(attribute='role')|join(', ')|upper
users|map(attribute='tags')|list
users|map(attribute='tags.0')|list
users|selectattr('age', '>', 3)|map(attribute='name')|list
users|groupby('age')|map('first')|list
users|groupby('age')|map(attribute='list')|map('length')|list
users|groupby('name', case_sensitive=true)|map(attribute='grouper')|list
users|sort(attribute='name')|map(attribute='name')|list
users|max(attribute='age')
users|unique(attribute='age')|map(attribute='name')|list
[3, none]|sort
[[2, 'b'], [1, 'a']]|sort
[0.1, 0.2, 0.3]|sum
['a', 'b']|sum(start='')
[[1], [2]]|sum(start=[])
range(3)|reverse|list
'abc'|batch(2)|map('join')|list
l|batch(2, 0)|first
0.1 * 3
1e100
-1e-7
1.0e10
123456789012345680.0
5e-324
1.7976931348623157e308
2.0 ** 0.5
10 // 0.3
-1 // 2
5 % -3
-5 % 3
5.5 % -2
1 - 1.0
true == 1 and false == 0
none == false
'1' == 1
(1, 2) == (1, 2)
(1, 2) < (1, 3)
'Z' < 'a'
'é' > 'z'
1 < 'a'
2.5|int
'-7'|int
''|int
' '|int(5)
'1_000'|int
'0b101'|int(base=2)
'0o17'|int(base=8)
'1.5e2'|float
'nan'|float
'abc'|float(1)
1.25|round(1)
-2.5|round
1.005|round(2)
12345.6789|round(-2)
3|round(1)
'a b c'|title
'hello-world (foo) [bar] {x}'|title
'x'|center(4) ~ '|'
'a\n  b\n'|indent(4, first=true) ~ '|'
'a\n\n b'|indent('--', false, true)
''|indent
'long text here'|truncate(5, false, '…', 0)
'abc'|truncate(3, true, '', 0)
('word ' * 30)|truncate(20)
('word ' * 5)|wordwrap(12)
'a-b-c-d-e-f'|wordwrap(4)
'foo--bar baz'|wordwrap(5)
'para one\n\npara two is long'|wordwrap(8)
'x' * 20|length
'it\'s 3 o\'clock'|wordcount
[1, [2, [3]]]|tojson
{'a': {}, 'b': []}|tojson(indent=2)
{'a': [1, {'b': 2}]}|tojson(indent=2, sort_keys=true)
[1.0, 1e20, 1e-7, -0.0]|tojson
'\u2028/'|tojson
true|tojson ~ none|tojson
{'z': 1, 'a': {'y': 1, 'b': 2}}|tojson(sort_keys=true, separators=(', ', ' = '))
d|tojson(true)
d|tojson(ensure_ascii=true, indent=none)
nope|tojson(indent=2)
[nope]|tojson
{'a': nope}|tojson
messages|tojson
nope is none
nope is string
nope|string
nope|replace('a', 'b')
nope|trim
nope|wordcount
nope|reverse|list
nope|dictsort
nope|batch(2)|list
nope|round
nope|abs
nope|title ~ nope|capitalize
nope|indent
nope|truncate
none|string
none|title
none|trim
none|replace('N', 'n')
none|sort
none|sum
none|batch(2)|list
none|dictsort
none|round
none|length is defined
none + 1
none ~ 1
none[0] is defined
none.x is defined
none.x.y
nope[0]
nope[:2]
none[:2] is defined
l[5] is defined
'abc'[5] is defined
l['a'] is defined
d[[]] is defined
d[none] is defined
l[1.0] is defined
range(5)[-1]
range(5, 2)|list
range()
range('a')
range(1, 2, 0)
[1, 2, 3][::2]
[1, 2, 3][-2:]
[1, 2, 3][5:1]
[1, 2, 3][::0]
'abcdef'[1:-1:2]
'abc'.upper.lower is defined
'a'.nope is defined
'a'.nope()
'a'.join(['x', 'y'], 1)
'a'.split(sep=',')
'a'.split('')
'a'.replace('a')
'a'.startswith(1)
'x'.strip(1)
dict(a=1)['a'] ~ dict({'b': 2}, c=3)
dict(1)
namespace(a=1).a
namespace(a=1).b is defined
cycler()
joiner('a', 'b')
[1, 2].index(5)
(1, 2, 1).count(1)
d.get()
d.items(1)
1 is divisibleby 0
4 is divisibleby(2) and 5 is not divisibleby 2
'a' is in 'abc'
1 is in(l)
1 is lt 2 and 2 is gt 1 and 1 is le 1 and 1 is ge 1
{} is mapping and [] is iterable and () is sequence
1.5 is integer or true is integer
none is boolean
'' is undefined
d is callable
d.items is callable
'Ab' is lower or 'Ab' is upper
'1' is number
[] is none
1 if 1 else 2 is none
not none is none
not 1 == 2
1 + 1 == 2 and not 2 == 3
2 * 3 + 4 // 2 - 1
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1]
'a' ~ 1 + 2
1 ~ 2 * 3
-1 ** 2
- 3|abs
(1, 2, 3)|join
(1)
(1, 2,)
[1, 2,]
{'a': 1,}
(5).bit_length()
1.0.is_integer()
""".strip().split("\n")

# Whole templates, some of several lines.
TEMPLATES = [
    "{% if true %}\r\na\r\n{% endif %}\r\n{{ 'x\r\ny' }}",
    "a\r\nb\rc\n",
    "{% for m in messages %}\r\n<|{{ m.role }}|>\r\n{{ m.content }}\r\n{% endfor %}\r\n",
    "x\n\n",
    "  {% if true %}  \n  a\n  {% endif %}\nb",
    "  {%- if true -%}  \n  a\n  {%- endif +%}\nb",
    "  {%+ if true %}x{% endif %}",
    "a {#- c -#} b {# d #}\n c",
    "{# x #}\ny",
    "{% raw %}{% generation %}{{ x }}{% endraw %}",
    "a {%- raw -%}  {{ x }} \n {%- endraw -%} b",
    "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}[{{ x }}]",
    "{% set x = 0 %}{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}[{{ x }}]",
    "{% set x = 0 %}{% for i in l %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% set ns = namespace(n=0) %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }} {{ ns }}",
    "{% if true %}{% set y = 5 %}{% endif %}{{ y }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% set c = 3 %}{% endwith %}[{{ a }}{{ c }}]",
    "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x|upper }}",
    "{% set x | upper | replace('B', 'c') %}ab{% endset %}{{ x }}",
    "{% set a, b = 1, [2] %}{{ a }}{{ b }}",
    "{% set a, b = 1 %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}",
    "{% for i in nope %}x{% else %}none{% endfor %}",
    "{% for i in none %}x{% endfor %}",
    "{% for i in l if i > 1 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %}",
    "{% for i in l %}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.depth }} {% endfor %}",
    "{% for i in [1, 1, 2] %}{{ loop.changed(i) }} {% endfor %}",
    "{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in l %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% else %}e{% endfor %}",
    "{% for i in l %}{% for j in l %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
    "{% for x in [[1, [2]], 3] recursive %}{{ loop.depth }}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
    "{% for i in l %}{{ loop }}{% endfor %}",
    "{{ loop }}",
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=5) }} {{ m(1, 3, 4) }} {{ m() }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{% endcall %}",
    "{% macro m() %}[{{ caller(1) }}]{% endmacro %}{% call(a) m() %}x{{ a }}{% endcall %}",
    "{% macro m() %}[x]{% endmacro %}{% call m() %}x{% endcall %}",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}",
    "{% macro m() %}{% endmacro %}{{ m }} {{ m.name }}",
    "{% filter upper %}a{{ 'b' }}{% endfilter %}",
    "{% block b %}x{{ l }}{% endblock %}",
    "{% for i in l %}{% block b scoped %}{{ i }}{% endblock %}{% endfor %}",
    "{% for i in l %}{% block b %}[{{ i }}]{% endblock %}{% endfor %}",
    "{% autoescape false %}<{{ '<' }}{% endautoescape %}",
    "{% print 1, 'a' %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set _ = c.reset() %}{{ c.current }}",
    "{% set j = joiner('|') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}",
    "{% set j = joiner() %}{{ j() }}{{ j() }}",
    "{% set g = l|map('string') %}{{ g|list }}{{ g|list }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns['b'] }}{{ ns.c }}",
    "{% set d.x = 1 %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{% trans %}x{% endtrans %}",
    "{% if %}",
    "{% if true %}",
    "{{ 'a }}",
    "{{ (1 }}",
    "{{ 1 2 }}",
    "{% endif %}",
    "{% break %}",
    "{{ }}",
    "{% set none = 1 %}",
    "{{- 'a' -}} \n b",
    "a\n{{- 'b' }}\n\nc",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ {'a': 1}}}",
    "{%if 1%}a{%elif 2%}b{%else%}c{%endif%}",
    "{% if messages[0].tool_calls %}x{% endif %}{{ messages[0].tool_calls|length }}",
    "{% for u in users %}{% if not loop.first %}, {% endif %}{{ u.name }}{% if u.tags is defined and u.tags is not none %}!{% endif %}{% endfor %}",
    "{% set x = [] %}{% for i in l %}{% set x = x + [i] %}{% endfor %}{{ x }}",
    "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
    "{% set s = messages[-1].content.split('\\n') %}{{ s[0].strip() }}|{{ s[-1] }}",
    "{{ 'x' if messages[0].content is string else messages[0].content|map(attribute='text')|join }}",
]


def cases():
    env = environment()
    out = []
    for template in ["{{ " + e + " }}" for e in EXPRESSIONS] + TEMPLATES:
        case = {"template": template}
        try:
            case["want"] = env.from_string(template).render(**VARS)
        except Exception:
            case["error"] = True
        out.append(case)
    return out


def main():
    from common import out_root, write_json

    found = cases()
    write_json(out_root() / "chat" / "jinja.json", {"vars": VARS, "now": 1483228799, "cases": found})
    print(f"  jinja: {len(found)} cases")


if __name__ == "__main__":
    main()
