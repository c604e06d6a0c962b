//! How the request of each RPC names its parts.

use crate::pipeline::error::{Part, Place};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rpc {
    Embed,
    Classify,
    Rank,
    StreamEmbed,
    StreamClassify,
}

impl Rpc {
    /// The path of a field, such as `inputs[3].image.encoded`.
    pub(super) fn field(self, place: Place) -> String {
        match (self, place) {
            (Rpc::Classify, Place::Inputs) => "images".to_owned(),
            (Rpc::Classify, Place::Input(index, part)) => format!("images[{index}]{}", of_image(part)),
            (Rpc::Rank, Place::Inputs) => "documents".to_owned(),
            (Rpc::Rank, Place::Input(index, part)) => format!("documents[{index}]{part}"),
            (Rpc::StreamEmbed, Place::Input(_, part)) => format!("input{part}"),
            (Rpc::StreamClassify, Place::Input(_, part)) => format!("image.image{}", of_image(part)),
            _ => place.to_string(),
        }
    }
}

/// Where the message is an image, and no input that may be one.
fn of_image(part: Part) -> String {
    let part = part.to_string();
    part.strip_prefix(".image").map(str::to_owned).unwrap_or(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_the_request_names_them() {
        let check = |rpc: Rpc, place: Place, expected: &str| assert_eq!(rpc.field(place), expected);
        check(Rpc::Embed, Place::Input(3, Part::Encoded), "inputs[3].image.encoded");
        check(Rpc::Embed, Place::Input(3, Part::Whole), "inputs[3]");
        check(Rpc::Classify, Place::Input(2, Part::Pixels), "images[2].rgb.pixels");
        check(Rpc::Classify, Place::Input(2, Part::Image), "images[2]");
        check(Rpc::Rank, Place::Query(Part::Text), "query.text");
        check(Rpc::Rank, Place::Input(0, Part::Embedding), "documents[0].embedding");
        check(Rpc::StreamEmbed, Place::Input(0, Part::Text), "input.text");
        check(Rpc::StreamClassify, Place::Input(0, Part::Encoded), "image.image.encoded");
        check(Rpc::Classify, Place::Label(7), "labels[7]");
    }
}
