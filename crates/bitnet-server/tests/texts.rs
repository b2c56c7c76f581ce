//! The answers of the endpoints equal those of the library in process: whole, streamed, alone, together.

mod common;

use bitnet::{EmbedOptions, GenerateOptions, Message, Model, Output};
use common::{Running, attention, streamed, texts, ttt};
use serde_json::{Value, json};

fn alone(model: &Model, prompt: &str, options: GenerateOptions) -> Output {
    model.session().generate(prompt, options).unwrap().finish().unwrap()
}

/// The options for a request with only these fields.
fn options(model: &Model, temperature: f32, seed: u64, max_tokens: usize) -> GenerateOptions {
    GenerateOptions::default()
        .sampling(model.default_sampling())
        .temperature(temperature)
        .seed(seed)
        .max_tokens(max_tokens)
}

const PROMPTS: [&str; 3] = ["Once upon a time", "The cat sat on the mat. The cat", "Tom said: \"I like red apples"];

#[test]
fn completions_are_those_of_a_session() {
    for model in [ttt(), attention()] {
        let server = Running::start(model.clone(), |_| {});
        for (i, prompt) in PROMPTS.iter().enumerate() {
            for temperature in [0.0, 0.9] {
                let expected = alone(&model, prompt, options(&model, temperature, i as u64, 30));
                let request = json!({
                    "model": server.client.get("/v1/models").unwrap().ok()["data"][0]["id"],
                    "prompt": prompt, "temperature": temperature, "seed": i, "max_tokens": 30,
                });
                let answer = server.client.post("/v1/completions", &request).unwrap().ok();
                assert_eq!(Some(&texts(&answer)[0]), expected.text.as_ref());
                assert_eq!(answer["choices"][0]["finish_reason"], expected.finish_reason.name());
                let prompt_tokens = model.encode(prompt, model.adds_bos()).unwrap().len();
                assert_eq!(answer["usage"]["prompt_tokens"], prompt_tokens);
                assert_eq!(answer["usage"]["completion_tokens"], expected.ids.len());
                assert_eq!(answer["usage"]["total_tokens"], prompt_tokens + expected.ids.len());
                assert_eq!(
                    (&answer["object"], &answer["choices"][0]["logprobs"]),
                    (&json!("text_completion"), &Value::Null)
                );

                let mut request = request;
                request["stream"] = true.into();
                let stream = server.client.stream("/v1/completions", &request).unwrap();
                assert_eq!(stream.status, 200);
                assert!(stream.headers.contains(&("content-type".into(), "text/event-stream".into())));
                let events = stream.events().unwrap();
                let expected = (expected.text.unwrap(), expected.finish_reason.name().to_owned());
                assert_eq!(streamed(&events, 1), [expected]);
                assert!(events.iter().all(|e| e["id"] == events[0]["id"] && e.get("usage").is_none()));
            }
        }
        // Sixteen tokens by default, as OpenAI has it.
        let answer =
            server.client.post("/v1/completions", &json!({"prompt": "x", "logit_bias": {"0": -100, "1": -100}}));
        assert_eq!(answer.unwrap().ok()["usage"]["completion_tokens"], 16);
    }
}

#[test]
fn conversations_are_those_of_a_session() {
    for model in [ttt(), attention()] {
        let server = Running::start(model.clone(), |_| {});
        let messages = [
            Message::system("You tell stories."),
            Message::user("Tell me of a dog."),
            Message::assistant("No."),
            Message::user("Please!"),
        ];
        let mut session = model.session();
        let expected = session.chat(&messages, options(&model, 0.8, 7, 25)).unwrap().finish().unwrap();
        let request = json!({
            "messages": [
                {"role": "developer", "content": "You tell stories."},
                {"role": "user", "content": [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "of a dog."}]},
                {"role": "assistant", "content": "No.", "refusal": null, "tool_calls": null},
                {"role": "user", "content": "Please!"},
            ],
            "temperature": 0.8, "seed": 7, "max_completion_tokens": 25,
            "user": "me", "metadata": {"a": "b"}, "store": false,
        });
        let answer = server.client.post("/v1/chat/completions", &request).unwrap().ok();
        assert_eq!(Some(&texts(&answer)[0]), expected.text.as_ref());
        assert_eq!(
            (&answer["object"], &answer["choices"][0]["message"]["role"]),
            (&json!("chat.completion"), &json!("assistant"))
        );

        let mut request = request;
        request["stream"] = true.into();
        request["stream_options"] = json!({"include_usage": true});
        let events = server.client.stream("/v1/chat/completions", &request).unwrap().events().unwrap();
        assert_eq!(streamed(&events, 1)[0].0, expected.text.unwrap());
        assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        let last = events.last().unwrap();
        assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(expected.ids.len())));
        assert_eq!(last["usage"]["prompt_tokens"], answer["usage"]["prompt_tokens"]);
        // The same conversation was there before: most of it is cached.
        assert!(
            last["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0
                || model.context() == usize::MAX
        );
    }
}

