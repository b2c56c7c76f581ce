//! Training on windows of several documents: each is a text of its own.

use bitnet_model::train::{
    Batch, CandleLearner, FusedLearner, GIVEN, Learner, Params, Random, Sampler, TokenFile, TokenWidth, TokenWriter,
    TrainConfig, TrainError,
};
use bitnet_model::{Mixer, ModelConfig};
use candle_core::Device;

/// Ends a document.
const END: u32 = 0;
/// Predictions of a window: more than a block of attention and several mini-batches.
const T: usize = 150;

fn model(mixers: &[Mixer]) -> ModelConfig {
    let mut c = ModelConfig::new(64, 32, 64, mixers.len(), 4, 2);
    c.max_position_embeddings = 256;
    c.mixers = mixers.to_vec();
    if c.has_ttt() {
        (c.ttt.share_qk, c.ttt.use_gate, c.ttt.pre_conv, c.ttt.decay) = (true, true, true, true);
        c.ttt.mini_batch_size = 8;
    }
    (c.delta.state_size, c.delta.key_heads, c.delta.value_heads) = (8, 2, 4);
    c
}

/// Documents that fill a window and end with the token that ends documents: of one token, of less than a mini-batch, of
/// exactly as many as one, and of more than a block of attention.
fn documents() -> Vec<Vec<u32>> {
    let mut random = Random::new(4, "documents");
    let lens = [1, 6, 8, 9, 17, 1, 33, 76];
    assert_eq!(lens.iter().sum::<usize>(), T + 1);
    lens.iter().map(|len| (1..*len).map(|_| 1 + random.below(63) as u32).chain([END]).collect()).collect()
}

/// Loss and gradient of a batch; the loss without gradient has to be the same.
fn learn(learner: &mut FusedLearner, params: &Params, batch: &Batch) -> (f64, Vec<f32>) {
    let mut grads = vec![0.0f32; params.values.len()];
    let loss = learner.accumulate(params, batch, &mut grads).unwrap();
    assert_eq!(loss, learner.loss(params, batch).unwrap(), "the loss without gradient");
    (loss, grads)
}

/// Loss and gradients of what one document of the window predicts: bit for bit those of the document alone, for every
/// mixer. Rows of other documents add zeros to sums, which keep their order.
#[test]
fn a_document_in_a_window_has_its_loss_alone() {
    use Mixer::{Attention, GatedDelta, TttLinear, TttMlp};
    let all = [&[Attention, Attention][..], &[TttLinear, Attention], &[TttMlp, TttLinear], &[GatedDelta, GatedDelta]];
    for mixers in all {
        let c = model(mixers);
        let params = Params::init(&c, 5, 0.1).unwrap();
        let mut learner = FusedLearner::new(&c, 1).unwrap();
        let documents = documents();
        let whole = Batch::new(documents.concat(), 1, T).unwrap();
        let (mut begin, mut across) = (0, 0);
        for document in &documents {
            let (first, end) = (begin, begin + document.len());
            begin = end;
            if document.len() < 2 {
                continue;
            }
            let mut window = whole.clone().apart(END);
            let mut joined = whole.clone();
            for batch in [&mut window, &mut joined] {
                batch.give(0, 0..first + 1);
                batch.give(0, end..T + 1);
            }
            let alone = Batch::new(document.clone(), 1, document.len() - 1).unwrap();
            let alone = learn(&mut learner, &params, &alone);
            let (loss, grads) = learn(&mut learner, &params, &window);
            assert_eq!(loss, alone.0, "{mixers:?}: the document from {first} on");
            let differs = grads.iter().zip(&alone.1).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{mixers:?}: a gradient of the document from {first} on");
            across += usize::from(learner.loss(&params, &joined).unwrap() != loss);
        }
        // All but the first that has a prediction: before it is one token, which is read, too.
        assert!(across >= 5, "{mixers:?}: {across} documents differ where windows are one text");
    }
}

/// A window teaches its documents and no more: losses add up, and so do gradients.
#[test]
fn documents_add_up_to_their_window() {
    let c = model(&[Mixer::TttLinear, Mixer::Attention]);
    let params = Params::init(&c, 5, 0.1).unwrap();
    let mut learner = FusedLearner::new(&c, 2).unwrap();
    let ids = [documents().concat(), documents().concat()].concat();
    let window = Batch::new(ids, 2, T).unwrap().apart(END);
    assert_eq!((window.texts(0), window.texts(1).len()), (vec![1, 6, 8, 9, 17, 1, 33, 75], 8));
    // Of 151 tokens the first of each document is not predicted.
    assert_eq!(window.predictions(), 2 * (T + 1 - 8));
    let (loss, grads) = learn(&mut learner, &params, &window);
    let (mut sum, mut of_all) = (0.0, vec![0.0f64; grads.len()]);
    for document in documents().into_iter().filter(|d| d.len() > 1) {
        let n = document.len() - 1;
        let (loss, grads) = learn(&mut learner, &params, &Batch::new(document, 1, n).unwrap());
        sum += loss * n as f64;
        of_all.iter_mut().zip(&grads).for_each(|(sum, g)| *sum += f64::from(*g) * n as f64);
    }
    let n = (T + 1 - 8) as f64;
    assert!((loss - sum / n).abs() < 1e-9, "{loss} and {}", sum / n);
    let norm = of_all.iter().map(|g| (g / n).powi(2)).sum::<f64>().sqrt();
    let off = grads.iter().zip(&of_all).map(|(g, sum)| (f64::from(*g) - sum / n).powi(2)).sum::<f64>().sqrt();
    // Some thousand roundings of 6e-8 each, of sums in another order.
    assert!(off < 1e-5 * norm, "gradients differ by {off} of {norm}");

    let of_candle = CandleLearner::new(&c, &Device::Cpu).unwrap().loss(&params, &window).unwrap();
    assert!((of_candle - loss).abs() < 1e-3 * loss, "candle: {of_candle} instead of {loss}");
}

