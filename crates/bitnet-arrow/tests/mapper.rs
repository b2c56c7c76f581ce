//! Answers of a mapper are those of the library for each text, however the table is cut.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int64Array, LargeStringArray, NullArray, RecordBatch, StringArray,
    StringViewArray,
};
use arrow_schema::{DataType, Schema};
use bitnet::{
    CancelToken, ChooseBy, Classifier, Constraint, EmbedOptions, Embedder, Extractor, ExtractorConfig,
    ExtractorWeights, GenerateOptions, KvType, Model, Pooling, SamplingOptions, TaskConfig,
};
use bitnet_arrow::{
    Choose, Embed, Extract, Generate, MapError, MapOptions, Mapper, OnError, Score, Task, Template, Watch,
};
use proptest::prelude::*;

fn extractor() -> Extractor {
    let names = |of: &str, n: usize| (0..n).map(|i| format!("{of}{i}")).collect();
    let music = TaskConfig::new("music", names("intent", 4), names("slot", 3));
    let tasks = vec![music, TaskConfig::new("topic", names("topic", 5), vec![])];
    let config = ExtractorConfig { buckets: 200, hidden_size: 64, ..ExtractorConfig::new(tasks) };
    Extractor::from_weights(ExtractorWeights::synthetic(config, 2).unwrap()).unwrap()
}

/// A model with a limited context.
fn stories() -> Model {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tinystories-5m.gguf");
    Model::builder().threads(1).kv(KvType::F32).load(path).unwrap()
}

fn template(text: &str) -> Template {
    text.parse().unwrap()
}

fn table(texts: &[Option<&str>]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..texts.len() as i64));
    let texts: ArrayRef = Arc::new(texts.iter().copied().collect::<StringArray>());
    RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("text", texts, true)]).unwrap()
}

const TEXTS: [Option<&str>; 7] = [
    Some("play sme jazz by miles davis"),
    None,
    Some(""),
    Some("青空文庫って知ってる?"),
    Some("Once upon a time there was a little dog. He was very sad because he"),
    Some("stop it, now"),
    Some("She got a big cake for her birthday."),
];

/// Every task, for a model that can do it.
fn mappers(options: &MapOptions) -> Vec<Mapper> {
    let model = Model::tiny().unwrap();
    let schema = serde_json::json!({ "enum": ["happy", "sad"] });
    let tasks: [(Embedder, Task); 8] = [
        (extractor().into(), Extract::default().into()),
        (extractor().into(), Extract::task("topic").into()),
        (extractor().into(), Embed::default().template(template("to {text}")).into()),
        (model.clone().into(), Embed::default().into()),
        (model.clone().into(), Choose::new([" happy", " sad", " sad now"]).template(template("{text} I was")).into()),
        (model.clone().into(), Score::default().template(template("Once {text}")).into()),
        (model.clone().into(), Generate::default().max_tokens(9).sampling(SamplingOptions::default()).into()),
        (model.into(), Generate::default().constraint(Constraint::json_schema(&schema)).into()),
    ];
    tasks.map(|(model, task)| Mapper::new(model, task, options.clone()).unwrap()).into()
}

fn joined(parts: &[RecordBatch]) -> Vec<ArrayRef> {
    let column = |i: usize| {
        let arrays: Vec<&dyn Array> = parts.iter().map(|part| part.column(i).as_ref()).collect();
        arrow_select::concat::concat(&arrays).unwrap()
    };
    (0..parts[0].num_columns()).map(column).collect()
}