#[test]
fn stops_biases_and_penalties_do_what_they_do_in_process() {
    let model = attention();
    let server = Running::start(model.clone(), |_| {});
    let ask = |more: Value| {
        let mut request = json!({"prompt": "Once upon a time", "temperature": 0, "max_tokens": 40});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let whole = server.client.post("/v1/completions", &request).unwrap().ok();
        request["stream"] = true.into();
        let events = server.client.stream("/v1/completions", &request).unwrap().events().unwrap();
        let (text, reason) = streamed(&events, 1).remove(0);
        assert_eq!(
            (&json!(text), &json!(reason)),
            (&whole["choices"][0]["text"], &whole["choices"][0]["finish_reason"])
        );
        (text, reason)
    };
    let greedy = || options(&model, 0.0, 0, 40);
    let plain = alone(&model, "Once upon a time", greedy()).text.unwrap();
    let stop = &plain[8..11];
    let expected = alone(&model, "Once upon a time", greedy().stop(stop)).text.unwrap();
    assert!(expected.len() < plain.len());
    assert_eq!(ask(json!({"stop": stop})), (expected.clone(), "stop".into()));
    assert_eq!(ask(json!({"stop": ["never there", stop]})).0, expected);

    let first = model.session().generate("Once upon a time", greedy()).unwrap().next().unwrap().unwrap().token.unwrap();
    let biased = alone(&model, "Once upon a time", greedy().logit_bias(first, -100.0)).text.unwrap();
    assert_eq!(ask(json!({"logit_bias": {first.to_string(): -100}})).0, biased);
    assert_ne!(biased, plain);

    // The penalties, written out.
    let prompt = model.encode("Once upon a time", model.adds_bos()).unwrap().len();
    let penalty = move |tokens: &[u32], logits: &mut [f32]| {
        for (id, logit) in logits.iter_mut().enumerate() {
            let n = tokens[prompt..].iter().filter(|t| **t as usize == id).count() as f32;
            *logit -= if n > 0.0 { 0.5 + 1.5 * n } else { 0.0 };
        }
    };
    let penalised = alone(&model, "Once upon a time", greedy().processor(penalty)).text.unwrap();
    assert_eq!(ask(json!({"presence_penalty": 0.5, "frequency_penalty": 1.5})).0, penalised);
    assert_ne!(penalised, plain);
    assert_eq!(ask(json!({"top_k": 1, "temperature": 1.0})).0, plain);
}

