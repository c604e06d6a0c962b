//! Parses flag values and collects what is wrong, so that all of it is reported at once.
//!
//! After a problem a parser returns some valid value, so that parsing goes on; `into_result` throws it away.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;

use crate::engine::choice::DeviceChoice;

#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, Vec<String>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    pub(super) fn address(&mut self, flag: &str, text: &str) -> SocketAddr {
        self.parse(flag, text, "an address and a port, such as 0.0.0.0:50051 or [::]:50051", |text| {
            text.parse().ok()
        })
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(super) fn endpoint(&mut self, flag: &str, text: &str) -> Uri {
        self.parse(flag, text, "an address such as http://127.0.0.1:4317", |text| {
            let uri: Uri = text.parse().ok()?;
            let spoken = ["http", "https"].contains(&uri.scheme_str()?);
            (spoken && ["", "/"].contains(&uri.path())).then_some(uri)
        })
        .unwrap_or_default()
    }

    pub(super) fn ratio(&mut self, flag: &str, text: &str) -> f64 {
        self.parse(flag, text, "a number from 0 to 1", |text| {
            text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
        })
        .unwrap_or_default()
    }

    /// A number of things: at least 1, and at most 2^31, which keeps sums and the wire's numbers in range.
    pub(super) fn count(&mut self, flag: &str, text: &str) -> NonZeroUsize {
        self.parse(flag, text, "a whole number from 1 to 2147483648", |text| {
            text.parse::<NonZeroUsize>().ok().filter(|count| count.get() <= 1 << 31)
        })
        .unwrap_or(NonZeroUsize::MIN)
    }

    pub(super) fn optional_count(
        &mut self,
        flag: &str,
        text: Option<&str>,
        default: NonZeroUsize,
    ) -> NonZeroUsize {
        text.map_or(default, |text| self.count(flag, text))
    }

    /// Bytes or pixels: like a count, up to 2^40.
    pub(super) fn bytes(&mut self, flag: &str, text: &str) -> usize {
        self.parse(flag, text, "a whole number from 1 to 1099511627776", |text| {
            text.parse::<usize>().ok().filter(|bytes| (1..=1 << 40).contains(bytes))
        })
        .unwrap_or(1)
    }

    /// Bytes, or no limit.
    pub(super) fn optional_bytes(&mut self, flag: &str, text: Option<&str>) -> Option<NonZeroUsize> {
        text.and_then(|text| NonZeroUsize::new(self.bytes(flag, text)))
    }

    /// Each of a list that is parsed by its type.
    pub(super) fn list<T: FromStr<Err = String>>(&mut self, flag: &str, texts: &[String]) -> Vec<T> {
        let parsed =
            texts.iter().map(|text| text.parse().map_err(|error| self.add(format!("{flag}: {error}"))));
        parsed.filter_map(Result::ok).collect()
    }

    pub(super) fn device(&mut self, flag: &str, text: &str) -> DeviceChoice {
        self.parse(flag, text, "one of auto, cpu, openvino, or GPUs such as cuda:0,cuda:1", |text| {
            text.parse().ok()
        })
        .unwrap_or(DeviceChoice::Auto)
    }

    /// A number that HTTP/2 carries in 31 bits (RFC 9113, section 6.5.2).
    pub(super) fn bounded(&mut self, flag: &str, text: &str) -> u32 {
        self.parse(flag, text, "a whole number from 1 to 2147483647", |text| {
            text.parse::<u32>().ok().filter(|number| (1..1 << 31).contains(number))
        })
        .unwrap_or(1)
    }

    /// A day at most: longer is a mistake.
    pub(super) fn duration(&mut self, flag: &str, text: &str) -> Duration {
        self.parse(flag, text, "a duration of at most a day, such as 250ms, 5s or 0s", |text| {
            humantime::parse_duration(text).ok().filter(|duration| *duration <= Duration::from_secs(86_400))
        })
        .unwrap_or(Duration::from_secs(1))
    }

    /// A duration of which zero means for ever.
    pub(super) fn lifetime(&mut self, flag: &str, text: &str) -> Option<Duration> {
        Some(self.duration(flag, text)).filter(|lifetime| !lifetime.is_zero())
    }

    pub(super) fn choice<T: Copy>(&mut self, flag: &str, text: &str, choices: &[(&str, T)]) -> T {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.parse(flag, text, &format!("one of {}", names.join(", ")), |text| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        })
        .unwrap_or(choices[0].1)
    }

    fn parse<T>(
        &mut self,
        flag: &str,
        text: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = parse(text);
        if value.is_none() {
            self.add(format!("{flag}: {text:?} is not {expected}"));
        }
        value
    }
}
