//! The page's requests and the answers to them.

use bitnet::{CancelToken, Model, Prepared};
use bitnet_backend::{Facts, GenerateRequest, Info, join};

fn request(more: &str) -> Result<GenerateRequest, serde_json::Error> {
    serde_json::from_str(&format!(r#"{{"prompt": {{"kind": "text", "text": "Once"}}{more}}}"#))
}

#[test]
fn what_is_not_asked_for_is_as_recommended() {
    let model = Model::tiny().unwrap();
    let mut recommended = model.default_sampling();
    recommended.seed = 7;
    let cancel = CancelToken::new();
    let options = request("").unwrap().options(recommended.clone(), &cancel).unwrap();
    assert_eq!(options.sampling, recommended);
    let asked = r#", "sampling": {"temperature": 0.5, "topP": 0.25, "topK": 3, "minP": 0.125, "repeatPenalty": 1.5, "presencePenalty": 2,
        "frequencyPenalty": -1, "seed": 9}, "maxTokens": 5, "stop": ["x"], "innerLoss": true"#;
    let options = request(asked).unwrap().options(recommended.clone(), &cancel).unwrap();
    let s = &options.sampling;
    assert_eq!((s.temperature, s.top_p, s.top_k, s.min_p, s.seed), (0.5, 0.25, 3, 0.125, 9));
    assert_eq!((s.repeat_penalty, s.presence_penalty, s.frequency_penalty), (1.5, 2.0, -1.0));
    assert_eq!((options.max_tokens, &options.stop[..]), (Some(5), &["x".to_owned()][..]));
}

#[test]
fn what_is_not_understood_is_refused() {
    assert!(request(r#", "temperature": 1"#).is_err());
    assert!(request(r#", "sampling": {"topk": 1}"#).is_err());
    let schema = request(r#", "constraint": {"kind": "schema", "schema": "{"}"#).unwrap();
    let refused = schema.options(Model::tiny().unwrap().default_sampling(), &CancelToken::new()).unwrap_err();
    assert!(refused.to_string().starts_with("the schema is not JSON: "), "{refused}");
}

#[test]
fn a_session_reads_only_what_is_new_and_stays_when_it_is_refused() {
    let model = Model::tiny().unwrap();
    let options = || request(r#", "maxTokens": 2, "sampling": {"temperature": 0}"#).unwrap();
    let prepared = || {
        let options = options().options(model.default_sampling(), &CancelToken::new()).unwrap();
        Prepared::new(&model, options).unwrap()
    };
    let ids = model.encode("Once upon a time there was", true).unwrap();
    let mut idle = Some(model.session());
    let first = join(&model, &mut idle, &ids, prepared()).unwrap().unwrap();
    assert_eq!((first.cached, idle.is_none()), (0, true));
    assert!(join(&model, &mut idle, &ids, prepared()).unwrap().is_none());
    let mut batch = first.batch;
    while batch.session(first.sequence).is_some_and(|s| s.len() < ids.len()) {
        assert!(batch.step().into_iter().all(|(_, chunk)| chunk.is_ok()));
    }
    let (session, _) = batch.leave(first.sequence).unwrap();
    assert_eq!(session.tokens()[..ids.len()], ids[..]);
    let before = session.tokens().to_vec();
    idle = Some(session);
    for refused in [&[][..], &[u32::MAX]] {
        assert!(join(&model, &mut idle, refused, prepared()).is_err());
        assert_eq!(idle.as_ref().map(|session| session.tokens().to_vec()), Some(before.clone()));
    }
    let longer: Vec<u32> = ids.iter().copied().chain([5, 6, 7]).collect();
    let again = join(&model, &mut idle, &longer, prepared()).unwrap().unwrap();
    assert_eq!(again.cached, ids.len());
}

#[test]
fn facts_are_those_of_the_model() {
    let model = Model::tiny().unwrap();
    let of = |inner_loss| {
        serde_json::to_value(Info::of(&model, Facts { name: "file", place: "wasm ", inner_loss })).unwrap()
    };
    let info = of(true);
    assert_eq!(info["name"], "tiny-stories-ttt");
    assert_eq!((&info["innerLoss"], &of(false)["innerLoss"]), (&true.into(), &false.into()));
    assert!(info["device"].as_str().unwrap().starts_with("wasm "));
    assert_eq!(info["memory"]["perToken"], 0);
    assert!(info["memory"]["constant"].as_u64().unwrap() > 0);
}