#[test]
fn probabilities_are_the_models() {
    let model = ttt();
    let server = Running::start(model.clone(), |_| {});
    let expected = alone(&model, "The dog", options(&model, 0.0, 0, 12).logprobs(3));
    let request = json!({"prompt": "The dog", "temperature": 0, "max_tokens": 12, "logprobs": 3});
    let answer = server.client.post("/v1/completions", &request).unwrap().ok();
    let logprobs = &answer["choices"][0]["logprobs"];
    let told: Vec<f64> = logprobs["token_logprobs"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(told, expected.logprobs.iter().map(|l| l.logprob.unwrap()).collect::<Vec<_>>());
    let tokens: String = logprobs["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert_eq!(tokens, texts(&answer)[0]);
    assert_eq!((&logprobs["text_offset"][0], logprobs["top_logprobs"][0].as_object().unwrap().len()), (&json!(0), 3));
    // Offsets are characters, even if a character has several tokens: before ` x` there are as many as before it in the
    // text.
    let request = json!({"prompt": "The dog", "regex": "žluťoučký青空 x", "max_tokens": 60, "logprobs": 0});
    let answer = server.client.post("/v1/completions", &request).unwrap().ok();
    let logprobs = &answer["choices"][0]["logprobs"];
    let offsets: Vec<u64> = logprobs["text_offset"].as_array().unwrap().iter().map(|o| o.as_u64().unwrap()).collect();
    assert!(offsets.len() > 12 && offsets.is_sorted(), "{offsets:?}");
    let last = logprobs["tokens"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert_eq!(offsets.last().copied().unwrap() as usize + last.chars().count(), texts(&answer)[0].chars().count());

    let ids = model.encode_chat(&[Message::user("hi")]).unwrap();
    let expected =
        model.session().generate_ids(&ids, options(&model, 0.0, 0, 9).logprobs(2)).unwrap().finish().unwrap();
    let request = json!({"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 9,
        "logprobs": true, "top_logprobs": 2, "stream": true});
    let events = server.client.stream("/v1/chat/completions", &request).unwrap().events().unwrap();
    let entries: Vec<&Value> =
        events.iter().filter_map(|e| e["choices"][0]["logprobs"]["content"].as_array()).flatten().collect();
    let kept: Vec<_> = expected.logprobs.iter().filter(|l| !model.is_eos(l.token)).collect();
    assert_eq!(entries.len(), kept.len());
    for (entry, l) in entries.iter().zip(kept) {
        assert_eq!(entry["logprob"].as_f64(), l.logprob);
        let bytes = model.tokenizer().unwrap().token_bytes(l.token).unwrap();
        assert_eq!(entry["bytes"], json!(bytes));
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 2);
        assert_eq!(entry["top_logprobs"][0]["logprob"].as_f64(), Some(l.top[0].1));
    }
}

#[test]
fn an_echo_is_the_prompt_before_the_text_with_its_probabilities() {
    let model = attention();
    let server = Running::start(model.clone(), |_| {});
    let ask = |change: Value| {
        let mut request = json!({"prompt": PROMPTS[1], "temperature": 0.7, "seed": 4, "max_tokens": 12});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        server.client.post("/v1/completions", &request).unwrap().ok()
    };
    let plain = texts(&ask(json!({})))[0].clone();
    let whole = format!("{}{plain}", PROMPTS[1]);
    let echoed = ask(json!({"echo": true}));
    assert_eq!((&texts(&echoed)[0], &echoed["choices"][0]["logprobs"]), (&whole, &Value::Null));
    // The tokens of the prompt have the probabilities that a session gives them; nothing comes before the first.
    let ids = model.encode(PROMPTS[1], model.adds_bos()).unwrap();
    let mut session = model.session();
    session.feed_ids(&ids[..1]).unwrap();
    let expected = session.score_ids(&[ids[1..].to_vec()]).unwrap()[0].logprobs.clone();
    for prompt in [json!(ids), json!(PROMPTS[1])] {
        let is_text = prompt.is_string();
        let request = json!({"prompt": prompt, "echo": true, "logprobs": 2, "n": 2});
        let answer = ask(request.clone());
        for choice in answer["choices"].as_array().unwrap() {
            let logprobs = &choice["logprobs"];
            let hidden = usize::from(is_text && model.adds_bos());
            let told = logprobs["token_logprobs"].as_array().unwrap();
            let of_prompt: Vec<f64> =
                told[1 - hidden..ids.len() - hidden].iter().map(|v| v.as_f64().unwrap()).collect();
            assert_eq!(of_prompt, expected, "{prompt}");
            assert_eq!(told[0].is_null(), hidden == 0);
            assert_eq!(logprobs["top_logprobs"][0].is_null(), hidden == 0);
            assert_eq!(logprobs["top_logprobs"][1].as_object().unwrap().len(), 2);
            let counts = ["tokens", "top_logprobs", "text_offset"].map(|name| logprobs[name].as_array().unwrap().len());
            assert_eq!(counts, [told.len(); 3]);
            let offsets: Vec<u64> =
                logprobs["text_offset"].as_array().unwrap().iter().map(|o| o.as_u64().unwrap()).collect();
            assert!(offsets[0] == 0 && offsets.is_sorted(), "{offsets:?}");
            if is_text {
                assert!(choice["text"].as_str().unwrap().starts_with(PROMPTS[1]));
            }
        }
        assert_eq!(answer["usage"]["prompt_tokens"], ids.len());
        // A stream tells the same.
        let mut request = request;
        request.as_object_mut().unwrap().extend(
            json!({"temperature": 0.7, "seed": 4, "max_tokens": 12, "stream": true}).as_object().unwrap().clone(),
        );
        let events = server.client.stream("/v1/completions", &request).unwrap().events().unwrap();
        let told: Vec<String> = streamed(&events, 2).into_iter().map(|(text, _)| text).collect();
        assert_eq!(told, texts(&answer));
        let of_first: Vec<Value> = events
            .iter()
            .filter(|e| e["choices"][0]["index"] == 0)
            .filter_map(|e| e["choices"][0]["logprobs"]["token_logprobs"].as_array().cloned())
            .flatten()
            .collect();
        assert_eq!(json!(of_first), answer["choices"][0]["logprobs"]["token_logprobs"]);
    }
    // Only the probabilities, without a new token.
    let answer = ask(json!({"echo": true, "logprobs": 0, "max_tokens": 0}));
    assert_eq!((texts(&answer)[0].as_str(), &answer["choices"][0]["finish_reason"]), (PROMPTS[1], &json!("length")));
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    // All texts of an answer repeat so much at most.
    let server = Running::start(ttt(), |_| {});
    let request = json!({"prompt": vec![5; 5000], "echo": true, "n": 14, "max_tokens": 1});
    let refused = server.client.post("/v1/completions", &request).unwrap();
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("echo")));
}

