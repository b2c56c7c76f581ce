//! Templates that come with a download must not run forever, block or fill the process: on a thread of 256 KB, anything
//! they nest, chain or build ends in a text or in an error that names the limit.

use std::time::{Duration, Instant};

use loader::chat::{ChatError, ChatTemplate, Message, RenderOptions, SpecialTokens};

/// Generous, since tests run on busy machines and are not optimised; a template that is not bounded never ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs something on a thread with a small stack.
fn on_small_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    thread.spawn(run).expect("thread").join().expect("no panic, no overflow")
}

fn render(source: &str) -> Result<String, ChatError> {
    let messages = [Message::system("Be kind."), Message::user("Hi"), Message::assistant("Yes?"), Message::user("Go")];
    let source = source.to_owned();
    on_small_stack(move || {
        let template = ChatTemplate::from_source(&source)?;
        template.clone().render(&messages, &SpecialTokens::default(), &RenderOptions::default())
    })
}

/// Whether an error reports an exceeded limit.
fn is_limit(error: &ChatError) -> bool {
    matches!(error, ChatError::OutOfFuel { .. } | ChatError::TooLarge { .. } | ChatError::TooDeep { .. })
}

fn repeated(before: &str, unit: &str, middle: &str, end: &str, after: &str) -> impl Fn(usize) -> String {
    let (before, unit, middle) = (before.to_owned(), unit.to_owned(), middle.to_owned());
    let (end, after) = (end.to_owned(), after.to_owned());
    move |count| format!("{before}{}{middle}{}{after}", unit.repeat(count), end.repeat(count))
}

