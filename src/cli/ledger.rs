//! Which inputs of a run are where: being read, to be sent, sent, answered, handed on.
//!
//! It does no I/O. Inputs are named by their position, which is also their tag on the wire. Answers come in
//! any order and are handed on in input order, so an answer may have to wait for earlier ones. At most
//! `window` inputs are between the first that was not handed on and the last that was begun, and no input is
//! begun while those without an answer hold [`MAX_BYTES`] or more.

use std::collections::{BTreeMap, VecDeque};

use crate::grpc::proto::Embedding;
use crate::grpc::proto::input::Content;

/// Inputs held for sending them again; what is being read comes on top.
const MAX_BYTES: usize = 64 << 20;

/// Files read at a time: hides the latency of a disk behind a network.
const MAX_READS: usize = 4;

/// Times that the server may put one input off.
const MAX_PUT_OFF: u32 = 2;

/// A result, or the reason why there is none.
pub(crate) type Answer = Result<Embedding, String>;

pub(super) struct Ledger {
    total: usize,
    window: usize,
    /// Inputs before this one were begun.
    begun: usize,
    /// Inputs before this one were handed on.
    handed_on: usize,
    reading: usize,
    to_send: VecDeque<usize>,
    /// Read, and without an answer.
    open: BTreeMap<usize, Open>,
    /// Those of `open` that the present stream has.
    sent: usize,
    open_bytes: usize,
    answered: BTreeMap<usize, Answer>,
    /// Answers of the server so far.
    progress: u64,
}

struct Open {
    content: Content,
    bytes: usize,
    put_off: u32,
    is_sent: bool,
}

impl Ledger {
    pub(super) fn new(total: usize, window: usize) -> Ledger {
        Ledger {
            total,
            window,
            begun: 0,
            handed_on: 0,
            reading: 0,
            to_send: VecDeque::new(),
            open: BTreeMap::new(),
            sent: 0,
            open_bytes: 0,
            answered: BTreeMap::new(),
            progress: 0,
        }
    }

    /// The next input to read, if there is room for it.
    pub(super) fn begin(&mut self) -> Option<usize> {
        if !self.may_begin() {
            return None;
        }
        self.begun += 1;
        self.reading += 1;
        Some(self.begun - 1)
    }

    fn may_begin(&self) -> bool {
        self.begun < self.total.min(self.handed_on + self.window)
            && self.open_bytes < MAX_BYTES
            && self.reading < MAX_READS
    }

    pub(super) fn loaded(&mut self, input: usize, content: Result<Content, String>) {
        self.reading -= 1;
        match content {
            Ok(content) => {
                let bytes = held_bytes(&content);
                self.open_bytes += bytes;
                self.open.insert(input, Open { content, bytes, put_off: 0, is_sent: false });
                self.to_send.push_back(input);
            }
            Err(reason) => {
                self.answered.insert(input, Err(reason));
            }
        }
    }

    pub(super) fn has_to_send(&self) -> bool {
        !self.to_send.is_empty()
    }

    pub(super) fn send(&mut self) -> Option<(usize, Content)> {
        let input = self.to_send.pop_front()?;
        let open = self.open.get_mut(&input)?;
        open.is_sent = true;
        self.sent += 1;
        Some((input, open.content.clone()))
    }

    /// A new stream: everything without an answer is to be sent, in order.
    pub(super) fn reopen(&mut self) {
        self.sent = 0;
        for open in self.open.values_mut() {
            open.is_sent = false;
        }
        self.to_send = self.open.keys().copied().collect();
    }

    /// Whether the present stream needs no more messages: all was sent, or what is left are inputs that
    /// wait for the next stream.
    pub(super) fn may_half_close(&self) -> bool {
        let nothing_comes = self.to_send.is_empty() && self.reading == 0 && !self.may_begin();
        nothing_comes && (self.begun == self.total || self.sent == 0)
    }

    /// A final answer. One that nobody waits for is ignored.
    pub(super) fn answer(&mut self, input: usize, answer: Answer) {
        if let Some(open) = self.open.remove(&input) {
            self.open_bytes -= open.bytes;
            self.sent -= usize::from(open.is_sent);
            self.to_send.retain(|waiting| *waiting != input);
            self.answered.insert(input, answer);
            self.progress += 1;
        }
    }

    /// The server could not answer this time; the next stream has the input again, a few times.
    pub(super) fn put_off(&mut self, input: usize, reason: String) {
        match self.open.get_mut(&input) {
            Some(open) if open.put_off < MAX_PUT_OFF => {
                open.put_off += 1;
                self.sent -= usize::from(open.is_sent);
                open.is_sent = false;
            }
            _ => self.answer(input, Err(reason)),
        }
    }

    /// The next answer in input order, if it is there.
    pub(super) fn hand_on(&mut self) -> Option<(usize, Answer)> {
        let answer = self.answered.remove(&self.handed_on)?;
        self.handed_on += 1;
        Some((self.handed_on - 1, answer))
    }

    pub(super) fn is_complete(&self) -> bool {
        self.handed_on == self.total
    }

