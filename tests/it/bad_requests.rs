//! One table of bad input: what each gets, and that everything else in the request is still answered.

use clipd::grpc::proto::{self, ClassifyRequest, EmbedRequest, Input, RgbImage};
use tonic::Code;

use crate::support::*;

/// Limits small enough to exceed cheaply.
const FLAGS: [&str; 7] = [
    "--max-inputs=4",
    "--max-labels=3",
    "--max-templates=2",
    "--max-prompts=5",
    "--max-text-bytes=100",
    "--max-image-bytes=20000",
    "--max-image-pixels=1000000",
];

/// A PNG header that promises `width` x `height` pixels, and nothing else: a decompression bomb's outside.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(png::ColorType::Rgb);
    drop(encoder.write_header().unwrap());
    png
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_input_gets_its_own_error_and_the_others_are_answered() {
    let mut server = Server::start(&FLAGS).await;
    let good = fixture("images/cat.png");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let encoded = |bytes: Vec<u8>| image_input(image(bytes));
    let pixels = |width, height, bytes: usize| image_input(rgb(width, height, vec![0; bytes]));
    let nothing = image_input(proto::Image { source: None });

    #[rustfmt::skip]
    let table: Vec<(&str, Input, &str, &str)> = vec![
        // name, input, field, what the message says
        ("nothing set", Input { content: None }, "", "one of image and text must be set"),
        ("no source", nothing, ".image", "one of encoded and rgb must be set"),
        ("empty image", encoded(vec![]), ".image.encoded", "empty"),
        ("unknown format", encoded(b"not a picture".to_vec()), ".image.encoded", "JPEG, PNG"),
        ("ICO", encoded(b"\0\0\x01\0\x01\0\x01\x01\0\0\x01\0".to_vec()), ".image.encoded", "JPEG, PNG"),
        ("GIF of nothing", encoded(b"GIF89a\x01\0\x01\0\0\0\0;".to_vec()), ".image.encoded", "the GIF cannot"),
        ("truncated", encoded(good[..good.len() / 2].to_vec()), ".image.encoded", "PNG"),
        ("damaged", encoded(flipped), ".image.encoded", "PNG"),
        ("too many bytes", encoded(vec![0xff; 20_001]), ".image.encoded", "20001"),
        ("bomb", encoded(png_header(50_000, 50_000)), ".image.encoded", "50000"),
        ("rgb too short", pixels(10, 10, 299), ".image.rgb.pixels", "300"),
        ("rgb too long", pixels(10, 10, 301), ".image.rgb.pixels", "300"),
        ("rgb zero", pixels(0, 10, 0), ".image.rgb.pixels", "zero"),
        ("rgb too many pixels", pixels(2000, 2000, 0), ".image.rgb.pixels", "2000"),
        ("rgb overflow", pixels(u32::MAX, u32::MAX, 12), ".image.rgb.pixels", "4294967295"),
        ("empty text", text_input(""), ".text", "empty"),
        ("white space", text_input(" \n\t "), ".text", "empty"),
        ("long text", text_input(&"x".repeat(101)), ".text", "101"),
    ];
    for (name, bad, field, says) in table {
        let request = embed_request(vec![text_input("cat"), bad, encoded(good.clone())]);
        let response = server.client.embed(request).await.unwrap_or_else(|status| panic!("{name}: {status}"));
        let results = response.into_inner().results;
        assert_eq!(results.len(), 3, "{name}");
        let error = error(&results[1]);
        assert_eq!(error.code, Code::InvalidArgument as i32, "{name}");
        assert_eq!(error.field, format!("inputs[1]{field}"), "{name}: {}", error.message);
        assert!(error.message.contains(says), "{name}: {}", error.message);
        assert!(error.message.len() < 300, "{name}: {}", error.message);
        embedding(&results[0]);
        embedding(&results[2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_costs_one_classification() {
    let mut server = Server::start(&FLAGS).await;
    let request = ClassifyRequest {
        images: vec![image(b"nonsense".to_vec()), image(fixture("images/cat.png"))],
        labels: vec!["cat".into(), "dog".into()],
        ..ClassifyRequest::default()
    };
    let results = server.client.classify(request).await.unwrap().into_inner().results;
    let Some(proto::classify_result::Result::Error(error)) = &results[0].result else {
        panic!("{results:?}")
    };
    assert_eq!(error.field, "images[0].encoded");
    assert_eq!(predictions(&results[1]).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_refused_whole_and_the_message_names_the_field() {
    let mut server = Server::start(&FLAGS).await;
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let classify = |images: usize, labels: &[&str], templates: &[&str]| ClassifyRequest {
        images: vec![picture(0); images],
        labels: strings(labels).into_iter().map(Into::into).collect(),
        templates: strings(templates),
        ..ClassifyRequest::default()
    };
    let long = "x".repeat(101);
    let table: Vec<(&str, ClassifyRequest, &str)> = vec![
        ("no images", classify(0, &["a"], &[]), "images: must not be empty"),
        ("too many images", classify(5, &["a"], &[]), "images: 5 are more than the limit of 4"),
        (
            "a label that is not UTF-8",
            ClassifyRequest { labels: vec![b"cat\xff".to_vec().into()], ..classify(1, &[], &[]) },
            "labels[0]: invalid utf-8 sequence of 1 bytes from index 3",
        ),
        ("no labels", classify(1, &[], &[]), "labels: must not be empty"),
        (
            "too many labels",
            classify(1, &["a", "b", "c", "d"], &[]),
            "labels: 4 are more than the limit of 3",
        ),
        ("an empty label", classify(1, &["a", " "], &[]), "labels[1]: must not be empty"),
        ("a long label", classify(1, &["a", &long], &[]), "labels[1]: 101 bytes"),
        ("a duplicate", classify(1, &["a", "b", "a"], &[]), "labels[2]: is the same as labels[0]"),
        (
            "a template that repeats",
            classify(1, &["0123456789"], &["{}{}{}{}{}{}{}{}{}{}{}"]),
            "templates[0] with its longest label: bytes: 110 are more",
        ),
        ("no placeholder", classify(1, &["a"], &["{}", "a photo"]), "templates[1]: "),
        ("too many templates", classify(1, &["a"], &["{}", "{}.", "{}!"]), "templates: 3 are more"),
        ("too many prompts", classify(1, &["a", "b", "c"], &["{}", "{}."]), "labels x templates: 6 are more"),
    ];
    for (name, request, says) in table {
        let status = server.client.classify(request).await.expect_err(name);
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
        assert!(status.message().starts_with(says), "{name}: {}", status.message());
    }

    let table: Vec<(&str, EmbedRequest, &str)> = vec![
        ("no inputs", embed_request(vec![]), "inputs: must not be empty"),
        (
            "too many inputs",
            embed_request(vec![text_input("a"); 5]),
            "inputs: 5 are more than the limit of 4",
        ),
        (
            "unknown enum",
            EmbedRequest { normalization: 9, ..embed_request(vec![text_input("a")]) },
            "normalization: unknown value 9",
        ),
        (
            "unknown enum",
            EmbedRequest { truncate: -1, ..embed_request(vec![text_input("a")]) },
            "truncate: unknown value -1",
        ),
        (
            "unknown enum",
            EmbedRequest { embedding_format: 4, ..embed_request(vec![text_input("a")]) },
            "embedding_format: unknown value 4",
        ),
    ];
    for (name, request, says) in table {
        let status = server.client.embed(request).await.expect_err(name);
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
        assert!(status.message().starts_with(says), "{name}: {}", status.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_predictions_is_limited() {
    let mut server = Server::start(&["--max-predictions=3"]).await;
    let mut request = ClassifyRequest {
        images: vec![picture(0), picture(1)],
        labels: vec!["a".into(), "b".into()],
        ..ClassifyRequest::default()
    };
    let status = server.client.classify(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("images x top_k: 4 are more than the limit of 3"), "{status}");
    request.top_k = 1;
    server.client.classify(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_refused_and_the_connection_lives() {
    let mut server = Server::start(&["--max-message-bytes=100000"]).await;
    let pixels = RgbImage { width: 200, height: 200, pixels: vec![0; 120_000].into() };
    let big = proto::Image { source: Some(proto::image::Source::Rgb(pixels)) };
    let status = server.client.embed(embed_request(vec![image_input(big)])).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    server.client.embed(embed_request(vec![text_input("still here")])).await.unwrap();
}
