//! Embed, on the embedded model.

use clipd::grpc::proto::{self, EmbedRequest, EmbeddingFormat, GetModelRequest};
use half::f16;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn images_and_texts_come_back_in_order() {
    let mut server = Server::start(&[]).await;
    let request = embed_request(vec![
        text_input("an emoji of pizza"),
        image_input(image(fixture("images/pizza.png"))),
        text_input("an emoji of guitar"),
        image_input(image(fixture("images/guitar.png"))),
    ]);
    let response = server.client.embed(request).await.unwrap().into_inner();
    let model = server.client.get_model(GetModelRequest {}).await.unwrap().into_inner();

    let embeddings: Vec<&proto::Embedding> = response.results.iter().map(embedding).collect();
    for each in &embeddings {
        assert_eq!(each.values.len(), model.embedding_size as usize);
        assert!((dot(&each.values, &each.values) - 1.0).abs() < 1e-5, "unit length");
    }
    let similarity = |text: usize, image: usize| dot(&embeddings[text].values, &embeddings[image].values);
    assert!(similarity(0, 1) > similarity(2, 1) + 0.1, "the pizza is like the word pizza");
    assert!(similarity(2, 3) > similarity(0, 3) + 0.1, "the guitar is like the word guitar");
    assert!(embeddings[0].tokens >= 3 && !embeddings[0].truncated);
    assert_eq!(embeddings[1].tokens, 0, "an image has no tokens");

    let timing = response.timing.unwrap();
    let nanos = |duration: Option<prost_types::Duration>| duration.unwrap().nanos;
    assert!(nanos(timing.inference) > 0 && nanos(timing.preprocess) > 0 && nanos(timing.queue) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jpeg_is_like_the_png_and_raw_pixels_are_the_same() {
    let mut server = Server::start(&[]).await;
    let png = fixture("images/pizza.png");
    let decoder = png::Decoder::new(std::io::Cursor::new(&png));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(frame.color_type, png::ColorType::Rgb);

    let request = embed_request(vec![
        image_input(image(png)),
        image_input(image(fixture("images/pizza.jpg"))),
        image_input(rgb(frame.width, frame.height, pixels)),
    ]);
    let response = server.client.embed(request).await.unwrap().into_inner();
    let values: Vec<&[f32]> = response.results.iter().map(|result| &*embedding(result).values).collect();
    assert!(dot(values[0], values[1]) > 0.98, "{}", dot(values[0], values[1]));
    assert!(dot(values[0], values[2]) > 0.999_99, "{}", dot(values[0], values[2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_is_cut_and_says_so_or_is_refused() {
    let mut server = Server::start(&[]).await;
    let long = "guitar ".repeat(100);
    let mut request = embed_request(vec![text_input(&long), text_input("guitar")]);
    let response = server.client.embed(request.clone()).await.unwrap().into_inner();
    let cut = embedding(&response.results[0]);
    assert!(cut.truncated);
    assert!(cut.tokens >= 102, "counted before truncation: {}", cut.tokens);
    assert!(!embedding(&response.results[1]).truncated);

    request.truncate = proto::Truncate::Error.into();
    let response = server.client.embed(request).await.unwrap().into_inner();
    let refused = error(&response.results[0]);
    assert_eq!(refused.field, "inputs[0].text");
    assert!(refused.message.contains("context length of 32"), "{}", refused.message);
    embedding(&response.results[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unnormalised_vectors_have_the_same_direction() {
    let mut server = Server::start(&[]).await;
    let mut request = embed_request(vec![image_input(image(fixture("images/car.png")))]);
    let unit = server.client.embed(request.clone()).await.unwrap().into_inner();
    request.normalization = proto::Normalization::None.into();
    let raw = server.client.embed(request).await.unwrap().into_inner();
    let (unit, raw) = (&embedding(&unit.results[0]).values, &embedding(&raw.results[0]).values);
    let length = dot(raw, raw).sqrt();
    assert!((length - 1.0).abs() > 0.01, "the projection does not happen to give unit length: {length}");
    assert!((dot(unit, raw) / length - 1.0).abs() < 1e-5);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_model_tells_what_runs() {
    let mut server = Server::start(&["--max-inputs=7"]).await;
    let model = server.client.get_model(GetModelRequest {}).await.unwrap().into_inner();
    assert_eq!(model.name, "emoji-clip");
    assert!(model.fingerprint.ends_with("-2-fp32"), "{}", model.fingerprint);
    let embedded = server.client.embed(embed_request(vec![text_input("a car")])).await.unwrap();
    assert_eq!(embedded.metadata().get("clip-fingerprint").unwrap(), &model.fingerprint);
    assert_eq!((model.embedding_size, model.image_height, model.image_width), (128, 64, 64));
    assert_eq!(model.context_length, 32);
    assert!((model.logit_scale - 24.8).abs() < 0.1);
    assert_eq!((model.device.as_str(), model.precision.as_str()), ("cpu", "fp32"));
    assert!(model.engine.starts_with("onnxruntime 1."), "{}", model.engine);
    assert_eq!(model.limits.unwrap().inputs, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_embeddings_are_the_same_numbers() {
    let mut server = Server::start(&[]).await;
    let mut in_format = async |format: EmbeddingFormat| {
        let inputs = vec![text_input("a guitar")];
        let request = EmbedRequest { embedding_format: format.into(), ..embed_request(inputs) };
        let response = server.client.embed(request).await.unwrap().into_inner();
        embedding(&response.results[0]).clone()
    };
    let floats = in_format(EmbeddingFormat::Float32).await;
    assert_eq!(in_format(EmbeddingFormat::Unspecified).await, floats);
    assert!(floats.packed.is_empty() && floats.tokens > 0);

    let packed = in_format(EmbeddingFormat::Float32Bytes).await;
    assert!(packed.values.is_empty());
    assert_eq!(packed.tokens, floats.tokens);
    let (numbers, rest) = packed.packed.as_chunks();
    assert_eq!(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>(), floats.values);
    assert!(rest.is_empty());

    let packed = in_format(EmbeddingFormat::Float16Bytes).await;
    let (numbers, rest) = packed.packed.as_chunks();
    let rounded: Vec<f16> = numbers.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect();
    assert_eq!(rounded, floats.values.iter().map(|value| f16::from_f32(*value)).collect::<Vec<_>>());
    assert!(rest.is_empty() && packed.values.is_empty());
}