#[test]
fn answers_do_not_depend_on_cuts_threads_or_other_rows() {
    let whole = table(&TEXTS);
    for (one, other) in
        mappers(&MapOptions::default().threads(1)).iter().zip(mappers(&MapOptions::default().threads(3).together(2)))
    {
        let expected = one.map(&whole).unwrap();
        for size in [1, 2, 3, 7] {
            let parts: Vec<RecordBatch> =
                (0..7).step_by(size).map(|from| other.map(&whole.slice(from, size.min(7 - from))).unwrap()).collect();
            assert_eq!(joined(&parts), expected.columns(), "{} by {size}", one.task());
        }
        let backwards: Vec<RecordBatch> = (0..7).rev().map(|row| one.map(&whole.slice(row, 1)).unwrap()).collect();
        let rows: Vec<RecordBatch> = (0..7).rev().map(|row| expected.slice(row, 1)).collect();
        assert_eq!(joined(&backwards), joined(&rows), "{}", one.task());
    }
}

#[test]
fn columns_are_known_before_any_row() {
    for mapper in mappers(&MapOptions::default().prefix("b_")) {
        let none = mapper.map(&table(&[])).unwrap();
        let some = mapper.map(&table(&TEXTS)).unwrap();
        assert_eq!(none.schema(), some.schema());
        assert_eq!(some.schema(), mapper.output_schema(&table(&[]).schema()).unwrap());
        let new: Vec<_> = some.schema().fields().iter().skip(2).map(|f| (**f).clone()).collect();
        assert_eq!(new, mapper.output_fields());
        assert!(new.iter().all(|f| f.name().starts_with("b_") && f.is_nullable()));
        assert_eq!(
            (new.last().unwrap().name().as_str(), new.last().unwrap().data_type()),
            ("b_error", &DataType::Utf8)
        );
        // The row without a text.
        assert!(some.columns()[2..].iter().all(|c| c.is_null(1)), "{}", mapper.task());
        // The text alone, without a table.
        let columns = mapper.columns(table(&TEXTS).column(1), Watch::default()).unwrap();
        assert_eq!(columns, some.columns()[2..]);
    }
}

#[test]
fn every_layout_of_texts_is_read() {
    let texts = [Some("play jazz"), None, Some("青空"), Some("play jazz")];
    let dictionary: DictionaryArray<Int32Type> = texts.iter().copied().collect();
    // A dictionary may hold nulls among its values, too.
    let keys = arrow_array::Int32Array::from(vec![Some(0), Some(1), Some(2), Some(0)]);
    let values: ArrayRef = Arc::new(StringArray::from(vec![texts[0], None, texts[2]]));
    let arrays: [ArrayRef; 5] = [
        Arc::new(texts.iter().copied().collect::<StringArray>()),
        Arc::new(texts.iter().copied().collect::<LargeStringArray>()),
        Arc::new(texts.iter().copied().collect::<StringViewArray>()),
        Arc::new(dictionary),
        Arc::new(DictionaryArray::new(keys, values)),
    ];
    let mapper = Mapper::new(extractor(), Extract::default(), MapOptions::default().column("t")).unwrap();
    let answers = |array: &ArrayRef| {
        let batch = RecordBatch::try_from_iter_with_nullable([("t", array.clone(), true)]).unwrap();
        mapper.map(&batch).unwrap().columns()[1..].to_vec()
    };
    let expected = answers(&arrays[0]);
    assert!(arrays.iter().all(|array| answers(array) == expected));
    let nulls: ArrayRef = Arc::new(NullArray::new(3));
    assert!(answers(&nulls).iter().all(|column| column.null_count() == 3));
    let empty: DictionaryArray<Int32Type> = [None::<&str>, None].into_iter().collect();
    assert_eq!(answers(&(Arc::new(empty) as ArrayRef))[0].null_count(), 2);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("t", numbers)]).unwrap();
    let error = mapper.map(&batch).unwrap_err();
    assert!(matches!(&error, MapError::NotText { column, found } if column == "t" && found == "Int64"), "{error}");
}