    /// Grows with every answer of the server.
    pub(super) fn progress(&self) -> u64 {
        self.progress
    }
}

/// Bytes of the picture or text itself.
pub(super) fn held_bytes(content: &Content) -> usize {
    use crate::grpc::proto::image::Source;
    match content {
        Content::Text(text) => text.len(),
        Content::Image(image) => match &image.source {
            Some(Source::Encoded(bytes)) => bytes.len(),
            Some(Source::Rgb(rgb)) => rgb.pixels.len(),
            None => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Result<Content, String> {
        Ok(Content::Text("x".repeat(bytes)))
    }

    fn load_all(ledger: &mut Ledger) -> Vec<usize> {
        let mut begun = Vec::new();
        while let Some(input) = ledger.begin() {
            ledger.loaded(input, text(1));
            begun.push(input);
        }
        begun
    }

    fn send_all(ledger: &mut Ledger) -> Vec<usize> {
        std::iter::from_fn(|| ledger.send()).map(|(input, _)| input).collect()
    }

    fn handed_on(ledger: &mut Ledger) -> Vec<usize> {
        std::iter::from_fn(|| ledger.hand_on()).map(|(input, _)| input).collect()
    }

    #[test]
    fn answers_in_any_order_are_handed_on_in_order_within_the_window() {
        let mut ledger = Ledger::new(6, 3);
        assert_eq!(load_all(&mut ledger), [0, 1, 2]);
        assert_eq!(send_all(&mut ledger), [0, 1, 2]);
        ledger.answer(2, Ok(Embedding::default()));
        ledger.answer(1, Ok(Embedding::default()));
        assert!(handed_on(&mut ledger).is_empty() && load_all(&mut ledger).is_empty());
        ledger.answer(0, Ok(Embedding::default()));
        assert_eq!(handed_on(&mut ledger), [0, 1, 2]);
        assert!(!ledger.may_half_close());
        assert_eq!(load_all(&mut ledger), [3, 4, 5]);
        assert_eq!(send_all(&mut ledger), [3, 4, 5]);
        assert!(ledger.may_half_close() && !ledger.is_complete());
        for input in [5, 3, 4] {
            ledger.answer(input, Ok(Embedding::default()));
        }
        assert_eq!(handed_on(&mut ledger), [3, 4, 5]);
        assert!(ledger.is_complete());
    }

    #[test]
    fn a_new_stream_gets_what_has_no_answer() {
        let mut ledger = Ledger::new(4, 4);
        load_all(&mut ledger);
        assert_eq!(ledger.send().map(|(input, _)| input), Some(0));
        assert_eq!(ledger.send().map(|(input, _)| input), Some(1));
        ledger.answer(1, Ok(Embedding::default()));
        ledger.reopen();
        assert_eq!(send_all(&mut ledger), [0, 2, 3]);
        // Late, twice, and of no input: nothing happens.
        ledger.answer(1, Ok(Embedding::default()));
        ledger.answer(9, Ok(Embedding::default()));
        assert_eq!(ledger.progress(), 1);
    }

    #[test]
    fn an_input_is_put_off_twice() {
        let mut ledger = Ledger::new(9, 2);
        load_all(&mut ledger);
        for _ in 0..MAX_PUT_OFF {
            ledger.reopen();
            assert_eq!(send_all(&mut ledger)[0], 0);
            ledger.answer(1, Ok(Embedding::default()));
            assert!(!ledger.may_half_close());
            ledger.put_off(0, "lost".into());
            // The window is stuck behind input 0: this stream has nothing left to do.
            assert!(ledger.may_half_close() && handed_on(&mut ledger).is_empty());
        }
        ledger.reopen();
        assert_eq!(send_all(&mut ledger), [0]);
        ledger.put_off(0, "lost".into());
        assert_eq!(ledger.hand_on(), Some((0, Err("lost".into()))));
        assert_eq!(ledger.hand_on(), Some((1, Ok(Embedding::default()))));
        assert!(!ledger.may_half_close(), "there is room again");
    }

    #[test]
    fn large_inputs_fill_the_memory_before_the_window() {
        let mut ledger = Ledger::new(100, 100);
        for expected in 0..2 {
            assert_eq!(ledger.begin(), Some(expected));
            ledger.loaded(expected, text(MAX_BYTES / 2));
        }
        assert_eq!(ledger.begin(), None);
        ledger.answer(1, Ok(Embedding::default()));
        let reads: Vec<usize> = std::iter::from_fn(|| ledger.begin()).collect();
        assert_eq!(reads, [2, 3, 4, 5], "at most {MAX_READS} at a time");
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_its_place() {
        let mut ledger = Ledger::new(2, 2);
        assert_eq!((ledger.begin(), ledger.begin()), (Some(0), Some(1)));
        ledger.loaded(1, Err("no such file".into()));
        assert_eq!(ledger.hand_on(), None);
        ledger.loaded(0, Err("no such file".into()));
        assert_eq!(handed_on(&mut ledger), [0, 1]);
        assert!(ledger.is_complete() && ledger.may_half_close());
    }
}
