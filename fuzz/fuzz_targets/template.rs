//! Chat templates: any source compiles and renders to a text, or is an error, within its limits.
#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use loader::chat::{ChatTemplate, Message, RenderOptions, SpecialTokens};

static MESSAGES: LazyLock<Vec<Message>> =
    LazyLock::new(|| vec![Message::system("Be \u{e9} \u{1F600}."), Message::user("hi\n<b>"), Message::assistant("")]);

fuzz_target!(|data: &[u8]| {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(template) = ChatTemplate::from_source(source) else { return };
    let mut options = RenderOptions::default();
    // The same bytes give the same text.
    options.now = Some(SystemTime::UNIX_EPOCH);
    let _ = template.render(&MESSAGES, &SpecialTokens::default(), &options);
});