#[test]
fn extractions_are_those_of_the_extractor() {
    let extractor = extractor();
    for name in ["music", "topic"] {
        let mapper = Mapper::new(extractor.clone(), Extract::task(name), MapOptions::default()).unwrap();
        let long = "word ".repeat(400);
        let texts = [&TEXTS[..], &[Some(long.as_str())]].concat();
        let batch = mapper.map(&table(&texts)).unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let slots = column("slots").as_list::<i32>();
        for (row, text) in texts.iter().enumerate() {
            let Some(text) = text else { continue };
            let found = extractor.task(name).unwrap().extract(text).unwrap();
            assert_eq!(column("intent").as_string::<i32>().value(row), found.intent);
            assert_eq!(column("probability").as_primitive::<Float32Type>().value(row), found.confidence);
            assert_eq!(column("out_of_scope").as_boolean().value(row), found.out_of_scope);
            assert_eq!(column("cut").as_boolean().value(row), found.cut);
            let found_slots = slots.value(row);
            let found_slots = found_slots.as_struct();
            assert_eq!(found_slots.len(), found.slots.len());
            for (i, slot) in found.slots.iter().enumerate() {
                let text_of =
                    |name: &str| found_slots.column_by_name(name).unwrap().as_string::<i32>().value(i).to_owned();
                let place = |name: &str| {
                    found_slots.column_by_name(name).unwrap().as_primitive::<UInt32Type>().value(i) as usize
                };
                assert_eq!((text_of("name"), text_of("value")), (slot.name.clone(), slot.value.clone()));
                assert_eq!(place("start")..place("end"), slot.range);
            }
        }
        assert_eq!(column("error").null_count(), texts.len());
        assert!(column("cut").as_boolean().value(texts.len() - 1));
    }
}

#[test]
fn answers_of_language_models_are_those_of_the_library() {
    let model = Model::tiny().unwrap();
    let batch = table(&TEXTS);
    // This model has no token for the beginning of a text, so that it cannot read an empty one.
    let texts = TEXTS.iter().enumerate().filter_map(|(i, text)| Some((i, text.filter(|text| !text.is_empty())?)));
    let map = |task: Task| Mapper::new(model.clone(), task, MapOptions::default()).unwrap().map(&batch).unwrap();

    let options = EmbedOptions::default().pooling(Pooling::Last);
    let vectors = map(Embed::default().options(options).into());
    let vectors = vectors.column_by_name("embedding").unwrap().as_fixed_size_list();
    assert!(vectors.is_null(2));
    let labels = [" happy", " sad", " sad now"];
    let choices = map(Choose::new(labels).template(template("{text} I was")).by(ChooseBy::PerToken).into());
    let mut classifier = Classifier::new(&model, "{text} I was", labels).unwrap().by(ChooseBy::PerToken);
    let scores = map(Score::default().template(template("One day. {text}")).into());
    let sampling = SamplingOptions::default().with_seed(5);
    let generated = map(Generate::default().sampling(sampling.clone()).max_tokens(12).stop("dog").into());
    for (row, text) in texts {
        let vector = model.embed([text], options).unwrap().remove(0);
        assert_eq!(vectors.value(row).as_primitive::<Float32Type>().values(), &vector[..]);
        let choice = classifier.classify(text).unwrap();
        let column = |batch: &RecordBatch, name: &str| batch.column_by_name(name).unwrap().clone();
        assert_eq!(column(&choices, "choice").as_string::<i32>().value(row), labels[choice.index].trim());
        let probability = column(&choices, "probability").as_primitive::<Float32Type>().value(row);
        assert_eq!(probability, choice.probability() as f32);
        let score = model.score("One day. ", [text]).unwrap().remove(0);
        assert_eq!(column(&scores, "logprob").as_primitive::<Float64Type>().value(row), score.total() + 0.0);
        assert_eq!(column(&scores, "tokens").as_primitive::<UInt32Type>().value(row) as usize, score.ids.len());
        let options = GenerateOptions::default().sampling(sampling.clone()).max_tokens(12).stop("dog");
        let output = model.session().generate(text, options).unwrap().finish().unwrap();
        assert_eq!(column(&generated, "generated").as_string::<i32>().value(row), output.text.unwrap());
        let reason = column(&generated, "finish_reason");
        assert_eq!(reason.as_string::<i32>().value(row), output.finish_reason.name());
    }
}