#[test]
fn every_kind_of_depth_is_refused_beyond_its_limit() {
    type Kind = (&'static str, Box<dyn Fn(usize) -> String>);
    let kind = |name, make: Box<dyn Fn(usize) -> String>| -> Kind { (name, make) };
    let kinds: Vec<Kind> = vec![
        kind("parentheses", Box::new(repeated("{{ ", "(", "1", ")", " }}"))),
        kind("lists", Box::new(repeated("{{ ", "[", "1", "]", " }}"))),
        kind("dictionaries", Box::new(repeated("{{ ", "{1:", "1", "}", " }}"))),
        kind("calls", Box::new(repeated("{{ ", "dict(a=", "1", ")", " }}"))),
        kind("subscripts", Box::new(repeated("{{ ", "x[", "1", "]", " is defined }}"))),
        kind("minus", Box::new(repeated("{{ ", "-", "1", "", " }}"))),
        kind("plus and minus", Box::new(repeated("{{ ", "- +", "1", "", " }}"))),
        kind("not", Box::new(repeated("{{ ", "not ", "1", "", " }}"))),
        kind("sums", Box::new(repeated("{{ 1", "+1", "", "", " }}"))),
        kind("powers", Box::new(repeated("{{ 1", "**1", "", "", " }}"))),
        kind("concatenations", Box::new(repeated("{{ 1", "~1", "", "", " }}"))),
        kind("comparisons", Box::new(repeated("{{ 1", "==1", "", "", " }}"))),
        kind("and", Box::new(repeated("{{ 1", " and 1", "", "", " }}"))),
        kind("or", Box::new(repeated("{{ 0", " or 0", "", "", " }}"))),
        kind("filters", Box::new(repeated("{{ 'a'", "|upper", "", "", " }}"))),
        kind("filters with arguments", Box::new(repeated("{{ 1", "|default(1", "", ")", " }}"))),
        kind("tests", Box::new(repeated("{{ 1", " is eq(1)", "", "", " }}"))),
        kind("attributes", Box::new(repeated("{{ messages", ".a", "", "", " is defined }}"))),
        kind("else values", Box::new(repeated("{{ ", "1 if 0 else ", "1", "", " }}"))),
        kind("conditions without else", Box::new(repeated("{{ 1", " if 1", "", "", " }}"))),
        kind("elif", Box::new(repeated("{% if 0 %}", "{% elif 0 %}", "", "", "{% endif %}"))),
        kind("if", Box::new(repeated("", "{% if 1 %}", "x", "{% endif %}", ""))),
        kind("for", Box::new(repeated("", "{% for a in [1] %}", "x", "{% endfor %}", ""))),
        kind("with", Box::new(repeated("", "{% with a = 1 %}", "x", "{% endwith %}", ""))),
        kind("macros", Box::new(repeated("", "{% macro m() %}", "x", "{% endmacro %}", ""))),
        kind("captures", Box::new(repeated("", "{% set a %}", "x", "{% endset %}", ""))),
        kind("filter blocks", Box::new(repeated("", "{% filter upper %}", "x", "{% endfilter %}", ""))),
        kind("generation", Box::new(repeated("", "{% generation %}", "x", "{% endgeneration %}", ""))),
        kind("targets", Box::new(repeated("{% set ", "(", "a", ")", " = 1 %}"))),
        kind("tags", Box::new(repeated("", "{{ 1 }}", "", "", ""))),
        kind("strings", Box::new(repeated("{{ '", "a", "", "", "' }}"))),
        kind("string parts", Box::new(repeated("{{ 'a'", " 'a'", "", "", " }}"))),
        kind("arguments", Box::new(repeated("{{ dict(", "a=1,", "", "", ") is defined }}"))),
        kind("names", Box::new(repeated("{{ ", "a", "", "", " }}"))),
        kind("comments", Box::new(repeated("{# ", "{#", "", "", " #}"))),
    ];
    for (name, make) in kinds {
        let (mut count, mut works) = (1, 0);
        let refusal = loop {
            let started = Instant::now();
            let result = render(&make(count));
            assert!(started.elapsed() < PATIENCE, "{name} x {count}: {:?}", started.elapsed());
            match result {
                Ok(_) => works = count,
                Err(error) if is_limit(&error) => break error,
                // Python rejects this as well, at any length.
                Err(ChatError::Render { .. }) => {}
                Err(error) => panic!("{name} x {count}: {error}"),
            }
            count *= 2;
            assert!(count < 1 << 22, "{name} is never refused");
        };
        if !["attributes", "subscripts"].contains(&name) {
            assert!(works >= 32, "{name} works up to {works}, then {refusal}");
        }
    }
}

#[test]
fn whatever_a_template_builds_is_bounded() {
    // Each would take gigabytes or hours.
    let hostile = [
        "{{ ('a\n' * 100000)|indent(1000000)|length }}",
        "{{ 'a' * 90000000 }}",
        "{{ 'a' * 9000000000000000000 }}",
        "{{ [1] * 900000000 }}",
        "{{ (1,) * 900000000000 }}",
        "{{ 'a'|center(1000000000) }}",
        "{{ 'a'.center(1000000000) ~ 'a'.ljust(1000000000) }}",
        "{{ 'a'.zfill(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000d' % 1 }}",
        "{{ '%1000000000s'|format(1) }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '\t'.expandtabs(1000000000) }}",
        "{{ range(100000)|batch(1000000000, 'x')|list }}",
        "{{ [1]|slice(1000000000)|list }}",
        "{{ range(100000)|join('a' * 100000) }}",
        "{{ ('a' * 100000).join('b' * 100000) }}",
        "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
        "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
        "{{ ('a' * 1000000)|list }}",
        "{{ ('a ' * 1000000).split() }}",
        "{{ ('a ' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}",
        "{{ ('a' * 100000)|tojson(indent=100000000) }}",
        "{{ [[[[1]]]]|tojson(indent=100000000) }}",
        "{{ range(1000)|list|tojson(separators=('x' * 1000000, '')) }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x * 2 %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}",
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(x=(1,), y=(1,)) %}{% for i in range(150) %}{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}{{ ns.x < ns.y }}",
        "{% set ns = namespace(x=(1,)) %}{% for i in range(150) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
        "{% set ns = namespace(x=(1,)) %}{% for i in range(150) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ [ns.x]|unique|list }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x={}) %}{% for i in range(100000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
        "{% set ns = namespace(x='') %}{% for i in range(100000) %}{% set ns.x = ns.x.count %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}{% for y in ns.x %}{% set ns.x = [loop] %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x=0) %}{% for i in range(100000) %}{% set ns.x = cycler(ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=0) %}{% for i in range(100000) %}{% set ns.x = joiner(ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=0) %}{% for i in range(100000) %}{% set ns.x = namespace(y=ns.x) %}{% endfor %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}",
        "{% set ns = namespace() %}{% set ns.x = {'a': (ns,)} %}{{ '%r' % ns }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ '{}'.format(ns) }}{{ ns|string }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{{ g(n) }}{% endmacro %}{% macro g(n) %}{{ f([n]) }}{% endmacro %}{{ f(0) }}",
        "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}",
        "{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}",
        "{% macro f(a=f()) %}{% endmacro %}{{ f() }}",
        "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% for a in range(100000) %}{% set x = ('x' * 100000)|length %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = ('ab' * 1000).count('b') %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = range(100000)|list|sort %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = 'x' * 10000 in 'y' * 10000 %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = range(100000)|sum %}{% endfor %}",
        "{% for a in range(100000) %}{{ range(100000)|random }}{{ range(100000)|list|length }}{% endfor %}",
        "{% for a in range(100000) %}{% macro m() %}{{ a }}{% endmacro %}{% set x = 'x' * 1000 %}{% endfor %}",
        "{% set d = dict() %}{% set ns = namespace(d=d) %}{% for i in range(100000) %}{% set ns.d = dict(ns.d, **{'k' ~ i: i}) %}{% endfor %}",
        "{{ ('%Y' * 1000000)|length }}{{ strftime_now('%64c' * 1000000) }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 7 ** 1000000000 }}",
        "{{ '%.1000000000f' % 1.5 }}",
        "{{ '{:.1000000000f}'.format(1.5) }}",
        "{{ 1.5|round(1000000000) }}{{ 'x' * 900000000 }}",
        "{{ dict(**('a' * 10000000)) }}",
        "{{ dict(*range(100000)) }}",
        "{{ ('<' * 1000000)|e|e|e|e|e|e }}",
        "{{ ('ß' * 4000000)|upper|upper|lower|title }}",
        "{{ (' ' * 1000000 ~ 'x').split(' ')|length }}{{ 'x' * 99999999 }}",
        "{% set s = ' ' * 1000000 %}{% for a in range(100000) %}{% set x = s|trim %}{% endfor %}",
        "{% set s = 'é' * 1000000 %}{% for a in range(100000) %}{% set x = s is upper %}{% endfor %}",
        "{% set s = 'é' * 1000000 %}{% for a in range(100000) %}{% set x = s.isprintable() or s.isdigit() %}{% endfor %}",
        "{% set s = ['é' * 1000000] %}{% for a in range(100000) %}{% set x = s|string|length %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = '%.999f' % 1e300 %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = '{:09999,}'.format(1) %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = 1.1|round(400) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% set s = '%c' * 10000 %}{% for a in range(100000) %}{% set x = strftime_now(s) %}{% endfor %}",
        "{% set s = 'a ' * 100000 %}{% for a in range(100000) %}{% set x = s|title|wordcount %}{% endfor %}",
        "{% set s = '-' * 100000 ~ 'x' %}{% for a in range(100000) %}{% set x = s|wordwrap(1000) %}{% endfor %}",
        "{{ ('-' * 100000 ~ 'x ')|wordwrap(2) }}{{ 'x' * 99999999 }}",
    ];
    for source in hostile {
        let started = Instant::now();
        let result = render(source);
        assert!(started.elapsed() < PATIENCE, "{source}: {:?}", started.elapsed());
        let error = result.expect_err(source);
        // Numbers beyond 128 bits and precisions beyond 1000 are plain errors.
        let plain = ["**", ".1000000000", "**(", "dict(*", "random", "caller", "a=f()"]
            .iter()
            .any(|part| source.contains(part));
        assert!(is_limit(&error) || (plain && matches!(error, ChatError::Render { .. })), "{source}: {error}");
        assert!(error.to_string().len() < 500, "{source}: {error}");
    }
}

