//! Captions and labels for those who bring none.
//!
//! Pure: the same seed, the same words. Captions are sentences about pictures as in COCO, with a median of about
//! 12 tokens, start and end tokens included; labels are all different.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

const ADJECTIVES: [&str; 20] = [
    "black", "white", "brown", "small", "large", "grey", "young", "wooden", "red", "green", "blue", "yellow",
    "wet", "bright", "plain", "quiet", "tall", "striped", "round", "sleepy",
];

const NOUNS: [&str; 40] = [
    "dog", "cat", "horse", "bird", "woman", "man", "child", "bicycle", "car", "bus", "train", "boat",
    "plane", "bench", "table", "chair", "bottle", "cup", "fork", "bowl", "banana", "pear", "burger", "pizza",
    "cake", "sofa", "bed", "laptop", "phone", "stove", "clock", "vase", "kite", "canoe", "lamp", "camel",
    "zebra", "giraffe", "sheep", "cow",
];

const VERBS: [&str; 10] =
    ["standing", "sitting", "lying", "waiting", "resting", "parked", "seen", "left", "moving", "leaning"];

const PLACES: [&str; 10] =
    ["on", "near", "beside", "behind", "under", "in front of", "next to", "close to", "across from", "above"];

/// `a black dog sitting near a table and a cup`, shorter or longer.
pub(super) fn captions(count: usize, seed: u64) -> Vec<String> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..count).map(|_| caption(&mut rng)).collect()
}

fn caption(rng: &mut impl Rng) -> String {
    let mut words = vec![thing(rng), pick(&VERBS, rng), pick(&PLACES, rng), thing(rng)];
    if rng.random_bool(0.5) {
        words.extend(["and".to_owned(), thing(rng)]);
    }
    words.join(" ")
}

fn thing(rng: &mut impl Rng) -> String {
    let noun = pick(&NOUNS, rng);
    if rng.random_bool(0.7) { format!("a {} {noun}", pick(&ADJECTIVES, rng)) } else { format!("a {noun}") }
}

fn pick(words: &[&str], rng: &mut impl Rng) -> String {
    words.choose(rng).copied().unwrap_or_default().to_owned()
}

/// `black dog`, `white dog`, ...; a number tells those apart that come after all pairs.
pub(super) fn labels(count: usize) -> Vec<String> {
    let label = |index: usize| {
        let (adjective, index) = (ADJECTIVES[index % ADJECTIVES.len()], index / ADJECTIVES.len());
        let (noun, round) = (NOUNS[index % NOUNS.len()], index / NOUNS.len());
        if round == 0 { format!("{adjective} {noun}") } else { format!("{adjective} {noun} {round}") }
    };
    (0..count).map(label).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn captions_have_the_length_of_captions() {
        let captions = captions(1000, 1);
        let mut words: Vec<usize> = captions.iter().map(|caption| caption.split(' ').count()).collect();
        words.sort_unstable();
        // With start and end token, and a token per word.
        assert_eq!(words[500] + 2, 12, "{:?}", &captions[..5]);
        assert!(words[0] >= 6 && words[999] <= 16);
        assert_eq!(captions[..10], super::captions(10, 1));
        assert_ne!(captions[..10], super::captions(10, 2));
    }

    #[test]
    fn labels_differ() {
        let labels = labels(20_000);
        assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), 20_000);
        assert_eq!(labels[..2], ["black dog", "white dog"]);
    }
}