#[test]
fn rows_that_fail_are_null_with_a_reason_or_stop() {
    let model = stories();
    let long = "a dog and ".repeat(model.context());
    let texts = [Some("a dog"), Some(long.as_str()), None, Some("a cat"), Some(long.as_str())];
    let tasks: [Task; 4] = [
        Embed::default().into(),
        Choose::new([" a", " b"]).into(),
        Score::default().into(),
        Generate::default().max_tokens(3).into(),
    ];
    for task in tasks {
        let name = task.name();
        let mapper = Mapper::new(model.clone(), task.clone(), MapOptions::default()).unwrap();
        let batch = mapper.map(&table(&texts)).unwrap();
        let reasons: Vec<Option<&str>> = batch.column_by_name("error").unwrap().as_string::<i32>().iter().collect();
        assert!(reasons[0].is_none() && reasons[2].is_none() && reasons[3].is_none(), "{name}: {reasons:?}");
        assert!(reasons[1].is_some_and(|reason| reason.contains("context")), "{name}: {reasons:?}");
        for column in &batch.columns()[2..batch.num_columns() - 1] {
            let nulls: Vec<bool> = (0..5).map(|row| column.is_null(row)).collect();
            assert_eq!(nulls, [false, true, true, false, true], "{name}");
        }
        // The others are as they were without it.
        let alone = mapper.map(&table(&texts[3..4])).unwrap();
        assert_eq!(batch.slice(3, 1).columns()[2..], alone.columns()[2..], "{name}");
        let stop = MapOptions::default().on_error(OnError::Stop);
        let mapper = Mapper::new(model.clone(), task, stop).unwrap();
        assert!(mapper.output_fields().iter().all(|field| field.name() != "error"));
        let error = mapper.map(&table(&texts)).unwrap_err();
        assert!(matches!(error, MapError::Row { row: 1, .. }), "{name}: {error}");
        assert_eq!(mapper.map(&table(&texts[2..4])).unwrap().num_rows(), 2);
    }
}

#[test]
fn a_text_that_its_constraint_does_not_allow_to_be_cut_is_a_failure() {
    let schema = serde_json::json!({ "type": "object", "properties": { "mood": { "enum": ["happy", "sad"] } },
        "required": ["mood"], "additionalProperties": false });
    let task = Generate::default().constraint(Constraint::json_schema(&schema));
    let batch = table(&TEXTS[4..]);
    let map = |task: Generate| {
        let mapper = Mapper::new(Model::tiny().unwrap(), task, MapOptions::default()).unwrap();
        let batch = mapper.map(&batch).unwrap();
        let texts = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        (texts("generated"), texts("error"))
    };
    let (generated, errors) = map(task.clone());
    assert_eq!(errors.null_count(), 3);
    for text in generated.iter() {
        let value: serde_json::Value = serde_json::from_str(text.unwrap()).unwrap();
        assert!(["happy", "sad"].contains(&value["mood"].as_str().unwrap()));
    }
    let (generated, errors) = map(task.max_tokens(2));
    assert_eq!((generated.null_count(), errors.null_count()), (3, 0));
}

