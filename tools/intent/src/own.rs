//! Extractors of one's own: utterances out of templates, and what a model says about a test written by hand.

use std::path::Path;

use bitnet::Extractor;
use bitnet::train::Random;
use intent::IntentError;
use intent::metrics::{Guess, Scope, Share, Slots};
use intent::templates::Templates;

use crate::commands::write;
use crate::extract::line;

/// Writes utterances of templates as JSON lines, half of them with a sign at the end or a capital letter.
pub(crate) fn make(from: &Path, count: usize, out: &Path, seed: u64) -> Result<(), IntentError> {
    let mut made = Templates::read(from)?.draw(count, seed);
    let mut random = Random::new(seed, "signs and capitals");
    made.iter_mut().for_each(|m| m.finish(&mut random));
    write(out, &made.iter().map(|m| line(&m.said, m.intent.as_deref(), &m.slots, None)).collect::<String>())
}

/// Prints figures and every wrong answer.
pub(crate) fn judge(model: &Path, task: Option<&str>, test: &Path) -> Result<(), IntentError> {
    let extractor = Extractor::load(model)?;
    let first = extractor.config().tasks.first().map(|t| t.name.clone()).unwrap_or_default();
    let task = extractor.task(task.unwrap_or(&first))?;
    let (mut intents, mut slots, mut whole, mut guesses) =
        (Share::default(), Slots::default(), Share::default(), Vec::new());
    for asked in Templates::read(test)?.lines() {
        let text = asked.said.text();
        let found = task.extract(&text)?;
        let right = asked.intent.as_ref() == Some(&found.intent);
        let is_out = asked.intent.is_none();
        guesses.push(Guess { right, says_out: found.out_of_scope, sure: found.confidence.into(), is_out });
        let pairs: Vec<(String, String)> = found.slots.into_iter().map(|s| (s.name, s.value)).collect();
        let fine = if is_out {
            found.out_of_scope
        } else {
            intents.add(right);
            let all = slots.add(&pairs, &asked.pairs()) && right && !found.out_of_scope;
            whole.add(all);
            all
        };
        if !fine {
            let said = if found.out_of_scope { "out of scope, or " } else { "" };
            println!("{text}\n    {said}{} {pairs:?}", found.intent);
            println!("    right: {} {:?}", asked.intent.as_deref().unwrap_or("out of scope"), asked.pairs());
        }
    }
    let scope = Scope::of(&guesses, f64::MIN);
    println!("{} in scope: intent {:.1} %, slots F1 {:.1}", intents.of, intents.percent(), slots.f1());
    println!(
        "  taken as in scope, with the right intent: {:.1} %; all slots right, too: {:.1} %",
        scope.in_scope.percent(),
        whole.percent()
    );
    println!("{} out of scope: {:.1} % noticed", scope.recall.of, scope.recall.percent());
    Ok(())
}
