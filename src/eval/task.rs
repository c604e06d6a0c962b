//! What the two tasks have in common: queries, their answers, and a line for each in the report.

use super::matrix::Standing;
use super::measure::Measure;

/// What is asked, by its position in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Query {
    Picture(usize),
    Text(usize),
}

impl Query {
    pub(super) fn position(self) -> usize {
        match self {
            Query::Picture(position) | Query::Text(position) => position,
        }
    }
}

/// One query's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) query: Query,
    /// What came first: a class, or a caption or picture by its position in the data.
    pub(super) first: usize,
    /// Of the best right answer, from 1; 0: there is no right one.
    pub(super) rank: usize,
    /// The best right score less the best wrong one.
    pub(super) margin: f32,
    /// Of what came first: its probability among classes, or its cosine.
    pub(super) score: f32,
}

impl Line {
    pub(super) fn new(query: Query, standing: Standing, score: f32) -> Line {
        let Standing { first, rank, margin } = standing;
        Line { query, first, rank, margin, score }
    }
}

/// Figures of one run, and what they are made of.
pub(super) struct Evaluated<'a> {
    /// The first one is what `--max-loss` is about.
    pub(super) measures: Vec<Measure<'a>>,
    pub(super) lines: Vec<Line>,
    /// Class by class; of captions there are none.
    pub(super) groups: Vec<Group>,
}

/// The pictures of one class.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) inputs: usize,
    /// Right at first, and among the first five.
    pub(super) hits: usize,
    pub(super) hits_of_five: usize,
    /// Where pictures have several classes.
    pub(super) average_precision: Option<f64>,
}

impl Group {
    pub(super) fn new(name: &str) -> Group {
        Group { name: name.to_owned(), ..Group::default() }
    }

    pub(super) fn add(&mut self, line: &Line) {
        self.inputs += 1;
        self.hits += usize::from(line.rank == 1);
        self.hits_of_five += usize::from((1..=5).contains(&line.rank));
    }
}