#[test]
fn what_cannot_be_mapped_is_told() {
    let (model, extractor) = (Model::tiny().unwrap(), extractor());
    let options = MapOptions::default;
    let wrong = [
        Mapper::new(model.clone(), Extract::default(), options()),
        Mapper::new(extractor.clone(), Score::default(), options()),
        Mapper::new(extractor.clone(), Generate::default(), options()),
        Mapper::new(extractor.clone(), Choose::new(["a"]), options()),
    ];
    assert!(wrong.iter().all(|r| matches!(r, Err(MapError::WrongModel { .. }))), "{wrong:?}");
    let unknown = Mapper::new(extractor.clone(), Extract::task("weather"), options()).unwrap_err().to_string();
    assert!(unknown.contains("music") && unknown.contains("topic"), "{unknown}");
    let pooled = Embed::default().options(EmbedOptions::default().pooling(Pooling::Last));
    assert!(Mapper::new(extractor.clone(), pooled, options()).unwrap_err().to_string().contains("pooling"));
    let none: [&str; 0] = [];
    assert!(matches!(Mapper::new(model.clone(), Choose::new(none), options()), Err(MapError::Bitnet(_))));
    let score = Score::default().template(template("{text} x"));
    assert!(matches!(Mapper::new(model.clone(), score, options()), Err(MapError::TextNotLast { .. })));
    let none = Mapper::new(model.clone(), Score::default(), options()).unwrap_err();
    assert!(matches!(none, MapError::NoBeginning), "{none}");
    let hot = Generate::default().sampling(SamplingOptions::default().with_top_p(1.5));
    assert!(Mapper::new(model.clone(), hot, options()).unwrap_err().to_string().contains("top_p"));
    assert!(matches!(Mapper::new(model, Generate::default().chat(None), options()), Err(MapError::Bitnet(_))));

    let map = |options: MapOptions| Mapper::new(extractor.clone(), Extract::default(), options).unwrap();
    let error = map(options().column("body")).map(&table(&TEXTS)).unwrap_err();
    assert!(matches!(&error, MapError::NoColumn { have, .. } if have == &["id", "text"]), "{error}");
    assert!(error.to_string().contains("the table has id, text"), "{error}");
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let batch = RecordBatch::try_from_iter([("text", texts), ("cut", ids)]).unwrap();
    let error = map(options()).map(&batch).unwrap_err();
    assert!(matches!(&error, MapError::Clash { column } if column == "cut"), "{error}");
    assert!(map(options().prefix("x_")).map(&batch).unwrap().column_by_name("x_cut").is_some());
    assert!(map(options()).output_schema(&Schema::empty()).unwrap_err().to_string().contains("no columns"));
}

#[test]
fn calls_report_progress_and_can_be_cancelled() {
    let many: Vec<Option<&str>> = TEXTS.iter().copied().cycle().take(3000).collect();
    for mapper in mappers(&MapOptions::default().threads(2)) {
        let texts = if mapper.task() == "extract" { &many[..] } else { &many[..60] };
        let mut seen = Vec::new();
        mapper.map_with(&table(texts), Watch::default().progress(|rows| seen.push(rows))).unwrap();
        assert!(seen.is_sorted() && seen.last() == Some(&texts.len()), "{}: {seen:?}", mapper.task());
        let token = CancelToken::new();
        let cancel = token.clone();
        let watch = Watch::default().cancel(&token).progress(move |_| cancel.cancel());
        let result = mapper.map_with(&table(&many), watch);
        assert!(matches!(result, Err(MapError::Cancelled)), "{}: {result:?}", mapper.task());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Any texts, in any cut.
    #[test]
    fn any_texts_in_any_cut(texts in prop::collection::vec(prop::option::of(".{0,30}"), 1..40), size in 1usize..10) {
        let mapper = Mapper::new(extractor(), Extract::default(), MapOptions::default().threads(2)).unwrap();
        let texts: Vec<Option<&str>> = texts.iter().map(|text| text.as_deref()).collect();
        let whole = table(&texts);
        let expected = mapper.map(&whole).unwrap();
        let parts: Vec<RecordBatch> = (0..texts.len())
            .step_by(size)
            .map(|from| mapper.map(&whole.slice(from, size.min(texts.len() - from))).unwrap())
            .collect();
        prop_assert_eq!(joined(&parts), expected.columns());
    }
}