#[test]
fn several_texts_come_under_their_numbers() {
    let model = ttt();
    let server = Running::start(model.clone(), |o| o.max_sessions = 2);
    let request = json!({"prompt": ["The cat", "The dog"], "n": 3, "seed": 5, "temperature": 1, "max_tokens": 10});
    let answer = server.client.post("/v1/completions", &request).unwrap().ok();
    let expected: Vec<Output> =
        (0..6).map(|i| alone(&model, ["The cat", "The dog"][i / 3], options(&model, 1.0, 5 + i as u64, 10))).collect();
    let own: Vec<String> = expected.iter().map(|o| o.text.clone().unwrap()).collect();
    assert_eq!(texts(&answer), own);
    // A prompt counts once, however many texts follow it.
    let prompts = ["The cat", "The dog"].map(|p| model.encode(p, model.adds_bos()).unwrap().len());
    assert_eq!(answer["usage"]["prompt_tokens"], prompts[0] + prompts[1]);
    assert_eq!(answer["usage"]["completion_tokens"], expected.iter().map(|o| o.ids.len()).sum::<usize>());
    let mut request = request;
    request["stream"] = true.into();
    let events = server.client.stream("/v1/completions", &request).unwrap().events().unwrap();
    assert_eq!(streamed(&events, 6).into_iter().map(|s| s.0).collect::<Vec<_>>(), own);
    // Tokens instead of text.
    let ids = model.encode("The cat", model.adds_bos()).unwrap();
    for prompt in [json!(ids), json!([ids])] {
        let request = json!({"prompt": prompt, "seed": 5, "temperature": 1, "max_tokens": 10});
        assert_eq!(texts(&server.client.post("/v1/completions", &request).unwrap().ok()), own[..1]);
    }
}

