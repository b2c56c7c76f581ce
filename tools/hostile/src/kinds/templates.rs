//! Chat templates: depth of the source, long strings and lists, values that contain themselves, loops.

use super::{Variant, either, grows, nested, refused};

const DEEP: usize = 1 << 15;

/// A statement `n` times, then something to print.
fn repeated(before: &str, statement: &str, n: usize, after: &str) -> String {
    format!("{before}{}{after}", statement.repeat(n))
}

pub(super) const VARIANTS: &[Variant] = &[
    grows("minus", DEEP, |n| format!("{{{{ {}1 }}}}", "-".repeat(n))),
    grows("not", DEEP, |n| format!("{{{{ {}true }}}}", "not ".repeat(n))),
    grows("plus", DEEP, |n| format!("{{{{ 1{} }}}}", "+1".repeat(n))),
    grows("tilde", DEEP, |n| format!("{{{{ 'a'{} }}}}", "~'a'".repeat(n))),
    grows("and", DEEP, |n| format!("{{{{ true{} }}}}", " and true".repeat(n))),
    grows("compare", DEEP, |n| format!("{{{{ 1{} }}}}", " == 1".repeat(n))),
    grows("power", DEEP, |n| format!("{{{{ 1{} }}}}", "**1".repeat(n))),
    grows("filters", DEEP, |n| format!("{{{{ 'a'{} }}}}", "|trim".repeat(n))),
    grows("attributes", DEEP, |n| format!("{{{{ messages is defined or x{} }}}}", ".a".repeat(n))),
    grows("items", DEEP, |n| format!("{{{{ messages is defined or x{} }}}}", "[0]".repeat(n))),
    grows("calls", DEEP, |n| format!("{{{{ messages is defined or x{} }}}}", "()".repeat(n))),
    grows("parentheses", DEEP, |n| format!("{{{{ {} }}}}", nested(n, "(", "1", ")"))),
    grows("lists", DEEP, |n| format!("{{{{ {} is defined }}}}", nested(n, "[", "1", "]"))),
    grows("maps", DEEP, |n| format!("{{{{ {} is defined }}}}", nested(n, "{'a': ", "1", "}"))),
    grows("printed-lists", DEEP, |n| format!("{{{{ {} }}}}", nested(n, "[", "1", "]"))),
    grows("conditions", DEEP, |n| nested(n, "{% if true %}", "x", "{% endif %}")),
    grows("elif", DEEP, |n| format!("{{% if false %}}{}{{% endif %}}", "{% elif false %}a".repeat(n))),
    grows("if-else", DEEP, |n| format!("{{{{ {}0 }}}}", "1 if 0 else ".repeat(n))),
    grows("loops", DEEP, |n| nested(n, "{% for a in [1] %}", "x", "{% endfor %}")),
    grows("macros", DEEP, |n| nested(n, "{% macro m() %}", "x", "{% endmacro %}")),
    grows("set-blocks", DEEP, |n| nested(n, "{% set a %}", "x", "{% endset %}")),
    grows("filter-blocks", DEEP, |n| nested(n, "{% filter upper %}", "x", "{% endfilter %}")),
    grows("generation-blocks", DEEP, |n| nested(n, "{% generation %}", "x", "{% endgeneration %}")),
    grows("is-chain", DEEP, |n| format!("{{{{ 1{} }}}}", " is defined".repeat(n))),
    grows("in-chain", DEEP, |n| format!("{{{{ 1{} }}}}", " in [1]".repeat(n))),
    grows("slices", DEEP, |n| format!("{{{{ 'abc'{} }}}}", "[0:]".repeat(n))),
    grows("long-text", 1 << 24, |n| "x".repeat(n)),
    grows("many-blocks", 1 << 17, |n| "{{ 1 }}".repeat(n)),
    grows("doubling-by-tilde", 64, |n| repeated("{% set a = 'ab' %}", "{% set a = a ~ a %}", n, "{{ a|length }}")),
    grows("doubling-by-plus", 64, |n| repeated("{% set a = 'ab' %}", "{% set a = a + a %}", n, "{{ a|length }}")),
    grows("doubling-lists", 64, |n| repeated("{% set a = [1, 2] %}", "{% set a = a + a %}", n, "{{ a|length }}")),
    grows("doubling-in-a-loop", 1 << 12, |n| {
        format!(
            "{{% set ns = namespace(a='ab') %}}{{% for i in range({n}) %}}{{% set ns.a = ns.a ~ ns.a %}}{{% endfor %}}{{{{ ns.a|length }}}}"
        )
    }),
    grows("doubling-by-format", 64, |n| {
        repeated("{% set a = 'ab' %}", "{% set a = '%s%s'|format(a, a) %}", n, "{{ a|length }}")
    }),
    grows("doubling-by-join", 64, |n| repeated("{% set a = 'ab' %}", "{% set a = [a, a]|join %}", n, "{{ a|length }}")),
    grows("doubling-by-replace", 64, |n| {
        repeated("{% set a = 'ab' %}", "{% set a = a|replace('a', 'aa')|replace('b', 'bb') %}", n, "{{ a|length }}")
    }),
    grows("doubling-by-method", 64, |n| {
        repeated("{% set a = 'ab' %}", "{% set a = a.replace('a', 'aa').replace('b', 'bb') %}", n, "{{ a|length }}")
    }),
    grows("doubling-lists-of-lists", 64, |n| {
        repeated("{% set a = [1] %}", "{% set a = [a, a] %}", n, "{{ a|string|length }}")
    }),
    grows("doubling-json", 64, |n| repeated("{% set a = [1] %}", "{% set a = [a, a] %}", n, "{{ a|tojson|length }}")),
    grows("doubling-maps", 64, |n| {
        repeated("{% set a = 1 %}", "{% set a = {'x': a, 'y': a} %}", n, "{{ a|tojson|length }}")
    }),
    grows("doubling-compared", 64, |n| {
        repeated("{% set a = [1] %}{% set b = [1] %}", "{% set a = [a, a] %}{% set b = [b, b] %}", n, "{{ a == b }}")
    }),
    grows("deep-value-printed", DEEP, |n| {
        format!(
            "{{% set ns = namespace(a=[]) %}}{{% for i in range({n}) %}}{{% set ns.a = [ns.a] %}}{{% endfor %}}{{{{ ns.a }}}}"
        )
    }),
    grows("deep-value-json", DEEP, |n| {
        format!(
            "{{% set ns = namespace(a=[]) %}}{{% for i in range({n}) %}}{{% set ns.a = [ns.a] %}}{{% endfor %}}{{{{ ns.a|tojson }}}}"
        )
    }),
    grows("deep-value-compared", DEEP, |n| {
        format!(
            "{{% set ns = namespace(a=[], b=[]) %}}{{% for i in range({n}) %}}{{% set ns.a = [ns.a] %}}{{% set ns.b = [ns.b] %}}{{% endfor %}}{{{{ ns.a == ns.b }}}}"
        )
    }),
    grows("deep-value-dropped", DEEP, |n| {
        format!("{{% set ns = namespace(a=[]) %}}{{% for i in range({n}) %}}{{% set ns.a = [ns.a] %}}{{% endfor %}}x")
    }),
    either("times", 1 << 30, |n| format!("{{{{ ('abc' * {n})|length }}}}")),
    either("times-list", 1 << 30, |n| format!("{{{{ ([1, 2] * {n})|length }}}}")),
    either("indent", 1 << 30, |n| format!("{{{{ ('a\n' * 1000)|indent({n})|length }}}}")),
    either("indent-json", 1 << 30, |n| format!("{{{{ messages|tojson(indent={n})|length }}}}")),
    either("center", 1 << 30, |n| format!("{{{{ 'a'.center({n})|length }}}}{{{{ 'a'|center({n})|length }}}}")),
    either("ljust", 1 << 30, |n| format!("{{{{ 'a'.ljust({n})|length }}}}")),
    either("zfill", 1 << 30, |n| format!("{{{{ 'a'.zfill({n})|length }}}}")),
    either("expandtabs", 1 << 30, |n| format!("{{{{ '\\t\\t\\t'.expandtabs({n})|length }}}}")),
    either("format-width", 1 << 30, |n| format!("{{{{ ('%{n}s'|format('a'))|length }}}}{{{{ '%{n}d' % 1 }}}}")),
    either("format-method", 1 << 30, |n| format!("{{{{ '{{:{n}}}'.format('a')|length }}}}")),
    either("batch", 1 << 30, |n| format!("{{{{ [1]|batch({n}, 'x')|list|length }}}}")),
    either("slice", 1 << 30, |n| format!("{{{{ [1]|slice({n}, 'x')|list|length }}}}")),
    either("range", 1 << 30, |n| format!("{{{{ range({n})|list|length }}}}")),
    either("range-loop", 1 << 30, |n| format!("{{% for i in range({n}) %}}{{% endfor %}}x")),
    either("range-squared", 1 << 15, |n| {
        format!("{{% for i in range({n}) %}}{{% for j in range({n}) %}}x{{% endfor %}}{{% endfor %}}")
    }),
    either("power-of-numbers", 1 << 30, |n| format!("{{{{ 10 ** {n} }}}}")),
    either("join-long", 1 << 20, |n| format!("{{{{ range({n})|join('{}')|length }}}}", "x".repeat(1000))),
    either("replace-empty", 1 << 20, |n| format!("{{{{ ('a' * {n}).replace('', 'xxxxxxxxxx' * 1000)|length }}}}")),
    either("wordwrap", 1 << 20, |n| format!("{{{{ ('a ' * {n})|wordwrap(1, true, '{}')|length }}}}", "y".repeat(1000))),
    either("strftime", 1 << 18, |n| format!("{{{{ strftime_now('{}')|length }}}}", "%c".repeat(n))),
    either("sum-of-lists", 1 << 14, |n| format!("{{{{ range({n})|map('string')|list|sum(start='')|length }}}}")),
    either("sort", 1 << 20, |n| format!("{{{{ range({n})|sort(reverse=true)|list|length }}}}")),
    either("groupby", 1 << 16, |n| format!("{{{{ range({n})|groupby('x')|list|length }}}}")),
    either("unique", 1 << 20, |n| format!("{{{{ range({n})|unique|list|length }}}}")),
    either("split", 1 << 22, |n| format!("{{{{ ('a,' * {n}).split(',')|length }}}}")),
    either("recursive-macro", 1, |_| "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned()),
    either("recursive-macro-twice", 1, |_| "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}".to_owned()),
    either("recursive-loop", 1, |_| "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}".to_owned()),
    either("cycle-printed", 1, |_| "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".to_owned()),
    either("cycle-json", 1, |_| "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns|tojson }}".to_owned()),
    either("cycle-in-list", 1, |_| {
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ [ns]|tojson }}{{ [ns] }}".to_owned()
    }),
    either("cycle-of-two", 1, |_| {
        "{% set a = namespace() %}{% set b = namespace() %}{% set a.b = {'b': b} %}{% set b.a = {'a': a} %}{{ a }}{{ a == b }}".to_owned()
    }),
    either("cycle-compared", 1, |_| {
        "{% set a = namespace() %}{% set a.x = a %}{% set b = namespace() %}{% set b.x = b %}{{ a == b }}{{ a in [b] }}{{ [a, b]|sort }}{{ [a, b]|unique|list }}".to_owned()
    }),
    either("cycle-by-string", 1, |_| {
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns|string|length }}{{ ns ~ '' }}{{ '%s' % ns }}".to_owned()
    }),
    refused("include-itself", |_| "{% include 'x' %}".to_owned()),
    refused("unclosed", |_| "{% if x %}".to_owned()),
];
