//! Extractors that teach intents: what they say about a text, in the mean, is part of what is right about it.

use super::data::TaskData;
use super::{Marked, losses};
use crate::encoder::{Extractor, Scratch};
use crate::train::TrainError;

/// Teachers with their buffers.
#[derive(Debug, Default)]
pub(super) struct Teachers {
    all: Vec<(Extractor, Scratch)>,
    /// For each task what each teacher calls it.
    tasks: Vec<Vec<Taught>>,
}

/// A task as a teacher knows it.
#[derive(Debug)]
struct Taught {
    teacher: usize,
    task: usize,
    /// The teacher's number of each intent.
    intents: Vec<usize>,
    /// Whether it knows what is out of scope.
    outside: bool,
}

impl Teachers {
    /// # Errors
    /// A teacher that knows none of the tasks, or a task without one of its intents.
    pub(super) fn new(tasks: &[TaskData], teachers: Vec<Extractor>) -> Result<Self, TrainError> {
        let bad = |value: String, must| TrainError::Option { option: "teacher", value, must };
        let mut all = Vec::new();
        let mut taught: Vec<Vec<Taught>> = tasks.iter().map(|_| Vec::new()).collect();
        for (teacher, extractor) in teachers.into_iter().enumerate() {
            let mut knows = false;
            for (data, taught) in tasks.iter().zip(&mut taught) {
                let config = extractor.config();
                let Some(task) = config.tasks.iter().position(|t| t.name == data.name) else { continue };
                let theirs = &config.tasks[task].intents;
                let number = |name: &String| {
                    let missing = || bad(format!("without the intent '{name}'"), "a teacher that knows all intents");
                    theirs.iter().position(|t| t == name).ok_or_else(missing)
                };
                let intents = data.intents.iter().map(number).collect::<Result<_, _>>()?;
                let outside = config.tasks[task].oos.is_some() && data.has_outside();
                taught.push(Taught { teacher, task, intents, outside });
                knows = true;
            }
            if !knows {
                return Err(bad("of other tasks".to_owned(), "an extractor of one of the tasks"));
            }
            let scratch = extractor.scratch();
            all.push((extractor, scratch));
        }
        Ok(Self { all, tasks: taught })
    }

    /// Appends what they say about the intent of a text of a task, a probability for each intent and then for out of
    /// scope; nothing where none knows the task.
    ///
    /// # Errors
    /// [`TrainError::Model`] for a damaged teacher.
    pub(super) fn say(&mut self, task: usize, said: &Marked, to: &mut Vec<Vec<f32>>) -> Result<(), TrainError> {
        if self.all.is_empty() {
            return Ok(());
        }
        let taught = &self.tasks[task];
        let mut mean = Vec::new();
        let text = said.text();
        let share = 1.0 / taught.len().max(1) as f32;
        for t in taught {
            let (teacher, scratch) = &mut self.all[t.teacher];
            teacher.encode(&text, scratch)?;
            let logits = teacher.intents(t.task, scratch)?;
            let sum = losses::log_sum(logits, t.outside);
            mean.resize(t.intents.len() + 1, 0.0f32);
            for (m, i) in mean.iter_mut().zip(&t.intents) {
                *m += share * (logits[*i] - sum).exp();
            }
            if let Some(m) = mean.last_mut().filter(|_| t.outside) {
                *m += share * (-sum).exp();
            }
        }
        to.push(mean);
        Ok(())
    }
}
