//! Keyword arguments to options of the library, and Python's values to JSON and back.

use bitnet::{CancelToken, Constraint, GenerateOptions, Message, Model, WhenFull};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::Value;

use crate::errors::{kinds, option};

/// The names of options of a generation.
const KNOWN: &str = "max_tokens, temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, presence_penalty, \
                     frequency_penalty, seed, stop, logit_bias, logprobs, json_schema, regex, grammar, ignore_eos, show_special, keep";

/// The options `given` by name, on top of what the model's files recommend. `None` stands for what is not given.
///
/// # Errors
/// `TypeError` for a name that is not known and for a value of another type, `OptionError` for two constraints.
pub(crate) fn generate(
    model: &Model,
    given: Option<&Bound<'_, PyDict>>,
    cancel: &CancelToken,
) -> PyResult<GenerateOptions> {
    let mut options = GenerateOptions::default().sampling(model.default_sampling()).cancel(cancel);
    let Some(given) = given else { return Ok(options) };
    let mut constraint: Option<(String, Constraint)> = None;
    for (name, value) in given.iter() {
        let name: String = name.extract()?;
        if value.is_none() {
            continue;
        }
        let s = &mut options.sampling;
        let mut constrained = None;
        match name.as_str() {
            "max_tokens" => options.max_tokens = Some(read(&name, &value)?),
            "temperature" => s.temperature = read(&name, &value)?,
            "top_k" => s.top_k = read(&name, &value)?,
            "top_p" => s.top_p = read(&name, &value)?,
            "min_p" => s.min_p = read(&name, &value)?,
            "repeat_penalty" => s.repeat_penalty = read(&name, &value)?,
            "repeat_last_n" => s.repeat_last_n = read(&name, &value)?,
            "presence_penalty" => s.presence_penalty = read(&name, &value)?,
            "frequency_penalty" => s.frequency_penalty = read(&name, &value)?,
            "seed" => s.seed = read(&name, &value)?,
            "stop" => options.stop = texts(&name, &value)?,
            "logit_bias" => {
                let biases: std::collections::HashMap<u32, f32> = read(&name, &value)?;
                options.logit_bias = biases.into_iter().collect();
                options.logit_bias.sort_by_key(|bias| bias.0);
            }
            "logprobs" => options.logprobs = Some(read(&name, &value)?),
            "json_schema" => constrained = Some(Constraint::json_schema(&schema(&value)?)),
            "regex" => constrained = Some(Constraint::regex(&read::<String>(&name, &value)?)),
            "grammar" => constrained = Some(Constraint::lark(read::<String>(&name, &value)?)),
            "ignore_eos" => options.ignore_eos = read(&name, &value)?,
            "show_special" => options.show_special = read(&name, &value)?,
            "keep" => options.when_full = WhenFull::ContextShift { keep: read(&name, &value)? },
            _ => return Err(PyTypeError::new_err(format!("unknown option {name:?}; options are {KNOWN}"))),
        }
        if let Some(new) = constrained {
            if let Some((first, _)) = &constraint {
                return Err(option(format!("{first} and {name}: a text has one constraint; leave one out")));
            }
            constraint = Some((name, new));
        }
    }
    options.constraint = constraint.map(|(_, constraint)| constraint);
    Ok(options)
}

/// `value` as a `T`; the message names the option.
fn read<'a, 'py, T: FromPyObject<'a, 'py>>(name: &str, value: &'a Bound<'py, PyAny>) -> PyResult<T> {
    value.extract::<T>().map_err(|error| {
        let error: PyErr = error.into();
        PyTypeError::new_err(format!("option {name}: {}", error.value(value.py())))
    })
}

/// One text, or several.
///
/// # Errors
/// `TypeError` for anything else.
pub(crate) fn texts(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(vec![text.extract()?]),
        Err(_) => value
            .try_iter()
            .and_then(|all| all.map(|text| text?.extract::<String>()).collect())
            .map_err(|_| PyTypeError::new_err(format!("{name}: expected a string or several strings"))),
    }
}

/// A JSON Schema: a text, a `dict`, or a class that has one (`model_json_schema` of pydantic).
///
/// # Errors
/// `ConstraintError` for what is not JSON.
pub(crate) fn schema(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let not_json = |e: &dyn std::fmt::Display| {
        kinds::ConstraintError::new_err(format!("the constraint cannot be used: the schema is not JSON: {e}"))
    };
    if let Ok(text) = value.extract::<String>() {
        return serde_json::from_str(&text).map_err(|e| not_json(&e));
    }
    let made = match value.hasattr("model_json_schema")? {
        true => value.call_method0("model_json_schema")?,
        false => value.clone(),
    };
    json(&made).map_err(|e| not_json(&e))
}

/// A value of Python as JSON.
///
/// # Errors
/// The exceptions of `json.dumps`.
pub(crate) fn json(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let text: String = value.py().import("json")?.call_method1("dumps", (value,))?.extract()?;
    serde_json::from_str(&text).map_err(|e| PyTypeError::new_err(e.to_string()))
}

/// A text of JSON as a value of Python.
///
/// # Errors
/// The exceptions of `json.loads`.
pub(crate) fn loads<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (text,))
}

/// A conversation: dictionaries with `role` and `content`, or pairs of both. Other keys are handed to the template.
///
/// # Errors
/// `TypeError` for anything else.
pub(crate) fn messages(value: &Bound<'_, PyAny>) -> PyResult<Vec<Message>> {
    let form = |at: usize, e: &dyn std::fmt::Display| {
        PyTypeError::new_err(format!(
            "message {at}: expected a dict with \"role\" and \"content\", or a pair of both ({e})"
        ))
    };
    let one = |(at, message): (usize, PyResult<Bound<'_, PyAny>>)| {
        let message = message?;
        match message.extract::<(String, String)>() {
            Ok((role, content)) => Ok(Message::new(role, content)),
            Err(_) => {
                let value = json(&message).map_err(|e| form(at, &e))?;
                serde_json::from_value(value).map_err(|e| form(at, &e))
            }
        }
    };
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyDict>() {
        return Err(PyTypeError::new_err("messages: expected a list of messages, got one value"));
    }
    value.try_iter()?.enumerate().map(one).collect()
}
