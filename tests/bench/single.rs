//! What one core does outside the engine for one text, and for the scores of one picture.

use std::fmt::Display;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use clipd::clip::classifier::{Classifier, Coefficient, Logits};
use clipd::clip::embedding::normalize;
use clipd::clip::spec::Scores;
use clipd::clip::text::TextTokenizer;
use clipd::clock::Clock;
use clipd::model::Model;
use clipd::model::graph::Form;

use crate::bench::percentile;
use crate::rng::Rng;

const CAPTION: &str = "A small brown dog runs over a wet meadow after a yellow ball.";

/// Most embeddings have 512 numbers.
const DIM: NonZeroUsize = NonZeroUsize::new(512).expect("it is not zero");

pub(crate) fn inputs() {
    println!("| input | per second and core | median |");
    println!("|---|---|---|");
    texts();
    for labels in [1_000, 20_000] {
        scores(labels);
    }
}

fn texts() {
    let model = Model::builtin(Form::PORTABLE).expect("it is embedded");
    let spec = model.spec.text.expect("it has a text encoder");
    let tokenizer = TextTokenizer::new(&model.tokenizer_json, &spec, 65_536).expect("it fits");
    measure("caption of 61 characters", || tokenizer.encode(CAPTION).expect("it is a text"));
}

/// What a classification with cached labels adds to an embedding.
fn scores(labels: usize) {
    let mut rng = Rng::new(labels as u64);
    let mut unit = || {
        let mut row: Vec<f32> = (0..DIM.get()).map(|_| rng.between(-1.0, 1.0) as f32).collect();
        normalize(&mut row).expect("it is not zero");
        row
    };
    let rows: Vec<f32> = (0..labels).flat_map(|_| unit()).collect();
    let names: Arc<[String]> = (0..labels).map(|label| label.to_string()).collect();
    let (scale, bias) = (Coefficient::Shared(100.0), Coefficient::Shared(0.0));
    let logits = Logits { scale, bias, scores: Scores::Softmax };
    let classifier = Classifier::from_unit_rows(names, DIM, rows, logits).expect("rows are of length 1");
    for images in [1, 8] {
        let embeddings: Vec<Vec<f32>> = (0..images).map(|_| unit()).collect();
        measure(&format!("scores of {labels} labels for {images}, the best five"), || {
            classifier.classify(&embeddings, NonZeroUsize::new(5))
        });
    }
}

fn measure<T>(input: &(impl Display + ?Sized), mut run: impl FnMut() -> T) {
    const SPAN: Duration = Duration::from_secs(2);
    let clock = Clock::start();
    let mut times = Vec::new();
    while clock.now().since(Default::default()) < SPAN {
        let start = clock.now();
        black_box(run());
        times.push(clock.now().since(start));
    }
    let median = percentile(&mut times, 0.5).as_secs_f64();
    println!("| {input} | {:.0} | {:.3} ms |", 1.0 / median, median * 1e3);
}