#[test]
fn vectors_are_the_models() {
    let model = attention();
    let server = Running::start(model.clone(), |_| {});
    let words = ["a big dog", "they went home and slept", "x"];
    let expected = model.embed(words, EmbedOptions::default()).unwrap();
    let request = json!({"input": words, "encoding_format": "float", "model": "tinystories-5m"});
    let answer = server.client.post("/v1/embeddings", &request).unwrap().ok();
    let of = |i: usize| -> Vec<f32> {
        answer["data"][i]["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    };
    assert_eq!((0..3).map(of).collect::<Vec<_>>(), expected);
    let tokens: usize = words.iter().map(|w| model.encode(w, model.adds_bos()).unwrap().len()).sum();
    assert_eq!(answer["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    // One text, as text; many, in several passes.
    let one =
        server.client.post("/v1/embeddings", &json!({"input": words[1], "encoding_format": "base64"})).unwrap().ok();
    let digits = one["data"][0]["embedding"].as_str().unwrap();
    assert_eq!(digits.len(), (expected[1].len() * 4).div_ceil(3) * 4);
    let many = vec!["They went home and then they slept until the next morning came."; 60];
    let all = server.client.post("/v1/embeddings", &json!({"input": many})).unwrap().ok();
    assert_eq!(all["data"].as_array().unwrap().len(), 60);
    assert!(all["data"].as_array().unwrap().iter().all(|d| d["embedding"] == all["data"][0]["embedding"]));
}

#[cfg(feature = "constrain")]
/// An answer that its limit cuts within a character ends before it, whole and streamed.
#[test]
fn a_limit_cuts_no_character() {
    let path = test_support::workspace_dir().join("models/tiny-ja-ttt.gguf");
    let model = Model::builder().threads(1).load(path).unwrap();
    let server = Running::start(model.clone(), |_| {});
    let prompt = "吾輩は猫である。";
    let mut divided = 0;
    for n in 1..=12 {
        let expected = alone(&model, prompt, options(&model, 1.0, 2, n));
        divided += usize::from(!expected.incomplete.is_empty());
        let mut request = json!({"prompt": prompt, "temperature": 1.0, "seed": 2, "max_tokens": n});
        let answer = server.client.post("/v1/completions", &request).unwrap().ok();
        assert_eq!(Some(&texts(&answer)[0]), expected.text.as_ref());
        request["stream"] = true.into();
        let events = server.client.stream("/v1/completions", &request).unwrap().events().unwrap();
        assert!(events.iter().all(|e| !e.to_string().contains('\u{fffd}')), "{events:?}");
        assert_eq!(streamed(&events, 1), [(expected.text.unwrap(), "length".to_owned())]);
    }
    assert!(divided >= 2, "{divided} texts were cut within a character");
}

#[test]
fn a_schema_is_kept_and_characters_are_never_cut() {
    for model in [ttt(), attention()] {
        let server = Running::start(model.clone(), |_| {});
        let schema = json!({"type": "object", "properties": {
            "name": {"const": "青空文庫 – žluťoučký 🎈🐈"}, "age": {"type": "integer", "minimum": 1, "maximum": 99},
        }, "required": ["name", "age"], "additionalProperties": false});
        let format =
            json!({"type": "json_schema", "json_schema": {"name": "animal", "strict": true, "schema": schema}});
        let request =
            json!({"messages": [{"role": "user", "content": "A cat?"}], "response_format": format, "seed": 1});
        let answer = server.client.post("/v1/chat/completions", &request).unwrap().ok();
        let value: Value = serde_json::from_str(&texts(&answer)[0]).unwrap();
        assert_eq!(
            (&value["name"], &answer["choices"][0]["finish_reason"]),
            (&json!("青空文庫 – žluťoučký 🎈🐈"), &json!("stop"))
        );
        assert!((1..=99).contains(&value["age"].as_u64().unwrap()));

        let mut request = request;
        request["stream"] = true.into();
        let events = server.client.stream("/v1/chat/completions", &request).unwrap().events().unwrap();
        assert!(events.iter().all(|e| !e.to_string().contains('\u{fffd}')));
        assert_eq!(streamed(&events, 1)[0].0, texts(&answer)[0]);
        // An answer that is cut off reports it.
        request["stream"] = false.into();
        request["max_tokens"] = 5.into();
        let cut = server.client.post("/v1/chat/completions", &request).unwrap().ok();
        assert_eq!(cut["choices"][0]["finish_reason"], "length");
        assert!(texts(&answer)[0].starts_with(&texts(&cut)[0]));
        let object =
            json!({"prompt": "A cat: ", "response_format": {"type": "json_object"}, "max_tokens": 60, "seed": 1});
        let answer = server.client.post("/v1/completions", &object).unwrap().ok();
        assert!(texts(&answer)[0].starts_with('{'));
        for (field, value) in [("regex", "(ab|cd)+e"), ("grammar", "start: (\"ab\" | \"cd\")+ \"e\"")] {
            let request = json!({"prompt": "A cat: ", field: value, "max_tokens": 60, "seed": 1, "logit_bias": {}});
            let text = texts(&server.client.post("/v1/completions", &request).unwrap().ok()).remove(0);
            let words = text.strip_suffix('e').unwrap().replace("ab", "").replace("cd", "");
            assert!(words.is_empty() && text.len() > 2, "{text:?}");
        }
    }
}

/// The same requests, one after the other and all at once by many clients, on fewer places than clients.
#[test]
fn many_clients_get_the_texts_that_each_would_get_alone() {
    for model in [ttt(), attention()] {
        let server = Running::start(model.clone(), |o| o.max_sessions = 5);
        let one = |i: usize| {
            let prompt = format!("{} number {i}", PROMPTS[i % 3]);
            let request = json!({"prompt": prompt, "seed": i, "temperature": 0.8, "max_tokens": 10 + i});
            let expected = alone(&model, &prompt, options(&model, 0.8, i as u64, 10 + i)).text.unwrap();
            (request, expected)
        };
        let cases: Vec<(Value, String)> = (0..24).map(one).collect();
        std::thread::scope(|scope| {
            let client = &server.client;
            let asked: Vec<_> = cases
                .iter()
                .enumerate()
                .map(|(i, (request, _))| {
                    scope.spawn(move || {
                        if i % 2 == 0 {
                            return texts(&client.post("/v1/completions", request).unwrap().ok()).remove(0);
                        }
                        let mut request = request.clone();
                        request["stream"] = true.into();
                        let events = client.stream("/v1/completions", &request).unwrap().events().unwrap();
                        streamed(&events, 1).remove(0).0
                    })
                })
                .collect();
            for (thread, (request, expected)) in asked.into_iter().zip(&cases) {
                assert_eq!(&thread.join().unwrap(), expected, "{request}");
            }
        });
        // Fewer passes than tokens: they went together.
        assert!(server.metric("bitnet_steps_total") < 0.5 * server.metric("bitnet_generated_tokens_total"));
        assert_eq!(server.metric("bitnet_active_sequences"), 0.0);
    }
}
