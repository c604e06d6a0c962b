//! JSON as clients write it: what several endpoints have in common.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::images;
use super::problem::{Place, Problem};
use crate::long_work;
use crate::pipeline::ImageSource;
use crate::pipeline::embed::Input;
use crate::pipeline::error::{self, Part};

/// Elements of a list, whatever the server's limits are: so many do not become a request to be refused.
const ELEMENTS: usize = 1 << 16;

/// Reads a request. Fields that nobody knows are ignored, as elsewhere; `null` is the same as nothing.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    long_work::over(body.len(), || {
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            // What ends early or is no field has no path.
            let path = path.trim_end_matches(['.', '?']);
            let place = if path.is_empty() { Place::None } else { Place::Named(path) };
            Problem::invalid(place, error.inner())
        })?;
        json.end().map_err(|error| Problem::invalid(Place::None, error))?;
        Ok(read)
    })
}

/// A string that stays in the body where it can.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A list of at most [`ELEMENTS`].
#[derive(Clone, Debug, ToSchema)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<T>, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() == ELEMENTS {
                return Err(A::Error::custom(format_args!("more than {ELEMENTS} elements")));
            }
            elements.push(element);
        }
        Ok(List(elements))
    }
}

/// One thing to embed.
#[derive(Clone, Debug)]
pub(super) enum Item<'a> {
    Text(Cow<'a, str>),
    /// Base64, or an address.
    Image(Cow<'a, str>),
    Embedding(Vec<f32>),
    /// Numbers of tokens, of whatever vocabulary the client has.
    Tokens,
}

/// An item that is an object, in the words of several APIs.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow, alias = "bytes", alias = "url", alias = "image_base64")]
    image: Option<Text<'a>>,
    #[serde(borrow)]
    image_url: Option<ImageUrl<'a>>,
    embedding: Option<List<f32>>,
}

/// OpenAI has an object, and Bedrock a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum ImageUrl<'a> {
    Url(#[serde(borrow)] Text<'a>),
    Object {
        #[serde(borrow)]
        url: Text<'a>,
    },
}

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item<'a>, D::Error> {
        deserializer.deserialize_any(ItemVisitor(PhantomData))
    }
}

struct ItemVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for ItemVisitor<'a> {
    type Value = Item<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or an object with text or image")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Item<'a>, E> {
        Ok(Item::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Item<'a>, E> {
        Ok(Item::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Item<'a>, E> {
        Ok(Item::Tokens)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Item<'a>, E> {
        Ok(Item::Tokens)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item<'a>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Item::Tokens)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item<'a>, A::Error> {
        let object = Object::deserialize(MapAccessDeserializer::new(map))?;
        let url = object.image_url.map(|url| match url {
            ImageUrl::Url(url) | ImageUrl::Object { url } => url,
        });
        match (object.text, object.image.or(url), object.embedding) {
            (Some(Text(text)), None, None) => Ok(Item::Text(text)),
            (None, Some(Text(image)), None) => Ok(Item::Image(image)),
            (None, None, Some(List(embedding))) => Ok(Item::Embedding(embedding)),
            (None, None, None) => Err(A::Error::custom("one of text and image must be set")),
            _ => Err(A::Error::custom("text and image together have no vector: send two items")),
        }
    }
}

/// One item or a list of them.
#[derive(Clone, Debug)]
pub(super) struct Items<'a>(pub(super) Vec<Item<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items<'a>, D::Error> {
        deserializer.deserialize_any(ItemsVisitor(PhantomData))
    }
}

struct ItemsVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for ItemsVisitor<'a> {
    type Value = Items<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an object with text or image, or a list of such")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Items<'a>, E> {
        Ok(Items(vec![ItemVisitor(PhantomData).visit_borrowed_str(text)?]))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Items<'a>, E> {
        Ok(Items(vec![ItemVisitor(PhantomData).visit_str(text)?]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Items<'a>, A::Error> {
        Ok(Items(vec![ItemVisitor(PhantomData).visit_map(map)?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Items<'a>, A::Error> {
        let List(items) = ListVisitor(PhantomData).visit_seq(list)?;
        Ok(Items(items))
    }
}

/// What is wrong with token numbers, and where most of them come from.
const TOKENS: &str = "token numbers are those of another model: send text \
                      (in LangChain, OpenAIEmbeddings(check_embedding_ctx_length=False))";

impl Item<'_> {
    pub(super) fn input(self) -> Input {
        let wrong = |message: &str| Input::Wrong(Part::Whole, message.to_owned());
        match self {
            Item::Text(text) if text.is_empty() => wrong("must not be empty"),
            Item::Text(text) => Input::Text(text.into_owned()),
            Item::Image(text) => match long_work::over(text.len(), || images::decode(&text)) {
                Ok(file) => Input::Image(ImageSource::Encoded(file)),
                Err(message) => Input::Wrong(Part::Encoded, message),
            },
            Item::Embedding(_) => wrong("is an embedding already"),
            Item::Tokens => wrong(TOKENS),
        }
    }
}

/// Refuses inputs that are wrong on the face of it, each with its number: a call that must be right as a whole need not
/// be computed.
pub(super) fn check_inputs<'a>(
    inputs: impl IntoIterator<Item = (usize, &'a Input)>,
    name: &str,
) -> Result<(), Problem> {
    for (index, input) in inputs {
        if let Input::Wrong(part, message) = input {
            return Err(Problem::invalid(Place::Of(error::Place::Input(index, *part), name), message));
        }
    }
    Ok(())
}

/// How the numbers of embeddings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum EncodingFormat {
    #[default]
    Float,
    /// Little-endian numbers of 4 bytes.
    Base64,
}

/// The numbers of an embedding.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Numbers {
    Float(Vec<f32>),
    Base64(String),
}

/// A number as text, with its comma.
const FLOAT_BYTES: usize = 13;

impl Numbers {
    pub(super) fn new(values: Vec<f32>, format: EncodingFormat) -> Numbers {
        match format {
            EncodingFormat::Float => Numbers::Float(values),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                Numbers::Base64(STANDARD.encode(bytes))
            }
        }
    }

    /// What they take, nearly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Numbers::Float(values) => values.len() * FLOAT_BYTES,
            Numbers::Base64(text) => text.len(),
        }
    }
}

/// Tokens of all texts, start and end included, before any truncation.
#[derive(Serialize, ToSchema)]
pub(super) struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl Usage {
    pub(super) fn new(tokens: u32) -> Usage {
        Usage { prompt_tokens: tokens, total_tokens: tokens }
    }
}