/// Values of a template that a message quotes are shortened.
#[test]
fn errors_quote_little() {
    for source in [
        "{{ range(**{'x' * 1000000: 1}) }}",
        "{{ {}['x' * 1000000].y }}",
        "{{ [].index('x' * 1000000) }}",
        "{{ 1|map('x' * 1000000)|list }}",
        "{{ raise_exception('x' * 1000000) }}",
        "{{ ('%(' ~ 'x' * 1000000 ~ ')s') % {} }}",
    ] {
        let message = render(source).expect_err(source).to_string();
        assert!(message.len() < 5000, "{source}: {}", message.len());
    }
    let name = "x".repeat(100_000);
    for source in [
        format!("{{{{ {name}.y }}}}"),
        format!("{{% {name} %}}"),
        format!("{{{{ 1|{name} }}}}"),
        format!("{{{{ 1 is {name} }}}}"),
    ] {
        let message = render(&source).expect_err("long name").to_string();
        assert!(message.len() < 500, "{}", message.len());
    }
}

/// A namespace that contains itself is valid as long as nothing traverses it.
#[test]
fn a_cycle_is_harmless_where_it_is_not_shown() {
    let render = |source: &str| render(&format!("{{% set ns = namespace(x=1) %}}{{% set ns.x = [ns] %}}{source}"));
    for (source, want) in [
        ("{{ ns == ns }}", "True"),
        ("{{ ns.x == ns.x }}", "True"),
        ("{{ ns in ns.x }}", "True"),
        ("{{ {ns: 1}[ns] }}", "1"),
        ("{{ ns.x|unique|list|length }}", "1"),
        ("{{ ns.x[0].x[0].x|length }}", "1"),
    ] {
        assert_eq!(render(source).expect(source), want, "{source}");
    }
    assert!(matches!(render("{{ ns|tojson }}"), Err(ChatError::Render { .. })));
    assert!(matches!(render("{{ [ns, namespace()]|sort }}"), Err(ChatError::Render { .. })));
}