#[test]
fn ends_in_prompts_and_at_the_end_of_a_window_part_nothing() {
    let ids = vec![3, END | GIVEN, 4, END, 5, END];
    let batch = Batch::new(ids, 1, 5).unwrap().apart(END);
    assert_eq!(batch.texts(0), [4, 1]);
    // 4 and the two ends: 5 begins a document.
    assert_eq!(batch.predictions(), 3);
    let batch = Batch::new(vec![1, 2, 3, 1, 2, 3], 2, 2).unwrap().apart(END);
    assert_eq!((batch.texts(1), batch.predictions()), (vec![2], 4));
    // Runs of earlier versions go on as they began.
    let old: TrainConfig = serde_json::from_str("{\"steps\": 3}").unwrap();
    assert_eq!(old.document_end, None);
}

/// An epoch holds every document once, whole where it fits, and every part of those that are longer; a batch holds
/// about as many tokens as its windows would, and nothing else. It is learned as its documents.
#[test]
fn batches_of_whole_documents() {
    let mut random = Random::new(8, "whole");
    let documents: Vec<Vec<u32>> = (0..200)
        .map(|i| {
            let len = if i == 7 { 130 } else { 1 + random.below(40) as usize };
            (1..len).map(|_| 1 + random.below(63) as u32).chain([END]).collect()
        })
        .collect();
    let path = std::env::temp_dir().join(format!("bitnet-whole-{}.u16", std::process::id()));
    let mut out = TokenWriter::create(&path, TokenWidth::U16).unwrap();
    out.write(&documents.concat()).unwrap();
    // The beginning of a document that the file cuts off.
    out.write(&[9, 8, 7]).unwrap();
    out.finish().unwrap();
    let open = |end| {
        let mut file = TokenFile::open(&path, TokenWidth::U16).unwrap();
        file.set_document_end(end);
        file
    };
    let t = 60;
    let mut expected: Vec<Vec<u32>> = vec![vec![9, 8, 7]];
    for d in documents.iter().filter(|d| d.len() > 1) {
        match d.len() {
            // 131 tokens or less: two parts of 61, the second of which begins with the last token of the first.
            130 => expected.extend([d[..61].to_vec(), d[60..121].to_vec(), d[120..].to_vec()]),
            _ => expected.push(d.clone()),
        }
    }
    let mut sampler = Sampler::of_documents(open(Some(END)), t, 3).unwrap();
    assert_eq!(sampler.epoch_len(), expected.len() as u64);
    let (mut drawn, mut tokens, mut batches) = (Vec::new(), 0, 0);
    while sampler.position < sampler.epoch_len() {
        let batch = sampler.next_batch(4).unwrap();
        let mut lens = batch.texts(0);
        *lens.last_mut().unwrap() += 1;
        assert_eq!((batch.b, lens.iter().sum::<usize>()), (1, batch.ids.len()));
        assert_eq!(batch.predictions(), batch.ids.len() - lens.len());
        let mut rest = &batch.ids[..];
        for len in lens {
            drawn.push(rest.split_off(..len).unwrap().to_vec());
        }
        tokens += batch.ids.len();
        batches += 1;
        assert!(batch.ids.len().abs_diff(4 * t) <= 31, "{} tokens", batch.ids.len());
    }
    assert!(tokens.abs_diff(batches * 4 * t) <= 40 * 4, "{tokens} tokens in {batches} batches");
    drawn.truncate(expected.len());
    assert_ne!(drawn, expected);
    drawn.sort();
    expected.sort();
    assert_eq!(drawn, expected);

    let mut c = model(&[Mixer::TttLinear, Mixer::Attention]);
    c.max_position_embeddings = 61;
    let params = Params::init(&c, 5, 0.1).unwrap();
    let mut learner = FusedLearner::new(&c, 2).unwrap();
    let texts: Vec<&Vec<u32>> = documents.iter().filter(|d| (2..=61).contains(&d.len())).take(12).collect();
    let lens: Vec<usize> = texts.iter().map(|d| d.len()).collect();
    let ids = texts.iter().flat_map(|d| d.iter().copied()).collect();
    // Longer than the model's positions in all, but no text is.
    let (loss, _) = learn(&mut learner, &params, &Batch::of_texts(ids, &lens).unwrap());
    let mut sum = 0.0;
    for d in &texts {
        let n = d.len() - 1;
        sum += n as f64 * learner.loss(&params, &Batch::new((*d).clone(), 1, n).unwrap()).unwrap();
    }
    let n = lens.iter().map(|len| len - 1).sum::<usize>() as f64;
    assert!((loss - sum / n).abs() < 1e-9, "{loss} and {}", sum / n);

    let refused = [Sampler::of_documents(open(None), t, 3), Sampler::of_documents(open(Some(64)), t, 3)];
    let [none, joined] = refused;
    assert!(matches!(none.unwrap_err(), TrainError::NothingToLearn { .. }));
    // Without ends it is one document.
    assert!(joined.unwrap().epoch_len() > 50);
    assert!(matches!(Batch::of_texts(vec![1, 2, 3], &[2, 1]), Err(TrainError::Mismatch { .. })));
    std::fs::remove_file(path).ok();
}