#[test]
fn errors_name_what_is_too_much_and_the_limit() {
    let message = |source: &str| render(source).expect_err(source).to_string();
    let deep = message(&format!("a\n{{{{ {}1{} }}}}", "(".repeat(200), ")".repeat(200)));
    assert!(deep.contains("line 2") && deep.contains("brackets and blocks") && deep.contains("100"), "{deep}");
    let large = message("{{ 'a' * 90000000 }}");
    assert!(large.contains("what it builds") && large.contains("bytes"), "{large}");
    let endless = message("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}");
    assert!(endless.contains("steps"), "{endless}");
    let cycle = message("{% set ns = namespace() %}{% set ns.x = ns %}\n{{ ns }}");
    assert!(cycle.contains("namespaces") && cycle.contains("200"), "{cycle}");
    let loading = message("{% include 'x' %}");
    assert!(loading.contains("include"), "{loading}");
}

#[test]
fn ordinary_conversations_are_far_from_the_limits() {
    let source = "{% set ns = namespace(text='', n=0) %}{% for m in messages %}{% set ns.text = ns.text + m.role + m.content|trim %}\
        {% if '</think>' in m.content %}{% set ns.n = ns.n + 1 %}{% endif %}{{ m.content.split('</think>')[-1].lstrip('\n') }}{% endfor %}{{ ns.text }}";
    let messages: Vec<Message> = (0..400).map(|at| Message::user(format!("{at} {}", "word ".repeat(400)))).collect();
    let template = ChatTemplate::from_source(source).expect("template");
    let text = template.render(&messages, &SpecialTokens::default(), &RenderOptions::default()).expect("render");
    assert!(text.len() > 2 * 400 * 2000, "{}", text.len());
}

#[test]
fn shared_hostile_templates_are_errors() {
    let Some(shared) = test_support::shared_dir() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(shared.join("hostile")).expect("hostile").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "jinja") {
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("template");
        let started = Instant::now();
        match render(&source) {
            // A chain of signs is flat, so it may be as long as it likes.
            Ok(text) => assert!(path.to_string_lossy().contains("deep") && text.len() < 10, "{}", path.display()),
            Err(error) => assert!(is_limit(&error), "{}: {error}", path.display()),
        }
        assert!(started.elapsed() < PATIENCE, "{}", path.display());
        seen += 1;
    }
    assert!(seen > 2, "{seen} templates");
}
